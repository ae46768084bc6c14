//! The native runtime: containers made of namespaces, mounts and control groups by this program itself, as root or as the
//! root of a user namespace.
//!
//! | part | what |
//! |---|---|
//! | plans | specs to data that says what is mounted, dropped, limited; without I/O |
//! | helper | the program run again with [`HELPER_ARG`]: one thread, does a plan, decides nothing |
//! | holder | a helper that stays and holds the namespaces of a pod |
//! | shim | a helper that stays beside a container, keeps its log and tells how it ended |
//! | store | images from `docker save` archives and OCI layouts, and `host`: the machine's own `/usr`, read-only |
//!
//! Containers do not depend on the agent: it may be killed and started again, and finds what runs in
//! [`NativeConfig::root`]. What the node cannot do is found by trying it when the runtime starts: without overlayfs images
//! are copied, without writable control groups there are no limits ([`NativeRuntime::limits`] says why), in a user
//! namespace with a single id another `runAsUser` is refused by its name.
//!
//! The first process of a container is number 1 of its process namespace, as under other runtimes: it waits for its
//! orphans itself, and a signal that it does not handle does not end it. With `shareProcessNamespace` the holder is number
//! 1 and waits for them.
//!
//! ```no_run
//! use std::sync::Arc;
//! use icp_node::backend::native::{LoopbackNetwork, NativeConfig, NativeRuntime, helper_main};
//!
//! fn main() -> std::process::ExitCode {
//!     if let Some(code) = helper_main(std::env::args_os()) {
//!         return code;
//!     }
//!     let config = NativeConfig::new("/var/lib/icp-node", Arc::new(LoopbackNetwork));
//!     let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
//!     tokio.block_on(async {
//!         let runtime = NativeRuntime::new(config).await.unwrap();
//!         println!("limits: {:?}", runtime.limits());
//!     });
//!     std::process::ExitCode::SUCCESS
//! }
//! ```

mod ask;
mod cgroup;
mod config;
mod container;
mod frame;
mod grpc;
mod helper;
mod image;
mod load;
mod log;
mod netprobe;
mod network;
mod plan;
mod pod;
mod record;
mod rooted;
mod runtime;
mod session;
mod start;
mod volume;
mod wait;

pub use cgroup::Limits;
pub use config::NativeConfig;
pub use helper::{HELPER_ARG, helper_main};
pub use network::{LoopbackNetwork, NetworkError, PodNetwork};
pub use runtime::{NativeError, NativeRuntime};
