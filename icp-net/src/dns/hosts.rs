//! A hosts file (the plugin `hosts` of CoreDNS).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::wire::Name;

/// Most lines that are read; more are left out.
const LINES_MAX: usize = 100_000;

/// The names and addresses of a hosts file.
///
/// ```
/// use icp_net::dns::Hosts;
/// let hosts = Hosts::parse("127.0.0.1 localhost me # here\n::1 localhost\nnonsense\n", 3600);
/// assert_eq!(hosts.addresses(&"LOCALHOST".parse()?).len(), 2);
/// assert_eq!(hosts.names("127.0.0.1".parse().unwrap()).len(), 2);
/// # Ok::<(), icp_net::dns::wire::NameError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// By names in lower case.
    forward: BTreeMap<Vec<u8>, Vec<IpAddr>>,
    reverse: BTreeMap<IpAddr, Vec<Name>>,
    ttl_secs: u32,
}

impl Hosts {
    /// Reads the text of a hosts file: an address and its names a line, `#` before a comment. A line that is not
    /// of this form says nothing. Clients may keep the records for `ttl_secs` seconds (CoreDNS: 3600).
    #[must_use]
    pub fn parse(text: &str, ttl_secs: u32) -> Self {
        let mut hosts = Self { ttl_secs, ..Self::default() };
        for line in text.lines().take(LINES_MAX) {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            // A zone of a link-local address means nothing elsewhere.
            let address = words.next().and_then(|w| w.split('%').next()).and_then(|w| w.parse().ok());
            let Some(ip) = address else { continue };
            for name in words.filter_map(|w| w.parse::<Name>().ok()).map(|n| n.to_lowercase()) {
                let ips = hosts.forward.entry(name.as_wire().into()).or_default();
                if !ips.contains(&ip) {
                    ips.push(ip);
                }
                let names = hosts.reverse.entry(ip).or_default();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        hosts
    }

    /// Whether the file names nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.forward.is_empty()
    }

    /// How long clients may keep the records, in seconds.
    #[must_use]
    pub const fn ttl_secs(&self) -> u32 {
        self.ttl_secs
    }

    /// The addresses of a name, in the order of the file.
    #[must_use]
    pub fn addresses(&self, name: &Name) -> &[IpAddr] {
        self.by_wire(name.to_lowercase().as_wire()).unwrap_or_default()
    }

    /// The names of an address, in the order of the file, in lower case.
    #[must_use]
    pub fn names(&self, ip: IpAddr) -> &[Name] {
        self.reverse.get(&ip).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn by_wire(&self, lower: &[u8]) -> Option<&[IpAddr]> {
        self.forward.get(lower).map(Vec::as_slice)
    }
}
