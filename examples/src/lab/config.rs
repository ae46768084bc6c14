//! What a lab is made of.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::LabError;

/// The most machines of a lab; each has a network namespace and an init.
pub const MACHINES_MAX: usize = 250;

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Its name and host name: letters, digits and dashes, at most 63.
    pub name: String,
    /// Its address on `eth0`.
    pub address: Ipv4Addr,
}

impl MachineSpec {
    /// A machine.
    #[must_use]
    pub fn new(name: impl Into<String>, address: Ipv4Addr) -> Self {
        Self { name: name.into(), address }
    }
}

/// A listener of the host whose connections end inside the lab.
#[derive(Debug)]
pub struct Relay {
    /// Where the host's clients connect; see [`super::listen`].
    pub listener: TcpListener,
    /// The address in the lab, such as a virtual one, that each connection is carried to.
    pub to: SocketAddr,
}

/// A lab.
#[derive(Debug)]
pub struct LabConfig {
    /// Where the machines' directories and all logs are. It is made if it is missing, and never removed.
    pub state_dir: PathBuf,
    /// The network of all machines.
    pub subnet: Ipv4Net,
    /// The machines, all off at first.
    pub machines: Vec<MachineSpec>,
    /// What is carried from the host into the lab.
    pub relays: Vec<Relay>,
}

impl LabConfig {
    /// A lab without machines in 10.77.0.0/24.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        let subnet = Ipv4Net::new_assert(Ipv4Addr::new(10, 77, 0, 0), 24);
        Self { state_dir: state_dir.into(), subnet, machines: Vec::new(), relays: Vec::new() }
    }

    /// The bridge's address, where the machines send what is for no other machine: the last of the network.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.broadcast()).saturating_sub(1))
    }

    pub(super) fn check(&self) -> Result<(), LabError> {
        let fail = |detail: String| Err(LabError::Config { detail });
        if self.machines.len() > MACHINES_MAX {
            return fail(format!("{} machines; at most {MACHINES_MAX}", self.machines.len()));
        }
        if self.subnet.prefix_len() > 29 {
            return fail(format!("the network {} is too small: /29 at least", self.subnet));
        }
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::from([self.gateway(), self.subnet.network(), self.subnet.broadcast()]);
        for machine in &self.machines {
            let name = &machine.name;
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || name.len() > 63 || !name.chars().all(plain) || name.starts_with('-') {
                return fail(format!(
                    "{name:?} is no name of a machine: lower-case letters, digits and dashes"
                ));
            }
            if !names.insert(name) {
                return fail(format!("two machines are called {name}"));
            }
            if !self.subnet.contains(&machine.address) || !addresses.insert(machine.address) {
                return fail(format!("{name}: {} is taken or outside of {}", machine.address, self.subnet));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(machines: &[(&str, [u8; 4])]) -> Result<(), LabError> {
        let mut config = LabConfig::new("/nowhere");
        config.machines = machines.iter().map(|(n, a)| MachineSpec::new(*n, (*a).into())).collect();
        config.check()
    }

    #[test]
    fn machines_have_names_and_addresses_of_their_own() {
        with(&[("m1", [10, 77, 0, 1]), ("m2", [10, 77, 0, 2])]).unwrap();
        for wrong in [
            [("m1", [10, 77, 0, 1]), ("m1", [10, 77, 0, 2])],
            [("m1", [10, 77, 0, 1]), ("m2", [10, 77, 0, 1])],
            [("m1", [10, 77, 0, 1]), ("m2", [10, 78, 0, 2])],
            [("m1", [10, 77, 0, 1]), ("m2", [10, 77, 0, 254])],
            [("m1", [10, 77, 0, 1]), ("../m2", [10, 77, 0, 2])],
            [("m1", [10, 77, 0, 1]), ("", [10, 77, 0, 2])],
        ] {
            assert!(matches!(with(&wrong), Err(LabError::Config { .. })), "{wrong:?}");
        }
    }
}
