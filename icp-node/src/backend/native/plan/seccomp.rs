//! The system call filter of `RuntimeDefault`: a classic BPF program.
//!
//! Like containerd's default profile (`containerd/contrib/seccomp/seccomp_default.go`) it refuses what changes the
//! kernel, reaches into other processes' namespaces or is a frequent way to break out, and what the kernel learned after
//! this list was made. It is a list of what is refused, not of what is allowed: within the system calls known here it
//! lets through what containerd's list does not name.

use alloc::vec::Vec;

use super::caps::SYS_ADMIN;

/// An instruction of a classic BPF program (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

/// Offsets in `struct seccomp_data` (little endian).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT_0: u32 = 16;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const AUDIT_ARCH: Option<u32> = None;

/// The newest system call that this list was made for (`lsm_list_modules`, 461, then `mseal`, 462).
const NEWEST: u32 = 462;
/// `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET`.
const NAMESPACES: u32 = 0x7e02_0000;
const AF_VSOCK: u32 = 40;
/// First number of the x32 ABI, which would be a second door to every system call.
const X32: u32 = 0x4000_0000;

/// Refused whatever the capabilities.
const NEVER: &[libc::c_long] = &[
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_nfsservctl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
];

/// Refused without `CAP_SYS_ADMIN`.
const ADMIN: &[libc::c_long] = &[
    libc::SYS_bpf,
    libc::SYS_fanotify_init,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
];

/// Refused without the one capability, given by its number.
const OTHER: &[(u32, libc::c_long)] = &[
    (2, libc::SYS_open_by_handle_at),
    (16, libc::SYS_init_module),
    (16, libc::SYS_finit_module),
    (16, libc::SYS_delete_module),
    #[cfg(target_arch = "x86_64")]
    (17, libc::SYS_iopl),
    #[cfg(target_arch = "x86_64")]
    (17, libc::SYS_ioperm),
    (19, libc::SYS_kcmp),
    (19, libc::SYS_process_madvise),
    (20, libc::SYS_acct),
    (22, libc::SYS_reboot),
    (23, libc::SYS_mbind),
    (23, libc::SYS_set_mempolicy),
    (23, libc::SYS_move_pages),
    (23, libc::SYS_migrate_pages),
    (25, libc::SYS_settimeofday),
    (25, libc::SYS_clock_settime),
    (26, libc::SYS_vhangup),
];

struct Program(Vec<Instruction>);

impl Program {
    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) {
        self.0.push(Instruction { code, jt, jf, k });
    }

    /// Returns `with` if the accumulator is `k`.
    fn if_equal(&mut self, k: u32, with: u32) {
        self.push(JUMP_EQUAL, k, 0, 1);
        self.push(RETURN, with, 0, 0);
    }
}

/// The filter for a container with these capabilities; `None` on a processor that it is not made for.
pub(crate) fn filter(caps: u64) -> Option<Vec<Instruction>> {
    let number = |nr: &libc::c_long| u32::try_from(*nr).unwrap_or(u32::MAX);
    let mut p = Program(Vec::new());
    p.push(LOAD, ARCH, 0, 0);
    p.push(JUMP_EQUAL, AUDIT_ARCH?, 1, 0);
    p.push(RETURN, ENOSYS, 0, 0);
    p.push(LOAD, NUMBER, 0, 0);
    if cfg!(target_arch = "x86_64") {
        p.push(JUMP_GREATER_EQUAL, X32, 0, 1);
        p.push(RETURN, ENOSYS, 0, 0);
    }
    p.push(JUMP_GREATER_EQUAL, NEWEST + 1, 0, 1);
    p.push(RETURN, ENOSYS, 0, 0);
    for nr in NEVER {
        p.if_equal(number(nr), EPERM);
    }
    for (_, nr) in OTHER.iter().filter(|(cap, _)| caps & (1 << cap) == 0) {
        p.if_equal(number(nr), EPERM);
    }
    // Each of these tests ends in a return or leaves the number of the call in the accumulator.
    p.push(JUMP_EQUAL, number(&libc::SYS_socket), 0, 4);
    p.push(LOAD, ARGUMENT_0, 0, 0);
    p.push(JUMP_EQUAL, AF_VSOCK, 0, 1);
    p.push(RETURN, EPERM, 0, 0);
    p.push(RETURN, ALLOW, 0, 0);
    if caps & SYS_ADMIN == 0 {
        for nr in ADMIN {
            p.if_equal(number(nr), EPERM);
        }
        // Its flags lie in memory, which a filter cannot read; libraries fall back to clone.
        p.if_equal(number(&libc::SYS_clone3), ENOSYS);
        p.push(JUMP_EQUAL, number(&libc::SYS_clone), 0, 4);
        p.push(LOAD, ARGUMENT_0, 0, 0);
        p.push(JUMP_SET, NAMESPACES, 0, 1);
        p.push(RETURN, EPERM, 0, 0);
        p.push(RETURN, ALLOW, 0, 0);
    }
    p.push(RETURN, ALLOW, 0, 0);
    Some(p.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel does.
    fn run(filter: &[Instruction], arch: u32, nr: u32, arg: u32) -> u32 {
        let (mut at, mut acc) = (0, 0);
        loop {
            let i = filter[at];
            at += 1;
            let jump = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
            match i.code {
                LOAD => {
                    acc = match i.k {
                        NUMBER => nr,
                        ARCH => arch,
                        ARGUMENT_0 => arg,
                        other => panic!("load of {other}"),
                    }
                }
                JUMP_EQUAL => at += jump(acc == i.k),
                JUMP_GREATER_EQUAL => at += jump(acc >= i.k),
                JUMP_SET => at += jump(acc & i.k != 0),
                RETURN => return i.k,
                other => panic!("code {other:#x}"),
            }
        }
    }

    #[test]
    fn refuses_what_breaks_out_and_lets_work_through() {
        let Some(arch) = AUDIT_ARCH else { return };
        let nr = |n: libc::c_long| u32::try_from(n).unwrap();
        let plain = filter(0xa804_25fb).unwrap();
        let admin = filter(u64::MAX).unwrap();
        let run_plain = |n, arg| run(&plain, arch, nr(n), arg);
        for allowed in [libc::SYS_read, libc::SYS_execve, libc::SYS_openat, libc::SYS_ptrace, libc::SYS_futex]
        {
            assert_eq!(run_plain(allowed, 0), ALLOW);
        }
        for refused in [libc::SYS_mount, libc::SYS_unshare, libc::SYS_bpf, libc::SYS_keyctl, libc::SYS_reboot]
        {
            assert_eq!(run_plain(refused, 0), EPERM);
        }
        assert_eq!(run(&admin, arch, nr(libc::SYS_mount), 0), ALLOW);
        assert_eq!(run(&admin, arch, nr(libc::SYS_keyctl), 0), EPERM);
        assert_eq!(run_plain(libc::SYS_clone, 0x0001_0000), ALLOW);
        assert_eq!(run_plain(libc::SYS_clone, 0x1000_0000), EPERM);
        assert_eq!(run_plain(libc::SYS_clone3, 0), ENOSYS);
        assert_eq!(run(&admin, arch, nr(libc::SYS_clone), 0x1000_0000), ALLOW);
        assert_eq!(run_plain(libc::SYS_socket, 2), ALLOW);
        assert_eq!(run_plain(libc::SYS_socket, AF_VSOCK), EPERM);
        assert_eq!(run(&plain, arch, NEWEST + 1, 0), ENOSYS);
        assert_eq!(run(&plain, arch ^ 1, nr(libc::SYS_read), 0), ENOSYS);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(run(&plain, arch, X32 | nr(libc::SYS_read), 0), ENOSYS);
        }
    }
}
