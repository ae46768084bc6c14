use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use alloc::{format, vec};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::framework::{Cycle, FilterPlan, Plugin, Point, Rejected};
use crate::model::Node;

fn with(more: Value) -> Value {
    let mut value = json!({"apiVersion": VERSION, "kind": KIND});
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    value
}

fn read(more: Value) -> Result<SchedulerConfiguration, String> {
    SchedulerConfiguration::from_value(&with(more), &Registry::default()).map_err(|e| e.to_string())
}

fn profile(plugins: Value) -> Result<Vec<EnabledPlugin>, String> {
    Ok(read(json!({"profiles": [{"plugins": plugins}]}))?.profiles.remove(0).plugins)
}

fn at(plugins: &[EnabledPlugin], point: Point) -> Vec<&str> {
    plugins.iter().filter(|p| p.points.contains(point)).map(|p| p.name.as_str()).collect()
}

#[test]
fn nothing_said_is_the_default_scheduler() {
    let config = read(json!({})).unwrap();
    assert_eq!(
        (config.parallelism, config.backoff_initial.as_secs(), config.backoff_max.as_secs()),
        (16, 1, 10)
    );
    assert!(config.leader_election.elect && config.extenders.is_empty());
    assert_eq!((config.profiles.len(), config.profiles[0].percentage_of_nodes), (1, 100));
    let built = format!("{:?}", config.scheduler(&Registry::default()).unwrap());
    let default = format!("{:?}", crate::Scheduler::builder());
    assert_eq!(built, default);
    assert!(config.scheduler(&Registry::default()).unwrap().build().is_usual());
    let machine = config.machine("host", "host_1");
    assert_eq!(machine.leader_election.map(|e| e.name).as_deref(), Some("kube-scheduler"));
}

#[test]
fn faults_name_their_fields() {
    let cases = [
        (
            json!({"parallelism": 0}),
            "parallelism: Invalid value: 0: should be an integer value greater than zero",
        ),
        (json!({"parallelism": "16"}), "parallelism: expected an integer"),
        (json!({"paralelism": 1}), r#"unknown field "paralelism""#),
        (json!({"profiles": [{"foo": 1}]}), r#"unknown field "profiles[0].foo""#),
        (
            json!({"percentageOfNodesToScore": 101}),
            "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
        ),
        (
            json!({"podInitialBackoffSeconds": 5, "podMaxBackoffSeconds": 4}),
            "podMaxBackoffSeconds: Invalid value: 4: must be greater than or equal to PodInitialBackoffSeconds",
        ),
        (
            json!({"profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}]}),
            r#"profiles[1].schedulerName: Duplicate value: "profiles[0].schedulerName""#,
        ),
        (json!({"profiles": [{}, {"schedulerName": "a"}]}), "profiles[0].schedulerName: Required value"),
        (
            json!({"leaderElection": {"resourceLock": "endpoints"}}),
            r#"leaderElection.resourceLock: Invalid value: "endpoints": resourceLock value must be "leases""#,
        ),
        (
            json!({"leaderElection": {"leaseDuration": "5s"}}),
            r#"leaderElection.leaseDuration: Invalid value: "5s": LeaseDuration must be greater than RenewDeadline"#,
        ),
        (
            json!({"profiles": [{"plugins": {"queueSort": {"disabled": [{"name": "*"}]}}}]}),
            "profiles[0].plugins.queueSort: Invalid value: 0: one queue sort plugin is needed, but got 0",
        ),
        (
            json!({"profiles": [{"plugins": {"multiPoint": {"disabled": [{"name": "DefaultBinder"}]}}}]}),
            "profiles[0].plugins.bind: Required value: at least one bind plugin is needed",
        ),
        (
            json!({"profiles": [{"plugins": {"filter": {"enabled": [{"name": "ImageLocality"}]}}}]}),
            r#"profiles[0].plugins.filter.enabled[0].name: Invalid value: "ImageLocality": does not extend filter"#,
        ),
        (
            json!({"profiles": [{"plugins": {"filter": {"enabled": [{"name": "EBSLimits"}]}}}]}),
            r#"profiles[0].plugins.filter.enabled[0].name: Invalid value: "EBSLimits": was removed from kube-scheduler"#,
        ),
        (
            json!({"profiles": [{"plugins": {"score": {"enabled": [{"name": "ImageLocality", "weight": -1}]}}}]}),
            "profiles[0].plugins.score.enabled[0].weight: Invalid value: -1: not in valid range [0, 2147483647]",
        ),
        (
            json!({"profiles": [{"plugins": {"preFilter": {"disabled": [{"name": "NodePorts"}]}}}]}),
            r#"profiles[0].plugins.preFilter: Invalid value: "NodePorts": needs preFilter for filter"#,
        ),
        (
            json!({"profiles": [{"pluginConfig": [{"name": "Mine"}]}]}),
            r#"profiles[0].pluginConfig[0].name: Invalid value: "Mine": plugin "Mine" does not exist"#,
        ),
        (
            json!({"profiles": [{"pluginConfig": [{"name": "NodeName", "args": {"x": 1}}]}]}),
            r#"unknown field "profiles[0].pluginConfig[0].args.x""#,
        ),
        (
            json!({"extenders": [{"urlPrefix": "http://x", "prioritizeVerb": "p"}]}),
            "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
        ),
        (
            json!({"extenders": [{"bindVerb": "b"}, {"bindVerb": "b"}]}),
            r#"extenders: Invalid value: "found 2 extenders implementing bind": only one extender can implement bind"#,
        ),
        (
            json!({"extenders": [{"managedResources": [{"name": "cpu"}]}]}),
            r#"extenders[0].managedResources[0].name: Invalid value: "cpu": is an invalid extended resource name"#,
        ),
        (
            json!({"extenders": [{"httpTimeout": "5"}]}),
            r#"extenders[0].httpTimeout: Invalid value: "5": is not a duration such as 1m30s"#,
        ),
        (
            json!({"clientConnection": {"burst": -1}}),
            "clientConnection.burst: Invalid value: -1: must be non-negative",
        ),
    ];
    for (document, want) in cases {
        assert_eq!(read(document.clone()).unwrap_err(), want, "{document}");
    }
    let other = json!({"apiVersion": "kubescheduler.config.k8s.io/v1beta3", "kind": KIND});
    let error = SchedulerConfiguration::from_value(&other, &Registry::default()).unwrap_err().to_string();
    let want = r#"no kind "KubeSchedulerConfiguration" is registered for version "kubescheduler.config.k8s.io/v1beta3""#;
    assert_eq!(error, want);
    let two = read(json!({"a": 1, "parallelism": -1})).unwrap_err();
    assert!(two.starts_with('[') && two.contains(", "), "{two}");
}

#[test]
fn arguments_are_checked_as_upstream_does() {
    let args = |plugin: &str, args: Value| {
        read(json!({"profiles": [{"pluginConfig": [{"name": plugin, "args": args}]}]})).map(|_| ())
    };
    let shape = |points: Value| json!({"scoringStrategy": {"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": {"shape": points}}});
    let cases = [
        (
            "NodeResourcesFit",
            json!({"scoringStrategy": {"type": "Best"}}),
            r#"scoringStrategy.type: Unsupported value: "Best": supported values: "LeastAllocated", "MostAllocated", "RequestedToCapacityRatio""#,
        ),
        (
            "NodeResourcesFit",
            json!({"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 101}]}}),
            "scoringStrategy.resources[0].weight: Invalid value: 101: resource weight of cpu not in valid range (0, 100]",
        ),
        (
            "NodeResourcesFit",
            json!({"scoringStrategy": {"type": "RequestedToCapacityRatio"}}),
            "scoringStrategy.requestedToCapacityRatio: Required value: must be specified when type is RequestedToCapacityRatio",
        ),
        (
            "NodeResourcesFit",
            shape(json!([])),
            "scoringStrategy.requestedToCapacityRatio.shape: Required value: at least one point must be specified",
        ),
        (
            "NodeResourcesFit",
            shape(json!([{"utilization": 5, "score": 0}, {"utilization": 5, "score": 1}])),
            "scoringStrategy.requestedToCapacityRatio.shape[1].utilization: Invalid value: 5: values must be sorted in increasing order",
        ),
        (
            "NodeResourcesFit",
            shape(json!([{"utilization": 5, "score": 11}])),
            "scoringStrategy.requestedToCapacityRatio.shape[0].score: Invalid value: 11: not in valid range [0, 10]",
        ),
        (
            "NodeResourcesFit",
            json!({"ignoredResourceGroups": ["a/b"]}),
            r#"ignoredResourceGroups[0]: Invalid value: "a/b": resource group name can't contain '/'"#,
        ),
        (
            "NodeResourcesBalancedAllocation",
            json!({"resources": [{"name": "cpu", "weight": 2}]}),
            "resources[0].weight: Invalid value: 2: must be 1",
        ),
        (
            "PodTopologySpread",
            json!({"defaultConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]}),
            r#"defaultingType: Invalid value: "System": when .defaultConstraints are not empty"#,
        ),
        (
            "PodTopologySpread",
            json!({"defaultingType": "List", "defaultConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
            "defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf)",
        ),
        (
            "InterPodAffinity",
            json!({"hardPodAffinityWeight": 101}),
            "hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
        ),
        (
            "DefaultPreemption",
            json!({"minCandidateNodesPercentage": -1}),
            "minCandidateNodesPercentage: Invalid value: -1: not in valid range [0, 100]",
        ),
        (
            "VolumeBinding",
            json!({"bindTimeoutSeconds": -1}),
            "bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, should not be a negative value",
        ),
    ];
    for (plugin, value, want) in cases {
        let error = args(plugin, value).unwrap_err();
        assert_eq!(error, format!("profiles[0].pluginConfig[0].args.{want}"));
    }
    let added = json!({"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
        [{"matchExpressions": [{"key": "a", "operator": "Like"}]}]}}});
    assert!(
        args("NodeAffinity", added).unwrap_err().contains("\"Like\" is not a valid node selector operator")
    );
    assert_eq!(args("NodeAffinity", json!({"kind": "NodeAffinityArgs", "apiVersion": VERSION})), Ok(()));
}

#[test]
fn points_are_worked_out_from_multi_point() {
    let plugins = profile(json!({})).unwrap();
    assert_eq!(at(&plugins, Point::QueueSort), ["PrioritySort"]);
    assert_eq!(at(&plugins, Point::Filter)[..3], ["NodeUnschedulable", "NodeName", "TaintToleration"]);
    let weight =
        |plugins: &[EnabledPlugin], name: &str| plugins.iter().find(|p| p.name == name).map(|p| p.weight);
    assert_eq!(weight(&plugins, "TaintToleration"), Some(3));

    let plugins = profile(
        json!({"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "ImageLocality", "weight": 7}]}}),
    )
    .unwrap();
    assert_eq!(at(&plugins, Point::Score), ["ImageLocality"]);
    assert_eq!(weight(&plugins, "ImageLocality"), Some(7));
    assert_eq!(at(&plugins, Point::Filter).len(), 13);

    // Named at its point, a plugin comes first; at multiPoint it keeps its place and takes the weight.
    let plugins = profile(json!({"filter": {"enabled": [{"name": "NodeResourcesFit"}]},
        "multiPoint": {"enabled": [{"name": "NodeAffinity", "weight": 9}], "disabled": [{"name": "NodePorts"}, {"name": "DynamicResources"}]}}));
    let plugins = plugins.unwrap();
    assert_eq!(at(&plugins, Point::Filter)[..2], ["NodeResourcesFit", "NodeUnschedulable"]);
    assert_eq!(weight(&plugins, "NodeAffinity"), Some(9));
    assert!(!at(&plugins, Point::Filter).contains(&"NodePorts"));
}

struct Named(&'static str, String);
impl Plugin for Named {
    fn name(&self) -> &'static str {
        self.0
    }
    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let not =
            move |id| (cycle.cluster.node(id)?.name == self.1).then(|| Rejected::unschedulable("not there"));
        FilterPlan::Each(alloc::boxed::Box::new(not))
    }
}

fn registry() -> Registry {
    Registry::default().with("Avoid", &[Point::Filter], |args| {
        let node = args.and_then(|a| a.get("node")).and_then(Value::as_str).ok_or("node is missing")?;
        Ok(alloc::boxed::Box::new(Named("Avoid", node.into())))
    })
}

#[test]
fn plugins_of_ones_own_come_from_the_file_too() {
    let file = |args: Value| {
        with(json!({"profiles": [{"plugins": {"multiPoint": {"enabled": [{"name": "Avoid"}]}},
            "pluginConfig": [{"name": "Avoid", "args": args}]}]}))
    };
    let config = SchedulerConfiguration::from_value(&file(json!({"node": "n0"})), &registry()).unwrap();
    let mut s = config.scheduler(&registry()).unwrap().build();
    for n in ["n0", "n1"] {
        s.cluster_mut().set_node(Node::new(n, 1000, 1 << 30, 110));
    }
    let pod = crate::model::Pod::new("p", alloc::sync::Arc::new(crate::model::PodSpec::asking(1, 1)));
    assert_eq!(s.schedule(&pod).unwrap().name, "n1");
    let config = SchedulerConfiguration::from_value(&file(json!({})), &registry()).unwrap();
    let error = config.scheduler(&registry()).unwrap_err().to_string();
    assert_eq!(error, "profiles[0].pluginConfig: Invalid value: {}: Avoid: node is missing");
}

/// Every place in a document, as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.into());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(k, v)| places(v, &format!("{at}/{}", k.replace('/', "~1")), found));
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| places(v, &format!("{at}/{i}"), found))
        }
        _ => {}
    }
}

#[test]
fn anything_anywhere_is_taken_or_told_with_its_field() {
    let args = |name: &str, args: Value| json!({"name": name, "args": args});
    let document = with(json!({
        "parallelism": 8, "percentageOfNodesToScore": 50, "podInitialBackoffSeconds": 1, "podMaxBackoffSeconds": 9,
        "enableProfiling": true, "enableContentionProfiling": true, "delayCacheUntilActive": false,
        "leaderElection": {"leaderElect": true, "leaseDuration": "15s", "renewDeadline": "10s", "retryPeriod": "2s",
            "resourceLock": "leases", "resourceName": "n", "resourceNamespace": "ns"},
        "clientConnection": {"kubeconfig": "k", "acceptContentTypes": "a", "contentType": "c", "qps": 1.5, "burst": 3},
        "profiles": [{"schedulerName": "default-scheduler", "percentageOfNodesToScore": 7,
            "plugins": {"score": {"enabled": [{"name": "NodeAffinity", "weight": 2147483647}],
                "disabled": [{"name": "ImageLocality"}]}, "multiPoint": {"enabled": [{"name": "NodePorts", "weight": 5}]}},
            "pluginConfig": [
                args("NodeResourcesFit", json!({"ignoredResources": ["a.b/c"], "ignoredResourceGroups": ["d.e"],
                    "scoringStrategy": {"type": "RequestedToCapacityRatio", "resources": [{"name": "cpu", "weight": 100}],
                        "requestedToCapacityRatio": {"shape": [{"utilization": 0, "score": 0}, {"utilization": 9, "score": 10}]}}})),
                args("NodeResourcesBalancedAllocation", json!({"resources": [{"name": "cpu", "weight": 1}]})),
                args("PodTopologySpread", json!({"defaultingType": "List", "defaultConstraints": [{"maxSkew": 1,
                    "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2,
                    "nodeAffinityPolicy": "Honor", "nodeTaintsPolicy": "Ignore"}]})),
                args("InterPodAffinity", json!({"hardPodAffinityWeight": 5, "ignorePreferredTermsOfExistingPods": true})),
                args("NodeAffinity", json!({"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}]}}})),
                args("DefaultPreemption", json!({"minCandidateNodesPercentage": 5, "minCandidateNodesAbsolute": 6})),
                args("VolumeBinding", json!({"bindTimeoutSeconds": 9,
                    "shape": [{"utilization": 0, "score": 0}, {"utilization": 9, "score": 10}]})),
            ]}],
        "extenders": [{"urlPrefix": "https://x", "filterVerb": "f", "prioritizeVerb": "p", "preemptVerb": "v", "bindVerb": "b",
            "weight": 9_223_372_036_854_775_807_i64, "enableHTTPS": true, "httpTimeout": "5s", "nodeCacheCapable": true,
            "ignorable": true, "managedResources": [{"name": "a.b/c", "ignoredByScheduler": true}],
            "tlsConfig": {"insecure": false, "serverName": "s", "certFile": "c", "keyFile": "k", "caFile": "a",
                "certData": "", "keyData": "", "caData": ""}}],
    }));
    let registry = Registry::default();
    let config = SchedulerConfiguration::from_value(&document, &registry).unwrap();
    config.scheduler(&registry).unwrap();
    let mut all = Vec::new();
    places(&document, "", &mut all);
    assert!(all.len() > 100);
    let deep = (0..64).fold(json!(1), |inner, _| json!([inner]));
    let wrong = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(-0.5),
        json!(""),
        json!("x"),
        json!("*"),
        json!("99999999999999h"),
        json!("\u{0}"),
        json!([]),
        json!([null]),
        json!([[]]),
        json!([{}, {}]),
        json!({}),
        json!({"x": 1}),
        json!("y".repeat(1 << 16)),
        deep,
    ];
    for at in &all {
        for value in &wrong {
            let mut document = document.clone();
            *document.pointer_mut(at).unwrap() = value.clone();
            match SchedulerConfiguration::from_value(&document, &registry) {
                Ok(config) => {
                    let again = SchedulerConfiguration::from_value(&config.to_value(), &registry).unwrap();
                    assert_eq!(again.to_value(), config.to_value(), "{at} {value}");
                    if let Ok(builder) = config.scheduler(&registry) {
                        assert!(!builder.build().profiles().collect::<Vec<_>>().is_empty());
                    }
                }
                Err(errors) => {
                    let text = errors.to_string();
                    // The longest pause is what is wrong with a first one that is longer.
                    let field = match at.split('/').nth(1).unwrap_or_default() {
                        "podInitialBackoffSeconds" => "BackoffSeconds",
                        other => other,
                    };
                    let told =
                        text.contains(field) || text.starts_with("no kind") || text.contains("unknown field");
                    assert!(told && !errors.0.is_empty(), "{at} {}: {text}", value.to_string().len());
                }
            }
        }
    }
}

#[test]
fn many_profiles_of_one_name_are_each_told() {
    let one = json!({"schedulerName": "a"});
    let errors = read(json!({"profiles": vec![one; 500]})).unwrap_err();
    assert_eq!(errors.matches("Duplicate value").count(), 499);
    let extender = json!({"urlPrefix": "http://x", "bindVerb": "b", "managedResources": [{"name": "a.b/c"}]});
    let errors = read(json!({"extenders": vec![extender; 500]})).unwrap_err();
    assert!(errors.contains("found 500 extenders implementing bind"), "{errors}");
    assert_eq!(errors.matches("duplicate extender managed resource name").count(), 499);
}

#[test]
fn nobody_is_asked_to_bind_after_the_default_binder() {
    let binds = |plugins: Value| {
        let registry = Registry::default().with("Avoid", &[Point::Filter, Point::Bind], |_| {
            Ok(alloc::boxed::Box::new(Named("Avoid", String::new())))
        });
        let file = with(json!({"profiles": [{"plugins": plugins}]}));
        let config = SchedulerConfiguration::from_value(&file, &registry).unwrap();
        at(&config.profiles[0].plugins, Point::Bind).into_iter().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(binds(json!({"multiPoint": {"enabled": [{"name": "Avoid"}]}})), ["DefaultBinder"]);
    let first = json!({"multiPoint": {"disabled": [{"name": "DefaultBinder"}]},
        "bind": {"enabled": [{"name": "Avoid"}, {"name": "DefaultBinder"}]}});
    assert_eq!(binds(first), ["Avoid", "DefaultBinder"]);
    let alone = json!({"bind": {"disabled": [{"name": "*"}], "enabled": [{"name": "Avoid"}]}});
    assert_eq!(binds(alone), ["Avoid"]);
}

#[test]
fn room_is_looked_for_on_as_many_nodes_as_the_file_says() {
    let node_of = |args: Value| {
        let config = json!({"profiles": [{"pluginConfig": [{"name": "DefaultPreemption", "args": args}]}]});
        let mut s = read(config).unwrap().scheduler(&Registry::default()).unwrap().build();
        let pod = |name: &str, priority| {
            let spec = crate::model::PodSpec { priority, ..crate::model::PodSpec::asking(900, 1) };
            crate::model::Pod::new(name, alloc::sync::Arc::new(spec))
        };
        for n in 0..200 {
            s.cluster_mut().set_node(Node::new(&format!("n{n:03}"), 1000, 1 << 30, 110));
            let mut there = pod(&format!("p{n:03}"), 500 - n);
            there.node = Some(format!("n{n:03}"));
            s.cluster_mut().set_pod(there);
        }
        let x = pod("x", 1000);
        let none = s.schedule(&x).unwrap_err();
        s.preempt(&x, &none).unwrap().name
    };
    // The later a node, the better.
    for (args, want) in [
        (json!({}), "n199"),
        (json!({"minCandidateNodesPercentage": 10}), "n099"),
        (json!({"minCandidateNodesAbsolute": 7}), "n019"),
        (json!({"minCandidateNodesPercentage": 1, "minCandidateNodesAbsolute": 7}), "n006"),
        (json!({"minCandidateNodesPercentage": 75, "minCandidateNodesAbsolute": 7}), "n149"),
    ] {
        assert_eq!(node_of(args.clone()), want, "{args}");
    }
}

#[cfg(feature = "yaml")]
mod files {
    use super::*;

    /// The shapes of the examples in the documentation of kube-scheduler, and more of it.
    const FILES: [(&str, &str); 5] = [
        ("minimal", include_str!("../../tests/config/minimal.yaml")),
        ("profiles", include_str!("../../tests/config/profiles.yaml")),
        ("bin-packing", include_str!("../../tests/config/bin-packing.yaml")),
        ("spread", include_str!("../../tests/config/spread.yaml")),
        ("extender", include_str!("../../tests/config/extender.yaml")),
    ];

    #[test]
    fn documented_files_read_and_read_back_the_same() {
        for (name, text) in FILES {
            let config = SchedulerConfiguration::from_yaml(text, &Registry::default());
            let config = config.unwrap_or_else(|e| panic!("{name}: {e}"));
            let again = SchedulerConfiguration::from_value(&config.to_value(), &Registry::default()).unwrap();
            assert_eq!(again.to_value(), config.to_value(), "{name}");
            for (a, b) in again.profiles.iter().zip(&config.profiles) {
                for point in Point::ALL {
                    assert_eq!(at(&a.plugins, point), at(&b.plugins, point), "{name}: {point:?}");
                }
            }
            config.scheduler(&Registry::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let of = |name: &str| {
            let text = FILES.iter().find(|(n, _)| *n == name).unwrap().1;
            SchedulerConfiguration::from_yaml(text, &Registry::default()).unwrap()
        };
        let profiles = of("profiles").profiles;
        let names: Vec<_> = profiles.iter().map(|p| p.scheduler_name.as_str()).collect();
        assert_eq!(names, ["default-scheduler", "no-scoring-scheduler"]);
        assert_eq!(at(&profiles[1].plugins, Point::Score), Vec::<&str>::new());
        assert_eq!(of("spread").profiles[0].percentage_of_nodes, 0);
        assert_eq!(of("extender").extenders[0].managed_resources[0].name, "example.com/foo");
        let error = SchedulerConfiguration::from_yaml("a: [", &Registry::default()).unwrap_err().to_string();
        assert!(error.starts_with("yaml: "), "{error}");
    }
}

fn junk() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "profiles",
        "plugins",
        "score",
        "filter",
        "multiPoint",
        "enabled",
        "disabled",
        "name",
        "weight",
        "args",
        "pluginConfig",
        "extenders",
        "schedulerName",
        "leaderElection",
        "leaseDuration",
        "scoringStrategy",
        "type",
        "shape",
        "utilization",
        "managedResources",
        "percentageOfNodesToScore",
        "podInitialBackoffSeconds",
        "podMaxBackoffSeconds",
        "defaultConstraints",
        "addedAffinity",
        "requestedToCapacityRatio",
        "resources",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "*",
            "",
            "NodeResourcesFit",
            "PodTopologySpread",
            "List",
            "RequestedToCapacityRatio",
            "9h",
            "-1s"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 60, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.into(), v)).collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// Whatever stands in a file, it is read or refused with a reason.
    #[test]
    fn no_file_is_too_bad(parts in prop::collection::btree_map(prop::sample::select(vec!["profiles", "extenders", "leaderElection",
        "podInitialBackoffSeconds", "podMaxBackoffSeconds", "percentageOfNodesToScore", "x"]), junk(), 0..4)) {
        let document = with(Value::Object(parts.into_iter().map(|(k, v)| (k.into(), v)).collect()));
        match SchedulerConfiguration::from_value(&document, &registry()) {
            Ok(config) => {
                prop_assert!(SchedulerConfiguration::from_value(&config.to_value(), &registry()).is_ok());
                if let Ok(builder) = config.scheduler(&registry()) {
                    drop(builder.build());
                }
            }
            Err(errors) => prop_assert!(!errors.to_string().is_empty()),
        }
    }
}
