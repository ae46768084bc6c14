//! Completed indexes as text: `0-2,5`.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Most indexes that are read from one text; `completions` of indexed Jobs is at most this (upstream validation).
const INDEXES_MAX: i64 = 100_000;

pub(super) fn parse(text: &str) -> BTreeSet<i64> {
    let mut out = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<i64>(), to.parse::<i64>())
            && from >= 0
        {
            out.extend(from..=to.min(INDEXES_MAX));
        }
    }
    out
}

pub(super) fn print(indexes: &BTreeSet<i64>) -> String {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let one = |(from, to): (i64, i64)| match to - from {
        0 => format!("{from}"),
        1 => format!("{from},{to}"),
        _ => format!("{from}-{to}"),
    };
    runs.into_iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_upstream() {
        for text in ["", "0", "0,1", "0-2,5", "1,3-7,9,10"] {
            assert_eq!(print(&parse(text)), text);
        }
        assert_eq!(parse("x,-3,4-2,1").into_iter().collect::<Vec<_>>(), [1]);
    }
}
