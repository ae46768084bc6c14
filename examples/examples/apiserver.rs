//! An API server alone, on a loopback port, for kubectl:
//!
//! ```text
//! cargo run --example apiserver -- 127.0.0.1:6443 admin.conf
//! kubectl --kubeconfig admin.conf get namespaces
//! ```
#![expect(clippy::disallowed_methods, reason = "a binary owns the process")]

use std::sync::Arc;

use icp_core::base::Rng;
use icp_core::server::{ApiServer, Clock as _, Options};
use icp_core::shell::pki::Authority;
use icp_core::shell::{SystemClock, SystemEntropy, listener, tls};
use icp_store::Memory;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:6443".into());
    let kubeconfig = arguments.next().unwrap_or_else(|| "admin.conf".into());
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&address, &kubeconfig))
}

async fn run(address: &str, kubeconfig: &str) -> Result<(), Error> {
    let now = SystemClock.now();
    let ca = Authority::generate("icp-ca", now)?;
    let serving = ca.serving("kube-apiserver", &["127.0.0.1", "localhost"], now)?;
    let admin = ca.client("kubernetes-admin", &["system:masters"], now)?;
    let socket = tokio::net::TcpListener::bind(address).await?;
    let address = socket.local_addr()?;
    let config = ca.kubeconfig(&format!("https://{address}"), "icp", "admin", &admin);
    examples::pki::private(kubeconfig.as_ref(), config.as_bytes())?;

    let options = Options {
        ca_pem: Some(ca.certificate_pem().into()),
        advertise_addresses: vec![address.ip()],
        secure_port: address.port(),
        ..Options::default()
    };
    let server = ApiServer::builder(Arc::new(Memory::new()))
        .clock(SystemClock)
        .rng(Rng::new(examples::daemon::seed()))
        .entropy(SystemEntropy::new())
        .options(options)
        .build();
    println!("serving on https://{address}; kubeconfig: {kubeconfig}; end with ctrl-c");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let tls = tls::server(&serving, Some(ca.certificate_pem()))?;
    let serving =
        tokio::spawn(listener::serve(socket, server, Some(tls), listener::Limits::default(), stopped));
    tokio::signal::ctrl_c().await?;
    stop.send_replace(true);
    serving.await??;
    Ok(())
}
