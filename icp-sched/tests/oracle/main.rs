//! Decisions are those that kube-scheduler 1.34.1 was recorded to make, with every node scored.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod compare;

#[test]
fn every_recorded_decision_is_ours() {
    let file =
        std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/recorded.jsonl.gz")).unwrap();
    let report = compare::compare(file).unwrap();
    assert_eq!(report.differences, Vec::<String>::new());
    assert_eq!((report.clusters, report.pods, report.equal), (150, 2197, 2197));
}

#[test]
fn a_wrong_answer_is_told() {
    let line = r#"{"snapshot": {"nodes": [{"metadata": {"name": "n"}, "status": {"allocatable":
        {"cpu": "1", "memory": "1Gi", "pods": "9"}}}], "pending": [{"metadata": {"name": "p", "namespace": "d"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}}]},
        "expect": [{"pod": "d/p", "reject": {"n": "NodeResourcesFit/Unschedulable: Insufficient cpu"}}]}"#;
    let report = compare::compare(line.replace('\n', " ").as_bytes()).unwrap();
    assert_eq!((report.pods, report.equal), (1, 0));
    assert!(report.differences[0].contains("UnschedulableAndUnresolvable"), "{:?}", report.differences);
    assert!(compare::compare(&b"{"[..]).is_err());
}
