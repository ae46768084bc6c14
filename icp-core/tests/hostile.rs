//! Objects of every kind, made at random along their schemas and with values that do not fit, through every verb: the
//! server answers, and never with its own fault.

mod server;

use icp_core::api::schema::{Schema, Shape};
use icp_core::api::table::{self, ResourceInfo};
use icp_core::base::Rng;
use serde_json::{Map, Value, json};
use server::Server;

const SEEDS: u64 = 2;
const DEPTH_MAX: usize = 9;

const TEXTS: &[&str] = &[
    "",
    "a",
    "web",
    "Upper",
    "a/b",
    "example.com/x",
    "10.0.0.1",
    "fd00::1",
    "10.0.0.0/8",
    "TCP",
    "ClusterIP",
    "Always",
    "ä\u{7f}\u{0}",
    "..",
    "%",
    "$(X)",
    "v1",
    "Pod",
    "apps/v1",
    "2026-01-01T00:00:00Z",
    "1Gi",
    "-1",
    "100%",
    "default",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];
const NUMBERS: &[i64] = &[0, 1, -1, 2, 80, 65_536, i32::MAX as i64, i32::MIN as i64, i64::MAX, i64::MIN];

struct Maker(Rng);

impl Maker {
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.0.below(n as u64)).unwrap_or(0)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn text(&mut self) -> Value {
        let at = self.below(TEXTS.len());
        TEXTS.get(at).copied().unwrap_or("").into()
    }

    fn number(&mut self) -> Value {
        let at = self.below(NUMBERS.len());
        NUMBERS.get(at).copied().unwrap_or(0).into()
    }

    /// Any small value.
    fn odd(&mut self, depth: usize) -> Value {
        match self.below(9) {
            0 => Value::Null,
            1 => self.one_in(2).into(),
            2 => self.number(),
            3 => json!(1.5e300),
            4 | 5 => self.text(),
            6 => json!([]),
            7 => json!({}),
            _ if depth < DEPTH_MAX => {
                json!([{ "name": self.odd(depth + 1), "x": self.text() }, self.odd(depth + 1)])
            }
            _ => Value::Null,
        }
    }

    /// A value of a schema, mostly.
    fn value(&mut self, schema: Schema<'_>, depth: usize) -> Value {
        if self.one_in(25) || depth > DEPTH_MAX {
            return self.odd(depth);
        }
        match schema.shape() {
            Shape::Object => {
                let mut out = Map::new();
                for name in schema.field_names() {
                    let wanted = (schema.requires(name) && !self.one_in(12)) || self.one_in(2 + depth * 2);
                    if let Some(field) = schema.field(name).filter(|_| wanted) {
                        out.insert(name.into(), self.value(field, depth + 1));
                    }
                }
                Value::Object(out)
            }
            Shape::Map => {
                let values = schema.field("x").unwrap_or(Schema::Any);
                let n = self.below(3);
                let pair =
                    |_| (self.text().as_str().unwrap_or("").to_string(), self.value(values, depth + 1));
                Value::Object((0..n).map(pair).collect())
            }
            Shape::List => {
                let n = self.below(3);
                (0..n).map(|_| self.value(schema.items(), depth + 1)).collect::<Vec<_>>().into()
            }
            Shape::Integer { .. } => self.number(),
            Shape::Number => json!(0.5),
            Shape::Bool => self.one_in(2).into(),
            Shape::IntOrString if self.one_in(2) => self.number(),
            Shape::Quantity => {
                ["1", "500m", "1Gi", "-1", "1e99", "0"].get(self.below(6)).copied().unwrap_or("1").into()
            }
            Shape::Time { .. } => "2026-01-01T00:00:00Z".into(),
            Shape::Bytes => "YQ==".into(),
            Shape::String | Shape::IntOrString => self.text(),
            Shape::Any => self.odd(depth),
        }
    }

    /// An object with a good name, mostly.
    fn object(&mut self, info: &ResourceInfo, name: &str) -> Value {
        let mut object = self.value(info.schema(), 0);
        let Some(map) = object.as_object_mut() else { return object };
        map.insert("apiVersion".into(), info.api_version().into());
        map.insert("kind".into(), info.kind.as_str().into());
        if !self.one_in(10) {
            let mut meta = map.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
            for field in ["namespace", "resourceVersion", "uid", "generateName"] {
                if !self.one_in(20) {
                    meta.remove(field);
                }
            }
            for field in ["labels", "annotations", "ownerReferences", "finalizers", "managedFields"] {
                if !self.one_in(4) {
                    meta.remove(field);
                }
            }
            meta.insert("name".into(), name.into());
            map.insert("metadata".into(), meta.into());
        }
        object
    }
}

/// A path of a collection, and the path of a name in it.
fn paths(info: &ResourceInfo, name: &str) -> (String, String) {
    let collection = info.gvr.path(info.namespaced.then_some("default"));
    (collection.clone(), format!("{collection}/{name}"))
}

#[test]
fn no_object_makes_the_server_fail() {
    const PATCHES: [&str; 3] = [
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    let mut made_kinds = 0;
    for info in table::builtin().iter().filter(|i| i.has_verb("create")) {
        let mut made = 0;
        for seed in 0..SEEDS {
            let s = Server::new();
            let mut maker = Maker(Rng::new(seed).child(&format!("{}/{}", info.gvr.group, info.gvr.resource)));
            let (collection, path) = paths(info, "web");
            let check = |method: &str, path: &str, content_type: &str, body: &Value| {
                let answer = s.raw(method, path, content_type, body.to_string());
                let fine = answer.code < 500 || matches!(answer.code, 501 | 503 | 504);
                assert!(fine, "{method} {path} {body}: {}", answer.text());
                if answer.code >= 400
                    && answer.headers.get("content-type").is_some_and(|t| t == "application/json")
                {
                    assert_eq!(answer.failure().0, answer.code);
                }
                answer.code
            };
            let body = maker.object(info, "web");
            made += u32::from(check("POST", &collection, "application/json", &body) == 201);
            // One that is there for sure, if the kind lets itself be made of its schema.
            for _ in 0..4 {
                let body = maker.object(info, "web");
                check("POST", &format!("{collection}?fieldManager=a"), "application/json", &body);
                if info.has_verb("update") {
                    check(
                        "PUT",
                        &format!("{path}?fieldManager=b"),
                        "application/json",
                        &maker.object(info, "web"),
                    );
                }
                if info.has_verb("patch") {
                    for content_type in PATCHES {
                        let patch = maker.object(info, "web");
                        check("PATCH", &format!("{path}?fieldManager=c"), content_type, &patch);
                    }
                }
                for sub in &info.subresources {
                    let body = maker.object(info, "web");
                    for verb in &sub.verbs {
                        match verb.as_str() {
                            "create" => {
                                check("POST", &format!("{path}/{}", sub.name), "application/json", &body)
                            }
                            "update" => {
                                check("PUT", &format!("{path}/{}", sub.name), "application/json", &body)
                            }
                            "patch" => {
                                let content_type = "application/merge-patch+json";
                                check("PATCH", &format!("{path}/{}", sub.name), content_type, &body)
                            }
                            _ => 0,
                        };
                    }
                }
            }
            if info.has_verb("list") {
                let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
                for accept in
                    [table, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "*/*"]
                {
                    assert_eq!(s.send("GET", &collection, &[("accept", accept)], &Value::Null).0, 200);
                }
            }
            check("DELETE", &path, "application/json", &json!({ "gracePeriodSeconds": maker.number() }));
            check("DELETE", &collection, "application/json", &maker.odd(0));
        }
        made_kinds += u32::from(made > 0);
    }
    println!("kinds of which some were made: {made_kinds} of {}", table::builtin().len());
    assert!(made_kinds > 15, "the test makes objects that are accepted too: {made_kinds}");
}
