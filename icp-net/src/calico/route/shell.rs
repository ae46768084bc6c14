//! The route machine of one node, on tokio.

use std::sync::Arc;
use std::vec::Vec;

use icp_core::client::Client;
use icp_core::shell::host::Host;
use ipnet::IpNet;
use tokio::sync::watch;

use super::{Config, Effect, Event, RouteMachine};
use crate::backend::calico::RouteBackend;
use crate::backend::netlink::NetlinkError;
use crate::backend::worker::Worker;

/// Keeps the routes of the machine that the calling thread is on until `stop` becomes true; they stay then. Calls
/// `pod_networks` with the node's own part of the pod network when it becomes known and when it changes, and `report`
/// with what fails; it is tried again.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use icp_net::backend::calico::NodeNetwork;
/// # async fn f(client: Arc<dyn icp_core::client::Client>, network: Arc<NodeNetwork>)
/// # -> Result<(), icp_net::backend::netlink::NetlinkError> {
/// let mut config = icp_net::calico::route::Config::new("worker-1");
/// config.pod_networks = vec!["10.244.0.0/16".parse().unwrap()];
/// let (_stop, stopped) = tokio::sync::watch::channel(false);
/// let learn = move |nets: Vec<_>| network.set_pod_networks(&nets).unwrap_or_else(|e| eprintln!("{e}"));
/// icp_net::calico::route::shell::run(config, client, stopped, learn, |e| eprintln!("{e}")).await
/// # }
/// ```
///
/// # Errors
/// [`NetlinkError`] if the kernel cannot be talked to at all.
pub async fn run(
    config: Config,
    client: Arc<dyn Client>,
    stop: watch::Receiver<bool>,
    mut pod_networks: impl FnMut(Vec<IpNet>),
    report: impl Fn(&str) + Send + 'static,
) -> Result<(), NetlinkError> {
    let host = Host::new(RouteMachine::new(config), client).stop_when(stop);
    let worker = Worker::start(host.mailbox(), RouteBackend::open, move |backend, effect| {
        let event = backend.perform(effect);
        match &event {
            Some(Event::Observed { result: Err(e), .. }) => report(&e.0),
            Some(Event::Applied { failures, .. }) => failures.iter().for_each(|f| report(&f.why)),
            _ => {}
        }
        event
    })
    .await?;
    host.run(|effect, _mailbox| match effect {
        Effect::Client(effect) => Some(effect),
        Effect::PodNetworks(nets) => {
            pod_networks(nets);
            None
        }
        other => {
            worker.perform(other);
            None
        }
    })
    .await;
    Ok(())
}
