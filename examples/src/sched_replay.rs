//! Reads histories of schedulers and decides on them again: the files behind [`icp_sched::record`].

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use icp_sched::config::{Registry, SchedulerConfiguration};
use icp_sched::record::{HistoryError, LINE_MAX, Replayer, Report};

/// The first bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A history could not be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration is none.
    #[error("{path}: {detail}")]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The history is damaged.
    #[error("{path}: {source}")]
    History {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: HistoryError,
    },
}

/// Replays the history in a file, JSON lines or gzip of them; under the KubeSchedulerConfiguration in another file, if one
/// is given.
///
/// # Errors
/// If a file cannot be read to its end, is damaged, or holds a configuration that cannot be used.
pub fn replay_file(path: &Path, under: Option<&Path>, differences_max: usize) -> Result<Report, ReplayError> {
    let registry = Registry::default();
    let mut replayer = Replayer::new(Registry::default()).differences_max(differences_max);
    if let Some(path) = under {
        let text =
            fs::read_to_string(path).map_err(|source| ReplayError::Read { path: path.into(), source })?;
        let other = SchedulerConfiguration::from_yaml(&text, &registry)
            .map_err(|e| ReplayError::Configuration { path: path.into(), detail: e.to_string() })?;
        replayer = replayer.under(other);
    }
    let read = |source| ReplayError::Read { path: path.into(), source };
    let file = File::open(path).map_err(read)?;
    let mut input = BufReader::new(file);
    let zipped = input.fill_buf().map_err(read)?.starts_with(&GZIP);
    let input: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(input)) } else { Box::new(input) };
    let mut input = BufReader::with_capacity(1 << 16, input);
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = LINE_MAX as u64 + 2;
        input.by_ref().take(most).read_until(b'\n', &mut line).map_err(read)?;
        let complete = line.pop_if(|last| *last == b'\n').is_some();
        let replayed =
            if complete || line.len() > LINE_MAX { replayer.line(&line) } else { replayer.rest(&line) };
        replayed.map_err(|source| ReplayError::History { path: path.into(), source })?;
        if !complete {
            return Ok(replayer.into_report());
        }
    }
}
