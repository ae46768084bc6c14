//! Container logs: lines `TIME stdout|stderr P|F TEXT` in files that are rotated (the format of the CRI,
//! `k8s.io/kubernetes/pkg/kubelet/kuberuntime/logs`).

mod cut;
mod read;
mod write;

pub(crate) use cut::{Cut, parse_line};
pub(crate) use read::{follow, last_lines, log_files};
pub(crate) use write::LogWriter;

/// Which stream a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout,
    Stderr,
}

impl Channel {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
