//! Machines out of namespaces: a small network of Linux systems in one process tree, for root and for plain users.
//!
//! A machine has its own processes, mounts, host name and network; `eth0` of all machines hangs on one bridge. Each has
//! `/run` for itself and a directory of its own at `/var/lib/icp`, which outlives power-off; all else of the file
//! system is that of the host. [`LabHandle`] powers machines on and off, pulls their cables, starts and kills programs
//! in them and opens sockets in their networks, from a program that may have threads. Host clients reach an address
//! inside through a [`Relay`].
//!
//! Who does what:
//! - the *host*: the program that calls [`Lab::start`];
//! - the *guard*: makes the namespaces, waits, cleans up when either side is gone;
//! - the *root*: first process of the lab; owns the bridge and the machines, and dials for the host;
//! - an *init* a machine: starts and reaps its programs.
//!
//! Nothing outlives the host, however it ends: the guard sees it go and kills the root, and with the first process of
//! a process namespace the kernel kills all others. The host talks to the root and to each init over sockets of its
//! own; all of them have one thread, as `unshare` and `setns` want it.
//!
//! All these are this very executable under a hidden first argument, so that the first line of `main` must be
//! [`dispatch`]. Programs of the user of this module run the same way:
//!
//! ```no_run
//! use std::net::Ipv4Addr;
//! use std::process::ExitCode;
//! use std::time::Duration;
//! use examples::lab::{Lab, LabConfig, LabError, MachineSpec, Place, Relay, Signal, Spawn, dispatch, listen};
//!
//! fn hello(args: Vec<String>) -> ExitCode {
//!     println!("hello {args:?} from {}", std::process::id());
//!     ExitCode::SUCCESS
//! }
//!
//! fn main() -> ExitCode {
//!     if let Some(code) = dispatch(&[("hello", hello)]) {
//!         return code;
//!     }
//!     match run() {
//!         Ok(()) => ExitCode::SUCCESS,
//!         Err(e) => {
//!             eprintln!("{e}");
//!             ExitCode::FAILURE
//!         }
//!     }
//! }
//!
//! fn run() -> Result<(), LabError> {
//!     let listener = listen("127.0.0.1:6443".parse().unwrap())?;
//!     let mut config = LabConfig::new("/tmp/my-lab");
//!     config.machines = vec![
//!         MachineSpec::new("m1", Ipv4Addr::new(10, 77, 0, 1)),
//!         MachineSpec::new("m2", Ipv4Addr::new(10, 77, 0, 2)),
//!     ];
//!     config.relays = vec![Relay { listener, to: "10.77.0.100:6443".parse().unwrap() }];
//!     let mut lab = Lab::start(config)?;
//!
//!     let runtime = tokio::runtime::Runtime::new().map_err(|source| LabError::Io { what: "runtime".into(), source })?;
//!     runtime.block_on(async {
//!         let lab = lab.connect()?;
//!         lab.power_on("m1").await?;
//!         let process = lab.spawn("m1", Spawn::role("hello").arg("you")).await?; // logs/m1-hello.log
//!         assert!(process.wait().await.success());
//!         let sleeper = lab.spawn("m1", Spawn::program("sleep").arg("100")).await?;
//!         sleeper.kill(Signal::KILL).await?;
//!         let address = lab.exec("m1", Spawn::program("ip").args(["addr"]), Duration::from_secs(5)).await?;
//!         println!("{}", address.text());
//!         let stream = lab.tcp_connect(Place::Machine("m1"), "10.77.0.100:6443".parse().unwrap()).await;
//!         drop(stream);
//!         lab.power_off("m1").await
//!     })?;
//!     lab.stop()
//! }
//! ```

mod cgroup;
mod config;
mod error;
mod guard;
mod handle;
mod host;
mod init;
mod link;
mod net;
mod process;
mod relay;
mod role;
mod root;
mod sys;
mod wire;

pub use config::{LabConfig, MACHINES_MAX, MachineSpec, Relay};
pub use error::LabError;
pub use handle::{LabEvent, LabHandle, Place};
pub use host::{Lab, listen, probe};
pub use link::Process;
pub use process::{Exit, OUTPUT_BYTES_MAX, Output, Program, Spawn};
pub use role::{Role, dispatch};
/// What a process is sent.
pub use rustix::process::Signal;
