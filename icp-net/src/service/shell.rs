//! kube-proxy of one node, on tokio.

use std::string::ToString;
use std::sync::Arc;

use icp_core::client::Client;
use icp_core::shell::host::Host;
use tokio::sync::watch;

use super::{Config, Effect, Event, ProxyMachine};
use crate::backend::netlink::NetlinkError;
use crate::backend::service::ServiceBackend;
use crate::backend::worker::Worker;

/// Runs kube-proxy in the network namespace of the calling thread until `stop` becomes true. The rules stay, as
/// kube-proxy leaves them, so that connections outlive a restart. `report` is told why changes fail; they are tried
/// again.
///
/// ```no_run
/// # use std::sync::Arc;
/// # async fn f(client: Arc<dyn icp_core::client::Client>) -> Result<(), icp_net::backend::netlink::NetlinkError> {
/// let mut config = icp_net::service::Config::new("worker-1");
/// config.pod_networks = vec!["10.244.0.0/16".parse().unwrap()];
/// let (_stop, stopped) = tokio::sync::watch::channel(false);
/// icp_net::service::shell::run(config, client, stopped, |e| eprintln!("{e}")).await
/// # }
/// ```
///
/// # Errors
/// [`NetlinkError`] if the kernel cannot be talked to at all.
pub async fn run(
    config: Config,
    client: Arc<dyn Client>,
    stop: watch::Receiver<bool>,
    report: impl Fn(&str) + Send + 'static,
) -> Result<(), NetlinkError> {
    let host = Host::new(ProxyMachine::new(config), client).stop_when(stop);
    let worker = Worker::start(host.mailbox(), ServiceBackend::open, move |backend, effect| {
        let event = backend.perform(effect);
        if let Some(Event::Observed { result: Err(e), .. } | Event::Applied { result: Err(e), .. }) = &event {
            report(&e.to_string());
        }
        event
    })
    .await?;
    host.run(|effect, _mailbox| match effect {
        Effect::Client(effect) => Some(effect),
        other => {
            worker.perform(other);
            None
        }
    })
    .await;
    Ok(())
}
