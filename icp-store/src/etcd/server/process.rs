//! Figures of this process, where the system tells them.

use alloc::vec::Vec;

pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) help: &'static str,
    pub(super) value: f64,
}

pub(super) fn figures() -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut figure = |name, kind, help, value| figures.push(Figure { name, kind, help, value });
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    if let Some(pages) = pages {
        let bytes = pages * rustix::param::page_size() as u64;
        figure("process_resident_memory_bytes", "gauge", "Resident memory.", bytes as f64);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        figure("process_open_fds", "gauge", "Open file descriptors.", files.count() as f64);
    }
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name before the bracket may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|n| n.parse::<u64>().ok());
    if let (Some(user), Some(system)) = (ticks(11), ticks(12)) {
        let secs = (user + system) as f64 / rustix::param::clock_ticks_per_second() as f64;
        figure("process_cpu_seconds_total", "counter", "Processor time.", secs);
    }
    figures
}
