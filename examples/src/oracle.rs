//! Reads recordings of kube-scheduler's answers and compares them: the files behind [`icp_sched::oracle`].

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use icp_sched::oracle::{RecordingError, Report};

/// The first bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A recording could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OracleError {
    /// The file cannot be opened.
    #[error("{0}")]
    Open(#[source] io::Error),
    /// The file ends early, is damaged, or is not text.
    #[error("line {line}: {source}")]
    Read {
        /// The line that could not be read, from 1.
        line: usize,
        /// Why.
        source: io::Error,
    },
    /// A line is no recording.
    #[error(transparent)]
    Line(#[from] RecordingError),
    /// There is nothing to compare.
    #[error("there is no recorded answer in the file")]
    Empty,
}

/// Compares the recording in a file: JSON lines, or gzip of them.
///
/// # Errors
/// If the file cannot be read to its end, or a line is no recording.
pub fn compare_file(path: &Path) -> Result<Report, OracleError> {
    compare(File::open(path).map_err(OracleError::Open)?)
}

/// Compares a recording: JSON lines, or gzip of them.
///
/// # Errors
/// If the input cannot be read to its end, or a line is no recording.
pub fn compare(input: impl Read) -> Result<Report, OracleError> {
    let mut input = BufReader::new(input);
    let head = input.fill_buf().map_err(|source| OracleError::Read { line: 1, source })?;
    let input: Box<dyn Read> =
        if head.starts_with(&GZIP) { Box::new(MultiGzDecoder::new(input)) } else { Box::new(input) };
    let mut report = Report::default();
    for (at, line) in BufReader::new(input).lines().enumerate() {
        let line = line.map_err(|source| OracleError::Read { line: at + 1, source })?;
        report.line(at + 1, &line)?;
    }
    if report.pods == 0 { Err(OracleError::Empty) } else { Ok(report) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../icp-sched/tests/data/recorded.jsonl.gz"))
            .unwrap()
    }

    /// The first cluster of the recording, zipped or not.
    fn first_line() -> String {
        BufReader::new(MultiGzDecoder::new(&recorded()[..])).lines().next().unwrap().unwrap()
    }

    #[test]
    fn zipped_and_plain_recordings_say_the_same() {
        let line = first_line();
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut zip, line.as_bytes()).unwrap();
        let report = compare(&zip.finish().unwrap()[..]).unwrap();
        assert!(report.is_equal(), "{:?}", report.differences);
        assert_eq!(compare(format!("\n{line}\n").as_bytes()).unwrap(), report);
    }

    #[test]
    fn bad_files_are_told_apart() {
        let text = |input: &[u8]| compare(input).unwrap_err().to_string();
        let whole = recorded();
        let cut = text(&whole[..whole.len() / 100]);
        assert!(cut.starts_with("line "), "{cut}");
        assert_eq!(text(b""), "there is no recorded answer in the file");
        assert!(text(b"\n\n{\"snapshot\": 1}").starts_with("line 3: invalid type"));
        assert!(text(&[0xff, 0xfe, b'\n']).starts_with("line 1: "));
        let missing = compare_file(Path::new("/nonexistent/recording")).unwrap_err();
        assert!(matches!(missing, OracleError::Open(_)));
    }
}
