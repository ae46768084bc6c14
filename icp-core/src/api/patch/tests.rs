use super::*;
use crate::api::table;
use proptest::prelude::*;
use serde_json::json;

fn pods() -> &'static ResourceInfo {
    table::find("", "v1", "pods").unwrap()
}

/// The examples of RFC 7396, appendix A.
#[test]
fn merge_patch_examples() {
    for (mut target, patch, want) in [
        (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
        (json!({"a":"b"}), json!({"a":null}), json!({})),
        (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
        (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
        (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
        (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
    ] {
        merge(&mut target, &patch);
        assert_eq!(target, want);
    }
}

/// Cases in the manner of RFC 6902, appendix A.
#[test]
fn json_patch_examples() {
    let ok = |doc: Value, patch: Value, want: Value| assert_eq!(json(&doc, &patch).unwrap(), want, "{patch}");
    ok(json!({"foo":"bar"}), json!([{"op":"add","path":"/baz","value":"q"}]), json!({"baz":"q","foo":"bar"}));
    ok(json!({"a":["b","c"]}), json!([{"op":"add","path":"/a/1","value":"x"}]), json!({"a":["b","x","c"]}));
    ok(json!({"a":["b"]}), json!([{"op":"add","path":"/a/-","value":1}]), json!({"a":["b",1]}));
    ok(json!({"a":["b","c","d"]}), json!([{"op":"remove","path":"/a/1"}]), json!({"a":["b","d"]}));
    ok(json!({"a":1}), json!([{"op":"replace","path":"/a","value":2}]), json!({"a":2}));
    ok(
        json!({"a":{"b":1},"c":{}}),
        json!([{"op":"move","from":"/a/b","path":"/c/d"}]),
        json!({"a":{},"c":{"d":1}}),
    );
    ok(json!({"a":[1,2]}), json!([{"op":"copy","from":"/a/0","path":"/a/-"}]), json!({"a":[1,2,1]}));
    ok(json!({"a/b":{"~":1}}), json!([{"op":"test","path":"/a~1b/~0","value":1}]), json!({"a/b":{"~":1}}));
    ok(json!({"a":1}), json!([{"op":"replace","path":"","value":[]}]), json!([]));

    let fails = |patch: Value, code: u16| {
        let doc = json!({"a":{"b":1},"l":[1]});
        assert_eq!(json(&doc, &patch).unwrap_err().to_status().code, code, "{patch}");
    };
    fails(json!([{"op":"test","path":"/a/b","value":2}]), 422);
    fails(json!([{"op":"remove","path":"/x"}]), 422);
    fails(json!([{"op":"replace","path":"/x","value":1}]), 422);
    fails(json!([{"op":"add","path":"/x/y","value":1}]), 422);
    fails(json!([{"op":"add","path":"/l/2","value":1}]), 422);
    fails(json!([{"op":"add","path":"/l/01","value":1}]), 422);
    fails(json!([{"op":"add","path":"/x"}]), 400);
    fails(json!([{"op":"jump","path":"/x"}]), 422);
    fails(json!([{"op":"move","from":"/a","path":"/a/b"}]), 400);
    fails(json!({}), 400);
    fails(alloc::vec![json!({"op":"test","path":"/a/b","value":1}); 10_001].into(), 413);
    let bomb = alloc::vec![json!({"op":"copy","from":"/l","path":"/l/-"}); 64];
    fails(bomb.into(), 400);
}

#[test]
fn strategic_lists_merge_by_key() {
    let run = |old: Value, patch: Value| apply(pods(), PatchKind::Strategic, &old, &patch).unwrap();
    let old = json!({"spec":{"containers":[{"name":"a","image":"1","env":[{"name":"X","value":"1"}]},{"name":"b"}]}});
    assert_eq!(
        run(
            old.clone(),
            json!({"spec":{"containers":[{"name":"a","image":"2","env":[{"name":"Y","value":"2"}]}]}})
        ),
        json!({"spec":{"containers":[{"name":"a","image":"2",
            "env":[{"name":"Y","value":"2"},{"name":"X","value":"1"}]},{"name":"b"}]}})
    );
    assert_eq!(
        run(old.clone(), json!({"spec":{"containers":[{"name":"a","$patch":"delete"}]}})),
        json!({"spec":{"containers":[{"name":"b"}]}})
    );
    assert_eq!(
        run(old.clone(), json!({"spec":{"containers":[{"$patch":"replace"},{"name":"c"}]}})),
        json!({"spec":{"containers":[{"name":"c"}]}})
    );
    assert_eq!(
        run(
            old.clone(),
            json!({"spec":{"$setElementOrder/containers":[{"name":"b"},{"name":"c"},{"name":"a"}],"containers":[{"name":"c"}]}})
        )["spec"]["containers"],
        json!([{"name":"b"},{"name":"c"},{"name":"a","image":"1","env":[{"name":"X","value":"1"}]}])
    );
    assert_eq!(
        run(old.clone(), json!({"spec":{"$setElementOrder/containers":[{"name":"b"},{"name":"a"}]}}))["spec"]
            ["containers"][0],
        json!({"name":"b"})
    );
    // A list without a key, and a scalar list with one.
    let old = json!({"metadata":{"finalizers":["a","b"]},"spec":{"tolerations":[{"key":"x"}]}});
    assert_eq!(
        run(
            old,
            json!({"metadata":{"finalizers":["c"],"$deleteFromPrimitiveList/finalizers":["a"]},"spec":{"tolerations":[{"key":"y"}]}})
        ),
        json!({"metadata":{"finalizers":["c","b"]},"spec":{"tolerations":[{"key":"y"}]}})
    );
    // Volumes keep only the named source.
    let old = json!({"spec":{"volumes":[{"name":"v","emptyDir":{}}]}});
    assert_eq!(
        run(
            old,
            json!({"spec":{"volumes":[{"name":"v","$retainKeys":["name","hostPath"],"hostPath":{"path":"/"}}]}})
        ),
        json!({"spec":{"volumes":[{"name":"v","hostPath":{"path":"/"}}]}})
    );
    let old = json!({"metadata":{"labels":{"a":"1","b":"2"}}});
    assert_eq!(
        run(old.clone(), json!({"metadata":{"labels":{"a":null,"x":null}}})),
        json!({"metadata":{"labels":{"b":"2"}}})
    );
    assert_eq!(
        run(old, json!({"metadata":{"labels":{"$patch":"replace","z":"1"}}})),
        json!({"metadata":{"labels":{"z":"1"}}})
    );
    let bad = json!({"spec":{"containers":[{"image":"x"}]}});
    let old = json!({"spec":{"containers":[{"name":"a"}]}});
    assert_eq!(apply(pods(), PatchKind::Strategic, &old, &bad).unwrap_err().to_status().code, 400);
    let bad = json!({"$patch":"explode"});
    assert!(apply(pods(), PatchKind::Strategic, &old, &bad).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (0..3i64).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// The merge patch that turns one document into another, where one exists (RFC 7396 cannot set nulls).
fn diff(from: &Value, to: &Value) -> Value {
    match (from, to) {
        (Value::Object(a), Value::Object(b)) => {
            let gone = a.keys().filter(|k| !b.contains_key(*k)).map(|k| (k.clone(), Value::Null));
            let kept = b.iter().filter(|(k, v)| a.get(*k) != Some(v));
            let changed =
                kept.map(|(k, v)| (k.clone(), a.get(k).map_or_else(|| v.clone(), |old| diff(old, v))));
            Value::Object(gone.chain(changed).collect())
        }
        _ => to.clone(),
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(l) => l.iter().any(has_null),
        Value::Object(m) => m.values().any(has_null),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merging_a_difference_gives_the_target(from in any_json(), to in any_json()) {
        prop_assume!(!has_null(&to) && !has_null(&from));
        let mut out = from.clone();
        merge(&mut out, &diff(&from, &to));
        prop_assert_eq!(out, to);
    }

    #[test]
    fn merging_twice_is_merging_once(target in any_json(), patch in any_json()) {
        let mut once = target;
        merge(&mut once, &patch);
        let mut twice = once.clone();
        merge(&mut twice, &patch);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn what_is_added_can_be_removed(doc in any_json(), value in any_json(), key in "[e-h~/]{1,3}") {
        prop_assume!(doc.is_object());
        let path = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
        let patch = json!([{"op":"add","path":path,"value":value},{"op":"test","path":path,"value":value},
            {"op":"remove","path":path}]);
        prop_assert_eq!(json(&doc, &patch).unwrap(), doc);
    }

    #[test]
    fn any_patch_is_answered(doc in any_json(), patch in any_json()) {
        let _ = json(&doc, &patch);
        let _ = strategic(pods().schema(), &doc, &patch);
    }
}
