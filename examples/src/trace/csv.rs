//! The files of a trace.

use std::path::{Path, PathBuf};

use super::{NodeRow, PodRow, TraceError};

/// The file of nodes.
pub const NODES: &str = "openb_node_list_all_node.csv";
/// The file of pods.
pub const PODS: &str = "openb_pod_list_default.csv";

/// Larger amounts are taken for errors: they leave room for sums.
const AMOUNT_MAX: i64 = 1 << 40;
/// Most devices of a node or a pod.
const GPUS_MAX: usize = 64;

/// A line on its way through its columns.
struct Fields<'a> {
    path: &'a Path,
    line: usize,
    values: Vec<&'a str>,
    columns: &'a [&'a str],
}

impl Fields<'_> {
    fn fault(&self, field: &'static str, fault: impl Into<String>) -> TraceError {
        TraceError::Line { path: self.path.into(), line: self.line, field, fault: fault.into() }
    }

    fn text(&self, field: &'static str) -> Result<&str, TraceError> {
        let at = self.columns.iter().position(|c| *c == field);
        let value = at.and_then(|at| self.values.get(at)).copied();
        value.ok_or_else(|| self.fault(field, "the column is missing"))
    }

    fn name(&self, field: &'static str) -> Result<String, TraceError> {
        match self.text(field)? {
            "" => Err(self.fault(field, "is empty")),
            name => Ok(name.into()),
        }
    }

    fn number(&self, field: &'static str, max: i64) -> Result<i64, TraceError> {
        let text = self.text(field)?;
        let number: i64 =
            text.parse().map_err(|_| self.fault(field, format!("{text:?} is not a whole number")))?;
        if (0..=max).contains(&number) {
            return Ok(number);
        }
        Err(self.fault(field, format!("{number} is not between 0 and {max}")))
    }

    fn gpus(&self, field: &'static str) -> Result<usize, TraceError> {
        let number = self.number(field, i64::try_from(GPUS_MAX).unwrap_or(i64::MAX))?;
        Ok(usize::try_from(number).unwrap_or(0))
    }
}

/// Reads a file with a header line; `row` reads one line.
fn rows<T>(path: &Path, row: impl Fn(&Fields<'_>) -> Result<T, TraceError>) -> Result<Vec<T>, TraceError> {
    let owned = || -> PathBuf { path.into() };
    let text = std::fs::read_to_string(path).map_err(|source| TraceError::File { path: owned(), source })?;
    let mut lines = text.lines().enumerate();
    let columns: Vec<&str> =
        lines.next().map(|(_, l)| l.split(',').map(str::trim).collect()).unwrap_or_default();
    let mut out = Vec::new();
    for (at, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let values = line.split(',').map(str::trim).collect();
        let fields = Fields { path, line: at + 1, values, columns: &columns };
        if fields.values.len() != columns.len() {
            let fault = format!("{} fields, the header has {}", fields.values.len(), columns.len());
            return Err(fields.fault("line", fault));
        }
        out.push(row(&fields)?);
    }
    if out.is_empty() { Err(TraceError::Empty { path: owned() }) } else { Ok(out) }
}

/// Reads the nodes.
///
/// # Errors
/// If the file cannot be read or a line is broken.
pub fn nodes(path: &Path) -> Result<Vec<NodeRow>, TraceError> {
    rows(path, |f| {
        Ok(NodeRow {
            name: f.name("sn")?,
            cpu_milli: f.number("cpu_milli", AMOUNT_MAX)?,
            memory_mib: f.number("memory_mib", AMOUNT_MAX)?,
            gpus: f.gpus("gpu")?,
            model: f.text("model")?.into(),
        })
    })
}

/// Reads the pods.
///
/// # Errors
/// If the file cannot be read or a line is broken.
pub fn pods(path: &Path) -> Result<Vec<PodRow>, TraceError> {
    rows(path, |f| {
        let (gpus, gpu_milli) = (f.gpus("num_gpu")?, f.number("gpu_milli", 1_000)?);
        if (gpus == 0) != (gpu_milli == 0) {
            return Err(f.fault("gpu_milli", format!("{gpu_milli} does not go with num_gpu {gpus}")));
        }
        let seconds = |field| Ok(f.number(field, AMOUNT_MAX)?.unsigned_abs());
        let (arrives, departs) = (seconds("creation_time")?, seconds("deletion_time")?);
        if departs < arrives {
            return Err(f.fault("deletion_time", format!("{departs} is before creation_time {arrives}")));
        }
        let models = f.text("gpu_spec")?.split('|').filter(|m| !m.is_empty()).map(Into::into);
        Ok(PodRow {
            name: f.name("name")?,
            cpu_milli: f.number("cpu_milli", AMOUNT_MAX)?,
            memory_mib: f.number("memory_mib", AMOUNT_MAX)?,
            gpus,
            gpu_milli,
            models: models.collect(),
            arrives,
            departs,
        })
    })
}
