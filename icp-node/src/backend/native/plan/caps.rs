//! Capability sets.

use alloc::format;
use alloc::string::String;

/// Names in the order of their numbers (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All capabilities that are known.
pub(crate) const ALL_CAPS: u64 = (1 << NAMES.len()) - 1;

/// The set of containerd and Docker (`containerd/oci/spec.go`, `defaultUnixCaps`).
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// `CAP_SYS_ADMIN`, a bit.
pub(crate) const SYS_ADMIN: u64 = 1 << 21;

fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let at = NAMES.iter().position(|n| *n == short)?;
    u32::try_from(at).ok().map(|at| 1 << at)
}

/// The capabilities of a container: the default set, with what is added, less what is dropped; `ALL` first, as the
/// CRI says (`WithCapabilities` of containerd). A name of `add` wins over `ALL` of `drop`.
///
/// # Errors
/// Names a capability that does not exist.
pub(crate) fn capability_set(privileged: bool, add: &[String], drop: &[String]) -> Result<u64, String> {
    if privileged {
        return Ok(ALL_CAPS);
    }
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut set = DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |a, b| a | b);
    if add.iter().any(is_all) {
        set = ALL_CAPS;
    }
    if drop.iter().any(is_all) {
        set = 0;
    }
    let find = |name: &String, field: &str| {
        bit(name).ok_or_else(|| format!("securityContext.capabilities.{field}: unknown capability {name:?}"))
    };
    for name in add.iter().filter(|n| !is_all(n)) {
        set |= find(name, "add")?;
    }
    for name in drop.iter().filter(|n| !is_all(n)) {
        set &= !find(name, "drop")?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Result<u64, String> {
        let owned = |list: &[&str]| list.iter().map(|s| String::from(*s)).collect::<alloc::vec::Vec<_>>();
        capability_set(false, &owned(add), &owned(drop))
    }

    #[test]
    fn the_default_set_is_that_of_docker() {
        assert_eq!(set(&[], &[]).unwrap(), 0xa804_25fb);
    }

    #[test]
    fn adds_and_drops() {
        assert_eq!(set(&[], &["ALL"]).unwrap(), 0);
        assert_eq!(set(&["NET_BIND_SERVICE"], &["ALL"]).unwrap(), 1 << 10);
        assert_eq!(set(&["ALL"], &["CAP_SYS_ADMIN"]).unwrap(), ALL_CAPS & !SYS_ADMIN);
        assert_eq!(set(&["sys_admin"], &[]).unwrap() & SYS_ADMIN, SYS_ADMIN);
        assert!(set(&["FLY"], &[]).unwrap_err().contains("add: unknown capability \"FLY\""));
    }
}
