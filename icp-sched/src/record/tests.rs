use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::println;

use icp_core::api::{Object, Status, resources};
use icp_core::base::{Duration, Rng, Time};
use icp_core::client::{
    ApiError, ApiRequest, ClientEffect, ClientEvent, LeaderElectorConfig, ObjectKey, Operation, Reply,
    WatchEvent, WatchKind,
};
use serde_json::{Value, json};

use super::*;
use crate::config::{Registry, SchedulerConfiguration};
use crate::extender::ExtenderAnswer;
use crate::machine::tests::api::{Faults, World};
use crate::machine::{Effect, Event, SchedulerConfig};

fn settings(seed: u64) -> Settings {
    Settings { seed, machine: SchedulerConfig::default(), configuration: None }
}

fn configuration(more: Value) -> SchedulerConfiguration {
    let mut document = json!({"apiVersion": crate::config::VERSION, "kind": crate::config::KIND});
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    SchedulerConfiguration::from_value(&document, &Registry::default()).unwrap()
}

fn pick<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.below(of.len() as u64) as usize]
}

/// What may happen in a history.
#[derive(Clone, Copy)]
struct Plan {
    faults: Faults,
    steps: usize,
    nodes: u64,
    priorities: bool,
    kept_max: usize,
}

impl Plan {
    const CALM: Self = Self {
        faults: Faults {
            delay_ms: 20,
            lost_per_million: 0,
            refused_per_million: 0,
            watch_breaks_per_million: 0,
        },
        steps: 60,
        nodes: 6,
        priorities: true,
        kept_max: KEPT_MAX,
    };
    const ROUGH: Self = Self {
        faults: Faults {
            delay_ms: 400,
            lost_per_million: 60_000,
            refused_per_million: 60_000,
            watch_breaks_per_million: 10_000,
        },
        ..Self::CALM
    };
}

/// A random history in virtual time, and how many pods it has.
fn history(settings: &Settings, plan: Plan) -> (String, u64) {
    let mut machine = settings.scheduler(&Registry::default()).unwrap();
    machine.keep_decisions();
    let writer = Writer::new(settings).keeping(plan.kept_max);
    let mut w = World::recorded(settings.seed, plan.faults, [machine].into(), Some(writer));
    let mut rng = Rng::new(settings.seed).child("history");
    for n in 0..plan.nodes {
        node(&mut w, &mut rng, n);
    }
    let mut pods = 0;
    for step in 0..plan.steps {
        let old = format!("p{}", rng.below(pods.max(1)));
        match rng.below(20) {
            0 => {
                let n = rng.below(8);
                if w.get(&resources::NODES, &format!("n{n}")).is_none() {
                    node(&mut w, &mut rng, n);
                }
            }
            1 => {
                let name = format!("n{}", rng.below(8));
                if let Some(node) = w.get(&resources::NODES, &name) {
                    let closed = node.at("/spec/unschedulable").is_some();
                    w.change(&resources::NODES, &name, |o| {
                        o.rest.insert(
                            "spec".into(),
                            if closed { json!({}) } else { json!({"unschedulable": true}) },
                        );
                    });
                }
            }
            2..=4 if w.get(&resources::PODS, &old).is_some() => w.delete(&resources::PODS, &old),
            5 if step == 5 => {
                let spec = json!({"selector": {"matchLabels": {"app": "a"}}});
                let status = json!({"disruptionsAllowed": 1});
                w.create(
                    &resources::POD_DISRUPTION_BUDGETS,
                    json!({"metadata": {"name": "budget", "namespace": "default"}, "spec": spec, "status": status}),
                );
            }
            _ => {
                for _ in 0..1 + rng.below(3) {
                    pod(&mut w, &mut rng, pods, plan.priorities);
                    pods += 1;
                }
            }
        }
        w.run_for(Duration::from_millis(rng.below(3_000)));
    }
    w.run_for(Duration::from_secs(30));
    (w.writer.unwrap().take(), pods)
}

fn node(w: &mut World, rng: &mut Rng, n: u64) {
    let room = json!({"cpu": format!("{}", 2 + rng.below(3)), "memory": "8Gi", "pods": "20"});
    let labels = json!({"topology.kubernetes.io/zone": format!("z{}", n % 3), "kubernetes.io/hostname": format!("n{n}")});
    w.create(
        &resources::NODES,
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{n}"), "labels": labels}, "status": {"allocatable": room}}),
    );
}

fn pod(w: &mut World, rng: &mut Rng, n: u64, priorities: bool) {
    let app = pick(rng, &["a", "b", "c"]);
    let priority = if priorities { rng.below(3) * 100 } else { 0 };
    let mut spec = json!({
        "schedulerName": "default-scheduler", "priority": priority,
        "containers": [{"name": "c", "image": "app:v1",
            "resources": {"requests": {"cpu": pick(rng, &["100m", "400m", "900m"]), "memory": "64Mi"}}}],
    });
    if rng.below(4) == 0 {
        let spread = json!([{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": app}}}]);
        spec["topologySpreadConstraints"] = spread;
    }
    if rng.below(6) == 0 {
        spec["nodeSelector"] = json!({"topology.kubernetes.io/zone": pick(rng, &["z0", "z1"])});
    }
    let meta = json!({"name": format!("p{n}"), "namespace": "default", "labels": {"app": app}});
    w.create(
        &resources::PODS,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Pending"}}),
    );
}

fn replay(history: &str) -> Report {
    Replayer::new(Registry::default()).replay(history.as_bytes()).unwrap()
}

#[test]
fn what_was_decided_is_decided_again() {
    let (mut decisions, mut evictions, mut none) = (0, 0, 0);
    for seed in 0..12 {
        let settings = match seed % 4 {
            0 => Settings {
                machine: SchedulerConfig {
                    leader_election: Some(LeaderElectorConfig::new("default", "scheduler", "a")),
                    ..SchedulerConfig::default()
                },
                ..settings(seed)
            },
            1 => Settings {
                configuration: Some(configuration(json!({"profiles": [{"pluginConfig": [
                    {"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "MostAllocated",
                        "resources": [{"name": "cpu", "weight": 1}]}}}]}]}))),
                ..settings(seed)
            },
            _ => settings(seed),
        };
        let plan = match seed % 3 {
            0 => Plan::CALM,
            1 => Plan::ROUGH,
            _ => Plan { kept_max: 5, ..Plan::ROUGH },
        };
        let (history, _) = history(&settings, plan);
        let report = replay(&history);
        assert!(report.is_equal() && !report.torn, "seed {seed}: {:#?}", report.differences);
        decisions += report.decisions;
        evictions += history.matches("\"victims\"").count();
        none += history.matches("\"message\"").count();
        // The same inputs give the same history.
        assert_eq!(replay(&history).hash, report.hash);
    }
    assert!(decisions > 500 && evictions > 10 && none > 50, "{decisions} {evictions} {none}");
}

#[test]
fn a_history_is_small() {
    let (history, pods) = history(&settings(3), Plan { steps: 400, nodes: 120, ..Plan::CALM });
    let each = history.len() as u64 / pods;
    println!("{pods} pods, {} bytes, {each} bytes of history for a pod", history.len());
    assert!(each < 2_000, "{each}");
    // Each version of an object stands there once.
    let mut seen = alloc::collections::BTreeSet::new();
    for line in history.lines().filter(|l| l.contains("\"n\":")) {
        let line: Value = serde_json::from_str(line).unwrap();
        let version = line
            .pointer("/object/metadata/resourceVersion")
            .or(line.pointer("/merge/metadata/resourceVersion"));
        assert!(seen.insert(version.unwrap().as_str().unwrap().to_string()), "{line}");
    }
}

/// Changes the `at`-th line for which `change` gives another.
fn changed(history: &str, at: usize, change: impl Fn(&mut Value) -> bool) -> (String, u64) {
    let mut lines: Vec<String> = history.lines().map(String::from).collect();
    let mut fit = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let mut value: Value = serde_json::from_str(line).unwrap();
        if change(&mut value) {
            fit.push((number, value.to_string()));
        }
    }
    let (number, line) = fit.swap_remove(at % fit.len());
    lines[number] = line;
    (lines.join("\n") + "\n", number as u64 + 1)
}

#[test]
fn a_changed_line_is_found() {
    let (history, _) = history(&settings(5), Plan::CALM);
    for at in 0..20 {
        let (other, line) = changed(&history, at, |value| match value.pointer_mut("/decided/0/node") {
            Some(node) => {
                let same = node == "n0";
                *node = json!("n0");
                !same
            }
            None => false,
        });
        let report = replay(&other);
        let first = &report.differences[0];
        assert_eq!((first.line, first.recorded.clone()), (line, Some(Ok("n0".into()))));
        let node = first.now.clone().unwrap().unwrap();
        let words = first.to_string();
        assert!(words.starts_with(&format!("line {line}, ")), "{words}");
        assert!(words.contains(&format!("recorded node n0; now node {node}")), "{words}");
        assert!(words.contains("\n  n0: ") && words.contains(&format!("\n  {node}: ")), "{words}");
        assert!(!report.is_equal());
    }
    // A decision that is missing, and one that was never made.
    let (other, line) =
        changed(&history, 3, |value| value.as_object_mut().unwrap().remove("decided").is_some());
    let report = replay(&other);
    assert_eq!((report.differences[0].line, report.differences[0].recorded.clone()), (line, None));
    let (other, line) =
        changed(&history, 3, |value| match value.get_mut("decided").and_then(Value::as_array_mut) {
            Some(list) => {
                list.push(json!({"pod": "default/ghost", "node": "n1"}));
                true
            }
            None => false,
        });
    let report = replay(&other);
    assert_eq!((report.differences[0].line, report.differences[0].now.clone()), (line, None));
    assert_eq!((report.misplaced, report.differences.len()), (1, 1));
    // An object that changed: a node has no room from its beginning.
    let (other, _) =
        changed(&history, 0, |value| match value.pointer_mut("/object/status/allocatable/cpu") {
            Some(cpu) => {
                *cpu = json!("0");
                true
            }
            None => false,
        });
    assert!(!replay(&other).is_equal());
}

#[test]
fn another_seed_changes_ties_alone() {
    let mut ties = 0;
    for seed in 0..4 {
        let (history, _) = history(&settings(seed), Plan { priorities: false, ..Plan::ROUGH });
        let report =
            Replayer::new(Registry::default()).ties_from(seed + 100).replay(history.as_bytes()).unwrap();
        assert_eq!(report.decisions, report.equal + report.ties, "{:#?}", report.differences);
        assert_eq!(report.misplaced, 0);
        ties += report.ties;
    }
    assert!(ties > 10, "{ties}");
}

#[test]
fn another_configuration_decides_otherwise_each_time_on_the_same_cluster() {
    let (history, _) = history(&settings(8), Plan::ROUGH);
    let other = configuration(json!({"profiles": [{"pluginConfig": [{"name": "NodeResourcesFit", "args":
        {"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 100}]}}}]}]}));
    let report = Replayer::new(Registry::default()).under(other).replay(history.as_bytes()).unwrap();
    assert!(report.elsewhere > 10 && report.misplaced == 0, "{report:#?}");
    // What one configuration finds no node for, the other does not either: they differ in points alone.
    assert_eq!((report.found, report.lost), (0, 0));
    let without = configuration(
        json!({"profiles": [{"plugins": {"multiPoint": {"disabled": [{"name": "PodTopologySpread"}]}}}]}),
    );
    let report = Replayer::new(Registry::default()).under(without).replay(history.as_bytes()).unwrap();
    assert!(report.found > 0 && report.misplaced == 0, "{report:#?}");
    let nobody = configuration(json!({"profiles": [{"schedulerName": "nobody"}]}));
    let report = Replayer::new(Registry::default()).under(nobody).replay(history.as_bytes()).unwrap();
    assert!(report.decisions == 0 && report.misplaced > 0, "{report:#?}");
}

/// A short history.
fn short() -> String {
    history(&settings(2), Plan { steps: 2, nodes: 2, ..Plan::CALM }).0
}

#[test]
fn a_history_may_break_off_anywhere() {
    let history = short();
    let first = history.find('\n').unwrap();
    let whole = replay(&history);
    assert!(whole.decisions > 0);
    for end in 0..history.len() {
        let part = &history.as_bytes()[..end];
        match Replayer::new(Registry::default()).replay(part) {
            Ok(report) => {
                assert!(end >= first && report.is_equal() && report.lines <= whole.lines, "{end}");
                let complete = part.ends_with(b"\n") || history.as_bytes()[end] == b'\n';
                assert_eq!(report.torn, !complete, "{end}");
            }
            Err(HistoryError::Empty) => assert_eq!(end, 0),
            Err(e) => assert!(end < first && e == HistoryError::NotAHistory, "{end}: {e}"),
        }
    }
}

#[test]
fn damage_anywhere_is_told_and_never_a_panic() {
    let history = short();
    let mut told = 0;
    for at in (0..history.len()).step_by(3) {
        let mut bytes = history.clone().into_bytes();
        bytes[at] ^= [0x01, 0x20, 0x80][at / 3 % 3];
        if let Err(e) = Replayer::new(Registry::default()).replay(&bytes) {
            let words = e.to_string();
            assert!(words.starts_with("line ") || words.starts_with("configuration"), "{words}");
            told += 1;
        }
    }
    println!("{told} of {} told", history.len());
    assert!(told > history.len() / 6, "{told}");
}

#[test]
fn bad_lines_are_named_with_their_field() {
    let head = settings(1).to_value().to_string();
    let pod = r#"{"n":1,"object":{"kind":"Pod","metadata":{"name":"a"}}}"#;
    let deep = format!("{}{}", "[".repeat(4_000), "]".repeat(4_000));
    for (lines, words) in [
        (&[r#"{"at":1}"#][..], "line 2: at: the line does not say what happened"),
        (&[r#"{"wake":true}"#], "line 2: at: is missing"),
        (&[r#"{"at":-1,"wake":true}"#], "line 2: at: is no whole number of at most 64 bits"),
        (&[r#"{"at":18446744073709551615,"wake":true}"#], "line 2: at: is no time"),
        (&[r#"{"at":5,"wake":true}"#, r#"{"at":4,"wake":true}"#], "line 3: at: is before the line above"),
        (&[r#"{"at":1,"wake":false}"#], "line 2: wake: can only be true"),
        (&[r#"{"at":1,"wake":true,"nap":1}"#], r#"line 2: unknown field "nap""#),
        (&[r#"{"at":1,"watch":1,"added":7}"#], "line 2: added: object 7 is not known here"),
        (&[r#"{"at":1,"watch":1}"#], "line 2: watch: does not say what happened"),
        (&[r#"{"at":1,"reply":1,"list":[3],"version":"1"}"#], "line 2: list: object 3 is not known here"),
        (&[r#"{"at":1,"reply":1,"list":["x"],"version":"1"}"#], "line 2: list: holds what is no number"),
        (&[r#"{"at":1,"reply":1,"list":[]}"#], "line 2: version: is missing"),
        (&[r#"{"at":1,"extender":1,"code":99999,"body":""}"#], "line 2: code: is no status code"),
        (&[r#"{"at":1,"extender":1,"code":200,"bytes":[256]}"#], "line 2: bytes: holds what is no byte"),
        (
            &[r#"{"at":1,"wake":true,"asked":[[1]]}"#],
            "line 2: asked: holds what is no pair of a number and a text",
        ),
        (&[r#"{"n":2,"object":{}}"#], "line 2: n: is 2, but 1 is next"),
        (&[r#"{"n":1,"of":1,"merge":{}}"#], "line 2: of: object 1 is not known here"),
        (&[pod, r#"{"n":2,"of":1}"#], "line 3: merge: is missing"),
        (
            &[pod, r#"{"forget":true}"#, r#"{"at":1,"watch":1,"added":1}"#],
            "line 4: added: object 1 is not known here",
        ),
        (
            &[pod, r#"{"at":1,"watch":1,"deleted":1}"#, r#"{"at":1,"watch":1,"added":1}"#],
            "line 4: added: object 1 is not known here",
        ),
        (&[r#"{"at":1,"wake":true,"decided":[{"node":"a"}]}"#], "line 2: decided[0].pod: is missing"),
        (&[r#"{"at":1,"wake":true,"decided":[7]}"#], "line 2: decided[0]: is no object"),
        (&["[]"], "line 2: not a JSON object"),
        (&["nonsense"], "line 2: expected ident at line 1 column 2"),
        (&[&deep], "line 2: recursion limit exceeded at line 1 column 128"),
    ] {
        let text = format!("{head}\n{}\n", lines.join("\n"));
        let error = Replayer::new(Registry::default()).replay(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), words, "{lines:?}");
    }
    for (from, to, words) in [
        ("\"version\":1", "\"version\":2", "line 1: version: 2 is not known, only 1 is"),
        ("icp-sched\",", "icp\",", "line 1: this is no history of icp-sched"),
        (
            "\"bindingsMax\":512",
            "\"bindingsMax\":\"x\"",
            "line 1: machine.bindingsMax: is no whole number of at most 64 bits",
        ),
        ("\"instance\":\"\"", "\"instance\":\"\",\"more\":1", "line 1: unknown field \"machine.more\""),
    ] {
        let head = head.replacen(from, to, 1);
        let error = Replayer::new(Registry::default()).replay(format!("{head}\n").as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), words);
    }
    let error = Replayer::new(Registry::default()).line(&alloc::vec![b' '; LINE_MAX + 1]).unwrap_err();
    assert_eq!(error, HistoryError::TooLong { line: 1 });
}

#[test]
fn every_input_reads_back() {
    let object = |name: &str| {
        Arc::new(
            serde_json::from_value::<Object>(json!({"apiVersion": "v1", "kind": "Pod", "metadata":
            {"name": name, "namespace": "default"}, "spec": {"future": [null, 1.5, {"a": null}]}}))
            .unwrap(),
        )
    };
    let mut bookmark = Object::default();
    bookmark.metadata.resource_version = "9".into();
    let list = Reply::List {
        items: [object("a"), object("b"), object("a")].into(),
        resource_version: "4".into(),
        continue_token: Some("more".into()),
    };
    let status = Status::failure(409, "Conflict", "no");
    let reply = |result| Event::from(ClientEvent::Reply { id: u64::MAX, result });
    let watch = |kind, object| Event::from(ClientEvent::Watch { id: 7, event: WatchEvent { kind, object } });
    let pod = ObjectKey::new("default", "a");
    let (plugin, reason) = ("P".to_string(), "r".to_string());
    let events = [
        Event::Start,
        reply(Ok(list)),
        reply(Ok(Reply::Object(object("a")))),
        reply(Ok(Reply::Status(status.clone()))),
        reply(Err(ApiError::Status(status.clone()))),
        reply(Err(ApiError::Unreachable("gone".into()))),
        reply(Err(ApiError::Decode("what".into()))),
        watch(WatchKind::Added, object("c")),
        watch(WatchKind::Modified, object("c")),
        watch(WatchKind::Deleted, object("c")),
        watch(WatchKind::Bookmark, Arc::new(bookmark)),
        ClientEvent::WatchClosed { id: 7, error: None }.into(),
        ClientEvent::WatchClosed { id: 7, error: Some(ApiError::Status(status)) }.into(),
        Event::Extender { id: 3, answer: Ok(ExtenderAnswer { code: 200, body: b"{}".to_vec() }) },
        Event::Extender { id: 3, answer: Ok(ExtenderAnswer { code: 500, body: [0xff, 0].into() }) },
        Event::Extender { id: 3, answer: Err("late".into()) },
        Event::Bound { id: 3, result: Ok(()) },
        Event::Bound { id: 3, result: Err("no".into()) },
        Event::Allow { pod: pod.clone(), plugin: plugin.clone() },
        Event::Reject { pod, plugin, reason },
        Event::Stop,
    ];
    let extenders =
        configuration(json!({"extenders": [{"urlPrefix": "http://127.0.0.1:1/", "filterVerb": "f",
        "managedResources": [{"name": "example.com/foo", "ignoredByScheduler": true}]}]}));
    let machine = SchedulerConfig { extenders: extenders.extenders, ..SchedulerConfig::default() };
    let settings = Settings { seed: u64::MAX, machine, configuration: Some(configuration(json!({}))) };
    let mut writer = Writer::new(&settings);
    let asking = |id| {
        let op = Operation::Get;
        let request = ApiRequest::object(&resources::PODS, "default", "a", op);
        Effect::from(ClientEffect::Request { id, request })
    };
    let now = Time::from_micros(1_800_000_000_123_456);
    for event in &events {
        writer.input(now, Some(event));
        writer.done(&[asking(u64::MAX), asking(3)], &[]);
    }
    writer.input(now, Some(&Event::Scrape));
    writer.done(&[], &[]);
    writer.input(
        now,
        Some(&ClientEvent::Reply { id: 55, result: Ok(Reply::Status(Status::default())) }.into()),
    );
    writer.done(&[], &[]);
    writer.input(now, None);
    writer.done(&[], &[]);
    let mut reader = Reader::new();
    let (mut inputs, mut begun) = (Vec::new(), None);
    for line in writer.take().lines() {
        match reader.read(line.as_bytes(), &Registry::default()).unwrap() {
            Step::Begin(settings) => begun = Some(settings),
            Step::Input { at, input, asked, .. } => {
                assert_eq!(at, now);
                assert!(asked.iter().all(|(_, purpose)| purpose == "get pods default/a"));
                inputs.push(input);
            }
            Step::Object => {}
        }
    }
    assert_eq!(begun, Some(settings));
    let expected: Vec<Input> =
        events.into_iter().map(Input::Event).chain([Input::Noted, Input::Wake]).collect();
    assert_eq!(inputs, expected);
}

#[test]
fn a_version_that_follows_more_and_asks_for_more_decides_alike() {
    let (history, _) = history(&settings(4), Plan::CALM);
    let report = replay(&history);
    // As if the one that recorded had not followed StatefulSets, and had named its requests otherwise.
    let statefulsets: u64 = {
        let at = history.find(",\"list statefulsets\"]").unwrap();
        let start = history[..at].rfind('[').unwrap() + 1;
        history[start..at].parse().unwrap()
    };
    let mut text = String::new();
    for line in history.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if line.get("reply") == Some(&json!(statefulsets)) || line.to_string().contains("watch statefulsets")
        {
            continue;
        }
        if let Some(asked) = line.get_mut("asked").and_then(Value::as_array_mut) {
            asked.retain(|a| a[1] != "list statefulsets");
        }
        for field in ["reply", "watch", "closed"] {
            if let Some(id) = line.get_mut(field) {
                *id = json!(id.as_u64().unwrap() + 1_000);
            }
        }
        for pair in line.get_mut("asked").and_then(Value::as_array_mut).into_iter().flatten() {
            pair[0] = json!(pair[0].as_u64().unwrap() + 1_000);
        }
        text.push_str(&line.to_string());
        text.push('\n');
    }
    let older = replay(&text);
    assert!(older.is_equal() && older.hash == report.hash, "{older:#?}");
}

#[test]
fn keys_are_not_written() {
    let data = json!({"certData": "Y2VydA==", "keyData": "a2V5"});
    let file = configuration(json!({"extenders": [{"urlPrefix": "https://127.0.0.1:1/", "filterVerb": "f",
        "enableHTTPS": true, "tlsConfig": data}]}));
    let machine = file.machine("host", "host_1");
    let settings = Settings { seed: 1, machine, configuration: Some(file) };
    let text = Writer::new(&settings).take();
    assert!(!text.contains("a2V5") && text.contains("https://127.0.0.1:1/"));
    assert!(replay(&text).is_equal());
}

/// A history of an earlier build, which every later version must decide on alike.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/history-1.jsonl");

/// `ICP_WRITE_GOLDEN=1` writes the file anew, after a change that is meant to change decisions.
#[test]
fn the_committed_history_is_decided_alike_on_any_machine() {
    if std::env::var_os("ICP_WRITE_GOLDEN").is_some() {
        let (history, _) = history(&settings(2_026), Plan { steps: 30, ..Plan::ROUGH });
        std::fs::write(GOLDEN, history).unwrap();
    }
    let report = replay(&std::fs::read_to_string(GOLDEN).unwrap());
    println!("{} decisions, hash {:016x}", report.decisions, report.hash);
    assert!(report.is_equal() && report.decisions > 40, "{report:#?}");
    assert_eq!(report.hash, 0xd656_35cf_99a7_b1c9);
}
