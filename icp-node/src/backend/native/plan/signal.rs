//! Signals by name.

/// Names in the order of their numbers on x86-64 and arm64, from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const RT_MIN: i32 = 34;
const RT_MAX: i32 = 64;

/// The number of a signal given as `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`.
pub(crate) fn signal_number(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=RT_MAX).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let offset = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse::<i32>().ok()? };
        let number = RT_MIN.checked_add(offset)?;
        return (RT_MIN..=RT_MAX).contains(&number).then_some(number);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        let offset = if rest.is_empty() { 0 } else { rest.strip_prefix('-')?.parse::<i32>().ok()? };
        let number = RT_MAX.checked_sub(offset)?;
        return (RT_MIN..=RT_MAX).contains(&number).then_some(number);
    }
    let at = NAMES.iter().position(|n| *n == name)?;
    i32::try_from(at + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGRTMIN+99", None),
            ("0", None),
            ("65", None),
            ("SIGNOTHING", None),
            ("", None),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }
}
