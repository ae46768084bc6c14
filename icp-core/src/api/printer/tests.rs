use super::*;
use crate::api::table::{self, from_crd};
use expect_test::{Expect, expect};

const CREATED: &str = "2026-01-01T00:00:00Z";

fn show(group: &str, version: &str, resource: &str, objects: &[Value], want: &Expect) {
    let info = table::find(group, version, resource).unwrap();
    let refs: Vec<&Value> = objects.iter().collect();
    let now = CREATED.parse::<Time>().unwrap() + core::time::Duration::from_secs(5 * 60 + 3);
    render(&table(info, &refs, json!({}), now, IncludeObject::None, true), want);
}

fn render(t: &Value, want: &Expect) {
    let cell = |v: &Value| v.as_str().map_or_else(|| v.to_string(), ToString::to_string);
    let mut out = String::new();
    let heads: Vec<String> =
        t["columnDefinitions"].as_array().unwrap().iter().map(|c| cell(&c["name"])).collect();
    out.push_str(&(heads.join(" | ") + "\n"));
    for row in t["rows"].as_array().unwrap() {
        let cells = row["cells"].as_array().unwrap();
        assert_eq!(cells.len(), heads.len());
        out.push_str(&(cells.iter().map(cell).collect::<Vec<_>>().join(" | ") + "\n"));
    }
    want.assert_eq(&out);
}

#[test]
fn durations() {
    for (seconds, want) in [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (10_860, "3h1m"),
        (28_800, "8h"),
        (172_800, "2d"),
        (176_400, "2d1h"),
        (691_200, "8d"),
        (63_072_000, "2y"),
        (63_158_400, "2y1d"),
        (252_288_000, "8y"),
    ] {
        assert_eq!(human_duration(seconds), want);
    }
}

#[test]
fn pods() {
    let pod = |name: &str, spec: Value, status: Value| json!({"metadata":{"name":name,"creationTimestamp":CREATED},"spec":spec,"status":status});
    let one = || json!({"containers":[{"name":"a"}],"nodeName":"w1"});
    let mut gone = pod("gone", one(), json!({"phase":"Running"}));
    gone["metadata"]["deletionTimestamp"] = CREATED.into();
    show(
        "",
        "v1",
        "pods",
        &[
            pod("new", json!({"containers":[{"name":"a"},{"name":"b"}]}), json!({"phase":"Pending"})),
            pod(
                "runs",
                one(),
                json!({"phase":"Running","podIP":"10.0.0.1","containerStatuses":[{"ready":true,"restartCount":0,"state":{"running":{}}}]}),
            ),
            pod(
                "crash",
                one(),
                json!({"phase":"Running","containerStatuses":[{"restartCount":3,"state":{"waiting":{"reason":"CrashLoopBackOff"}},
                    "lastState":{"terminated":{"finishedAt":"2026-01-01T00:04:00Z"}}}]}),
            ),
            pod(
                "init",
                json!({"containers":[{"name":"a"}],"initContainers":[{"name":"i"},{"name":"j"}]}),
                json!({"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"running":{}}}]}),
            ),
            pod(
                "side",
                json!({"containers":[{"name":"a"}],"initContainers":[{"name":"s","restartPolicy":"Always"}]}),
                json!({"phase":"Running","initContainerStatuses":[{"name":"s","started":true,"ready":true,"state":{"running":{}}}],
                    "containerStatuses":[{"ready":true,"state":{"running":{}}}]}),
            ),
            pod(
                "done",
                one(),
                json!({"phase":"Succeeded","containerStatuses":[{"state":{"terminated":{"exitCode":0,"reason":"Completed"}}}]}),
            ),
            pod("evicted", one(), json!({"phase":"Failed","reason":"Evicted"})),
            gone,
        ],
        &expect![[r#"
            Name | Ready | Status | Restarts | Age | IP | Node | Nominated Node | Readiness Gates
            new | 0/2 | Pending | 0 | 5m3s | <none> | <none> | <none> | <none>
            runs | 1/1 | Running | 0 | 5m3s | 10.0.0.1 | w1 | <none> | <none>
            crash | 0/1 | CrashLoopBackOff | 3 (63s ago) | 5m3s | <none> | w1 | <none> | <none>
            init | 0/1 | Init:0/2 | 0 | 5m3s | <none> | <none> | <none> | <none>
            side | 2/2 | Running | 0 | 5m3s | <none> | <none> | <none> | <none>
            done | 0/1 | Completed | 0 | 5m3s | <none> | w1 | <none> | <none>
            evicted | 0/1 | Evicted | 0 | 5m3s | <none> | w1 | <none> | <none>
            gone | 0/1 | Terminating | 0 | 5m3s | <none> | w1 | <none> | <none>
        "#]],
    );
}

#[test]
fn workloads() {
    let meta = json!({"name":"web","creationTimestamp":CREATED});
    let template = json!({"spec":{"containers":[{"name":"a","image":"x:1"},{"name":"b","image":"y"}]}});
    let selector = json!({"matchLabels":{"app":"web"}});
    show(
        "apps",
        "v1",
        "deployments",
        &[
            json!({"metadata":meta,"spec":{"replicas":3,"selector":selector,"template":template},"status":{"readyReplicas":1,"updatedReplicas":2}}),
        ],
        &expect![[r#"
            Name | Ready | Up-to-date | Available | Age | Containers | Images | Selector
            web | 1/3 | 2 | 0 | 5m3s | a,b | x:1,y | app=web
        "#]],
    );
    show(
        "batch",
        "v1",
        "jobs",
        &[json!({"metadata":meta,"spec":{"completions":2,"template":template,"selector":selector},
            "status":{"succeeded":2,"startTime":CREATED,"completionTime":"2026-01-01T00:00:09Z","conditions":[{"type":"Complete","status":"True"}]}})],
        &expect![[r#"
            Name | Status | Completions | Duration | Age | Containers | Images | Selector
            web | Complete | 2/2 | 9s | 5m3s | a,b | x:1,y | app=web
        "#]],
    );
    show(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        &[
            json!({"metadata":meta,"spec":{"scaleTargetRef":{"kind":"Deployment","name":"web"},"minReplicas":1,"maxReplicas":5,
            "metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"averageUtilization":80}}}]}}),
        ],
        &expect![[r#"
            Name | Reference | Targets | MinPods | MaxPods | Replicas | Age
            web | Deployment/web | cpu: <unknown>/80% | 1 | 5 | 0 | 5m3s
        "#]],
    );
}

#[test]
fn services_nodes_events() {
    let meta = |name: &str| json!({"name":name,"creationTimestamp":CREATED});
    show(
        "",
        "v1",
        "services",
        &[
            json!({"metadata":meta("a"),"spec":{"type":"NodePort","clusterIP":"10.0.0.1","ports":[{"port":80,"nodePort":30080,"protocol":"TCP"}],"selector":{"a":"b"}}}),
            json!({"metadata":meta("b"),"spec":{"type":"LoadBalancer","clusterIP":"None","ports":[{"port":53,"protocol":"UDP"}]}}),
        ],
        &expect![[r#"
            Name | Type | Cluster-IP | External-IP | Port(s) | Age | Selector
            a | NodePort | 10.0.0.1 | <none> | 80:30080/TCP | 5m3s | a=b
            b | LoadBalancer | None | <pending> | 53/UDP | 5m3s | <none>
        "#]],
    );
    let mut node = json!({"metadata":meta("w1"),"spec":{"unschedulable":true},"status":{"conditions":[{"type":"Ready","status":"True"}],
        "addresses":[{"type":"InternalIP","address":"10.1.0.2"}],"nodeInfo":{"kubeletVersion":"v1.37.0"}}});
    node["metadata"]["labels"] = json!({"node-role.kubernetes.io/worker":"true"});
    show(
        "",
        "v1",
        "nodes",
        &[node],
        &expect![[r#"
            Name | Status | Roles | Age | Version | Internal-IP | External-IP | OS-Image | Kernel-Version | Container-Runtime
            w1 | Ready,SchedulingDisabled | worker | 5m3s | v1.37.0 | 10.1.0.2 | <none> | <unknown> | <unknown> | <unknown>
        "#]],
    );
    show(
        "",
        "v1",
        "events",
        &[
            json!({"metadata":meta("e"),"type":"Normal","reason":"Pulled","message":"m\n","involvedObject":{"kind":"Pod","name":"p","fieldPath":"spec"},
            "eventTime":"2026-01-01T00:05:00.000000Z","reportingComponent":"kubelet","reportingInstance":"w1"}),
        ],
        &expect![[r#"
            Last Seen | Type | Reason | Object | Subobject | Source | Message | First Seen | Count | Name
            3s | Normal | Pulled | pod/p | spec | kubelet, w1 | m | 3s | 1 | e
        "#]],
    );
}

#[test]
fn every_kind_fills_its_columns() {
    for info in table::builtin() {
        let object = json!({"metadata":{"name":"x","creationTimestamp":CREATED}});
        let t = table(info, &[&object], json!({}), Time::ZERO, IncludeObject::Metadata, true);
        let cells = t["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(cells.len(), t["columnDefinitions"].as_array().unwrap().len(), "{}", info.gvr);
        assert!(!cells.contains(&Value::Null), "{}: {cells:?}", info.gvr);
        assert_eq!(t["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    }
}

#[test]
fn custom_columns() {
    let crd = json!({"spec":{"group":"e.com","scope":"Cluster","names":{"plural":"ws","kind":"W"},"versions":[{"name":"v1","served":true,
        "additionalPrinterColumns":[
            {"name":"Color","type":"string","jsonPath":".spec.color"},
            {"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"},
            {"name":"Host","type":"string","jsonPath":".metadata.annotations.e\\.com/host"},
            {"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}]}]}});
    let info = from_crd(&crd).remove(0);
    let object = json!({"metadata":{"name":"x","creationTimestamp":CREATED,"annotations":{"e.com/host":"h"}},"spec":{"color":"red"},
        "status":{"conditions":[{"type":"A","status":"False"},{"type":"Ready","status":"True"}]}});
    let now = CREATED.parse::<Time>().unwrap() + core::time::Duration::from_secs(60);
    render(
        &table(&info, &[&object], json!({}), now, IncludeObject::None, true),
        &expect![[r#"
            Name | Color | Ready | Host | Age
            x | red | True | h | 60s
        "#]],
    );
}
