//! The table.

use std::fmt::Write as _;

use serde::Serialize;

use super::load::Sample;

/// One scenario: what each store did in it, or why it did not.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) scenario: String,
    pub(super) stores: Vec<(&'static str, Result<Sample, String>)>,
}

/// The name of etcd's lines; ratios are to these.
pub(super) const ETCD: &str = "etcd";

const HEAD: [&str; 10] = [
    "store",
    "per second",
    "x etcd",
    "p50 ms",
    "p99 ms",
    "max ms",
    "CPU s/s",
    "CPU us each",
    "syncs/s",
    "records/sync",
];

/// The rows as a table.
pub(super) fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        let _ = writeln!(out, "\n{}", row.scenario);
        let _ = write!(out, "  {:<12}", HEAD.first().copied().unwrap_or_default());
        HEAD.iter().skip(1).for_each(|name| _ = write!(out, " {name:>12}"));
        out.push('\n');
        let etcd = row.stores.iter().find(|(name, _)| *name == ETCD);
        let etcd = etcd.and_then(|(_, s)| s.as_ref().ok()).map(|s| s.rate);
        for (name, sample) in &row.stores {
            match sample {
                Ok(sample) => line(name, sample, etcd, &mut out),
                Err(why) => _ = writeln!(out, "  {name:<12} {why}"),
            }
        }
    }
    out
}

fn line(name: &str, sample: &Sample, etcd: Option<f64>, out: &mut String) {
    let some = |value: f64, digits: usize| match value {
        0.0 => "-".to_string(),
        _ => format!("{value:.digits$}"),
    };
    let ratio = etcd.filter(|e| *e > 0.0 && name != ETCD).map_or(0.0, |e| sample.rate / e);
    let cells = [
        some(sample.rate, 0),
        some(ratio, 2),
        some(sample.p50_us / 1e3, 3),
        some(sample.p99_us / 1e3, 3),
        some(sample.max_us / 1e3, 1),
        some(sample.cpu, 2),
        some(if sample.rate > 0.0 { sample.cpu / sample.rate * 1e6 } else { 0.0 }, 1),
        some(sample.syncs, 0),
        some(sample.records_per_sync, 1),
    ];
    let _ = write!(out, "  {name:<12}");
    cells.iter().for_each(|cell| _ = write!(out, " {cell:>12}"));
    let more: Vec<String> =
        sample.more.iter().map(|(name, value)| format!("{name} {}", figure(*value))).collect();
    let _ = writeln!(out, "{}{}", if more.is_empty() { "" } else { "  " }, more.join(", "));
}

fn figure(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_etcd_and_absences_are_said() {
        let sample = |rate| Sample { rate, p50_us: 1_500.0, ..Sample::default() };
        let stores =
            vec![("ours", Ok(sample(30.0))), (ETCD, Ok(sample(10.0))), ("other", Err("gone".into()))];
        let text = table(&[Row { scenario: "puts".into(), stores }]);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[3][..4], ["ours", "30", "3.00", "1.500"]);
        assert_eq!(lines[4][..3], ["etcd", "10", "-"]);
        assert_eq!(lines[5], ["other", "gone"]);
    }
}
