//! More pods than the nodes can hold: of several priorities, some under disruption budgets, some behind gates, some in gangs.

use icp_core::api::{resources, set_at};
use icp_core::base::{Duration, Rng};
use icp_core::client::{ApiRequest, DeleteOptions, ListOptions, Operation, PatchKind};
use serde_json::{Value, json};

use super::user::create;

/// Where they live: the namespace of most workloads.
const NAMESPACE: &str = "load";
/// After the end of its actions the crowd is cleared this often, because a pod may come late.
const CLEARINGS: u32 = 8;
/// Between two of them.
const CLEAR_EVERY: Duration = Duration::from_secs(5);

/// Bare pods that come and go.
pub struct Crowd {
    rng: Rng,
    most: usize,
    made: u64,
    pods: Vec<String>,
    gated: Vec<String>,
    gangs: Vec<String>,
    cleared: u32,
}

impl Crowd {
    /// A crowd of at most so many pods at a time.
    #[must_use]
    pub const fn new(rng: Rng, most: usize) -> Self {
        Self { rng, most, made: 0, pods: Vec::new(), gated: Vec::new(), gangs: Vec::new(), cleared: 0 }
    }

    /// A number below `bound`, for whoever needs one about the crowd.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let at = usize::try_from(self.rng.below(of.len() as u64)).unwrap_or(0);
        of.get(at).copied().unwrap_or("")
    }

    fn take(rng: &mut Rng, of: &mut Vec<String>) -> Option<String> {
        let at = usize::try_from(rng.below(of.len() as u64)).unwrap_or(0);
        (at < of.len()).then(|| of.swap_remove(at))
    }

    /// What priorities and budgets need; asked for again now and then, because it may be lost.
    fn basis(&mut self) -> ApiRequest {
        match self.rng.below(4) {
            0 => class("idle", -100),
            1 => class("urgent", 100),
            2 => budget("a"),
            _ => budget("b"),
        }
    }

    /// The next requests.
    pub fn act(&mut self) -> Vec<ApiRequest> {
        if self.made == 0 {
            self.made = 1;
            return vec![class("idle", -100), class("urgent", 100), budget("a"), budget("b")];
        }
        match self.rng.below(100) {
            0..60 if self.pods.len() + 3 * self.gangs.len() < self.most => {
                if self.rng.below(5) == 0 {
                    return self.gang();
                }
                let burst = 1 + self.rng.below(3);
                (0..burst).map(|_| self.pod()).collect()
            }
            0..78 => {
                let all = (self.pods.len() + self.gangs.len()) as u64;
                if self.rng.below(all) >= self.pods.len() as u64 {
                    let Some(name) = Self::take(&mut self.rng, &mut self.gangs) else { return Vec::new() };
                    return vec![remove(format!("gang={name}"))];
                }
                let Some(name) = Self::take(&mut self.rng, &mut self.pods) else { return Vec::new() };
                self.gated.retain(|g| *g != name);
                let op = Operation::Delete(DeleteOptions::default());
                vec![ApiRequest::object(&resources::PODS, NAMESPACE, &name, op)]
            }
            78..86 => {
                let Some(name) = Self::take(&mut self.rng, &mut self.gated) else { return Vec::new() };
                vec![ApiRequest::object(
                    &resources::PODS,
                    NAMESPACE,
                    &name,
                    merge(json!({"spec": {"schedulingGates": null}})),
                )]
            }
            86..95 => {
                let (name, least) = (self.pick(&["a", "b"]), self.rng.below(4));
                let body = json!({"spec": {"minAvailable": least}});
                let budgets = &resources::POD_DISRUPTION_BUDGETS;
                vec![ApiRequest::object(budgets, NAMESPACE, name, merge(body))]
            }
            _ => vec![self.basis()],
        }
    }

    /// A PodGroup and its pods, of which one may come too many, or one too few.
    fn gang(&mut self) -> Vec<ApiRequest> {
        self.made += 1;
        let (name, min) = (format!("g{}", self.made), 2 + self.rng.below(3));
        let group = json!({ "apiVersion": "scheduling.k8s.io/v1beta1", "kind": "PodGroup",
                            "metadata": { "name": name, "namespace": NAMESPACE },
                            "spec": { "schedulingPolicy": { "gang": { "minCount": min } } } });
        let mut requests = vec![create(&resources::POD_GROUPS, NAMESPACE, group)];
        let pods = min + self.rng.below(2) - u64::from(self.rng.below(8) == 0);
        let cpu = self.pick(&["700m", "1100m"]);
        for at in 0..pods {
            let mut spec = self.spec(cpu, "");
            set_at(&mut spec, &["schedulingGroup"], json!({ "podGroupName": name }));
            let meta = json!({ "name": format!("{name}-{at}"), "namespace": NAMESPACE,
                               "labels": { "crowd": "none", "gang": name } });
            let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec });
            requests.push(create(&resources::PODS, NAMESPACE, pod));
        }
        self.gangs.push(name);
        requests
    }

    fn spec(&mut self, cpu: &str, class: &str) -> Value {
        let away = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 15 });
        json!({
            "automountServiceAccountToken": false,
            "priorityClassName": class,
            "terminationGracePeriodSeconds": 1 + self.rng.below(3),
            "tolerations": [away("node.kubernetes.io/unreachable"), away("node.kubernetes.io/not-ready")],
            "containers": [{ "name": "app", "image": "app:v1",
                             "resources": { "requests": { "cpu": cpu, "memory": "64Mi" } } }],
        })
    }

    fn pod(&mut self) -> ApiRequest {
        self.made += 1;
        let name = format!("c{}", self.made);
        let (cpu, class) =
            (self.pick(&["700m", "1100m", "1500m", "2300m"]), self.pick(&["", "idle", "idle", "urgent"]));
        let group = self.pick(&["a", "a", "b", "none"]);
        let mut spec = self.spec(cpu, class);
        if self.rng.below(8) == 0 {
            set_at(&mut spec, &["schedulingGates"], json!([{ "name": "example.com/later" }]));
            self.gated.push(name.clone());
        }
        self.pods.push(name.clone());
        let meta = json!({ "name": name, "namespace": NAMESPACE, "labels": { "crowd": group } });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec });
        create(&resources::PODS, NAMESPACE, pod)
    }

    /// Removes them all, so that there is room for everything else in the end; with the pause before the next time, if
    /// there is one.
    pub fn clear(&mut self) -> (ApiRequest, Option<Duration>) {
        self.cleared += 1;
        (remove("crowd".into()), (self.cleared < CLEARINGS).then_some(CLEAR_EVERY))
    }
}

/// Deletes all pods with these labels.
fn remove(label_selector: String) -> ApiRequest {
    let list = ListOptions { label_selector, ..ListOptions::default() };
    let op = Operation::DeleteCollection(DeleteOptions::default(), list);
    ApiRequest::collection(&resources::PODS, NAMESPACE, op)
}

fn merge(body: Value) -> Operation {
    Operation::Patch { kind: PatchKind::Merge, body, field_manager: None, force: false }
}

fn class(name: &str, value: i64) -> ApiRequest {
    let object = json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
                         "metadata": { "name": name }, "value": value });
    create(&resources::PRIORITY_CLASSES, "", object)
}

/// A budget for a part of the crowd.
fn budget(group: &str) -> ApiRequest {
    let object = json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                         "metadata": { "name": group, "namespace": NAMESPACE },
                         "spec": { "minAvailable": 1, "selector": { "matchLabels": { "crowd": group } } } });
    create(&resources::POD_DISRUPTION_BUDGETS, NAMESPACE, object)
}
