//! `docs/architecture.md` is true: its invariants of absence hold, and what it names is there.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn sources(folder: &Path, but_for: &[&str], out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let stem = name.trim_end_matches(".rs");
        if but_for.contains(&stem) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            sources(&path, but_for, out);
        } else if name.ends_with(".rs") {
            out.push(path);
        }
    }
}

/// Words in code, not in comments: docs may well speak of tokio. Test modules run on what they like.
fn offends(source: &str, word: &str) -> Option<usize> {
    let code = |line: &str| line.split("//").next().unwrap_or("").contains(word);
    let end = source.lines().position(|l| l.trim() == "#[cfg(test)]").unwrap_or(usize::MAX);
    source.lines().take(end).position(code).map(|i| i + 1)
}

#[test]
fn what_is_absent_is_absent() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|l| l.starts_with("| icp-"))
        .map(|l| l.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 15, "the table was not found");
    let mut faults = Vec::new();
    for row in rows {
        let [folder, what, but_for, words] = row[..] else { panic!("a row has four columns: {row:?}") };
        let mut but_for: Vec<&str> = but_for.split_whitespace().collect();
        but_for.extend(["tests", "harness", "testing"]);
        let mut files = Vec::new();
        sources(&root().join(folder), &but_for, &mut files);
        assert!(!files.is_empty(), "{folder} has no sources");
        for file in files {
            let source = fs::read_to_string(&file).unwrap();
            for word in words.split('`').map(str::trim).filter(|w| !w.is_empty()) {
                if let Some(line) = offends(&source, word) {
                    faults.push(format!("{}:{line}: {word} ({folder} does not know {what})", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn an_offence_is_seen() {
    assert_eq!(offends("a\nuse tokio::net; // x\n", "tokio::"), Some(2));
    assert_eq!(offends("// tokio::net\n#[cfg(test)]\nuse tokio::net;\n", "tokio::"), None);
}

#[test]
fn files_that_the_documents_name_exist() {
    for document in ["README.md", "docs/architecture.md", "docs/status.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let path = name.split_whitespace().next().unwrap_or("");
            let is_path = path.contains('/')
                && path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
                && ["icp-", "docs/", "examples/", "benches/", ".ci/"].iter().any(|p| path.starts_with(p));
            assert!(!is_path || root().join(path).exists(), "{document} names {path}, which does not exist");
        }
        for target in text.split("](").skip(1).filter_map(|t| t.split(')').next()) {
            let target = target.split('#').next().unwrap_or("");
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let base = root().join(document);
            assert!(base.parent().unwrap().join(target).exists(), "{document} links to {target}");
        }
    }
}
