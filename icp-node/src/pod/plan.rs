//! Decisions of a pod that need no state of their own: its phase, and what a probe or hook asks of the runtime.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::base::Duration;

use super::slot::Slot;
use super::spec::{Container, ExecAction, GrpcAction, HttpGetAction, TcpSocketAction};
use crate::runtime::{ContainerKey, ContainerKind, HttpGet, RuntimeOp};

/// `status.phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    pub(crate) const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }

    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            _ => Self::Pending,
        }
    }
}

/// The phase that containers make (`getPhase` of `k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go`): `restarts`
/// says of a slot with an exit whether another attempt follows.
pub(crate) fn phase(slots: &[Slot], initialized: bool, restarts: impl Fn(&Slot) -> bool) -> Phase {
    let mut init_pending = !initialized;
    for slot in slots.iter().filter(|s| s.kind == ContainerKind::Init) {
        if let (Run::Idle, Some(end)) = (&slot.run, &slot.exit)
            && end.exit.code != 0
            && !restarts(slot)
        {
            return Phase::Failed;
        }
    }
    let (mut running, mut waiting, mut stopped, mut succeeded, mut total) = (0, 0, 0, 0, 0);
    for slot in slots.iter().filter(|s| s.kind == ContainerKind::Regular) {
        total += 1;
        if slot.running().is_some() {
            running += 1;
            init_pending = false;
        } else if let Some(end) = &slot.exit {
            if restarts(slot) {
                running += 1;
            } else {
                stopped += 1;
                succeeded += usize::from(end.exit.code == 0);
            }
        } else {
            waiting += 1;
        }
    }
    if init_pending || waiting > 0 || total == 0 {
        Phase::Pending
    } else if running > 0 {
        Phase::Running
    } else if stopped == succeeded {
        Phase::Succeeded
    } else {
        Phase::Failed
    }
}

use super::slot::Run;

/// What a probe or a hook does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Action<'a> {
    pub(crate) exec: Option<&'a ExecAction>,
    pub(crate) http: Option<&'a HttpGetAction>,
    pub(crate) tcp: Option<&'a TcpSocketAction>,
    pub(crate) grpc: Option<&'a GrpcAction>,
}

impl Action<'_> {
    /// The call that does it, or why there is none.
    pub(crate) fn op(
        self,
        container: &Container,
        key: ContainerKey,
        timeout: Duration,
    ) -> Result<RuntimeOp, String> {
        let port_of =
            |port| container.port(port).ok_or_else(|| alloc::format!("no such port in container: {port:?}"));
        if let Some(exec) = self.exec {
            Ok(RuntimeOp::Exec { container: key, command: exec.command.clone(), timeout })
        } else if let Some(http) = self.http {
            let mut headers: Vec<_> =
                http.http_headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect();
            let has = |name: &str| http.http_headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
            for (name, value) in [("User-Agent", "kube-probe/1.37"), ("Accept", "*/*")] {
                if !has(name) {
                    headers.push((name.into(), value.into()));
                }
            }
            Ok(RuntimeOp::HttpGet(Arc::new(HttpGet {
                host: (!http.host.is_empty()).then(|| http.host.clone()),
                port: port_of(&http.port)?,
                path: match http.path.as_str() {
                    "" => "/".into(),
                    path if path.starts_with('/') => path.into(),
                    path => alloc::format!("/{path}"),
                },
                https: http.scheme.eq_ignore_ascii_case("https"),
                headers,
                timeout,
            })))
        } else if let Some(tcp) = self.tcp {
            let host = match tcp.host.as_str() {
                "" => None,
                host => Some(host.parse().map_err(|_| alloc::format!("{host:?} is not an IP address"))?),
            };
            Ok(RuntimeOp::TcpConnect { host, port: port_of(&tcp.port)?, timeout })
        } else if let Some(grpc) = self.grpc {
            let service = grpc.service.clone().unwrap_or_default();
            Ok(RuntimeOp::GrpcHealth { port: grpc.port, service, timeout })
        } else {
            Err("no handler is set".into())
        }
    }
}

/// Why this node refuses to run a container as its spec stands; the message names the field.
pub(crate) fn unsupported(container: &Container) -> Option<String> {
    let from_file =
        container.env.iter().find(|e| e.value_from.as_ref().is_some_and(|v| v.file_key_ref.is_some()));
    from_file.map(|e| alloc::format!("env {}: fileKeyRef is not supported by this node yet", e.name))
}
