//! The file that says who resolves names (`resolv.conf(5)`).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// Most servers and search domains that are read; more are left out.
const ENTRIES_MAX: usize = 32;
/// The port of DNS.
pub const PORT: u16 = 53;

/// What a `resolv.conf` says.
///
/// ```
/// use icp_net::dns::ResolvConf;
/// let conf = ResolvConf::parse("search a.b c\nnameserver 10.0.0.2\n; no\nnameserver ::1\noptions ndots:5 edns0\n");
/// assert_eq!(conf.servers.len(), 2);
/// assert_eq!((conf.search.len(), conf.ndots), (2, 5));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// The servers, in order, at port 53.
    pub servers: Vec<SocketAddr>,
    /// The domains to look in; the last `search` or `domain` line counts.
    pub search: Vec<String>,
    /// How many dots a name has that is tried as it stands first; at most 15.
    pub ndots: u8,
}

impl ResolvConf {
    /// Reads the text of the file. A line that is not of its form says nothing, as resolvers take it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut conf = Self { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            // A comment begins at the start of a line, or of a word behind what counts.
            let words = line.split_ascii_whitespace().take_while(|w| !w.starts_with(['#', ';']));
            let words: Vec<&str> = words.collect();
            match words.as_slice() {
                ["nameserver", server, ..] => {
                    let address = server.split('%').next().and_then(|w| w.parse::<IpAddr>().ok());
                    if let (Some(ip), true) = (address, conf.servers.len() < ENTRIES_MAX) {
                        conf.servers.push(SocketAddr::new(ip, PORT));
                    }
                }
                ["search" | "domain", domains @ ..] => {
                    conf.search = domains.iter().take(ENTRIES_MAX).map(ToString::to_string).collect();
                }
                ["options", options @ ..] => {
                    let dots = options.iter().filter_map(|o| o.strip_prefix("ndots:"));
                    if let Some(dots) = dots.filter_map(|d| d.parse::<u8>().ok()).next_back() {
                        conf.ndots = dots.min(15);
                    }
                }
                _ => {}
            }
        }
        conf
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn reads_what_resolvers_read() {
        let conf = ResolvConf::parse(
            "# nameserver 1.1.1.1\n nameserver  9.9.9.9  # comment\nnameserver fe80::1%eth0\nnameserver x\n\
             domain old\nsearch default.svc.cluster.local svc.cluster.local\noptions timeout:1 ndots:99\n",
        );
        assert_eq!(conf.servers, vec!["9.9.9.9:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()]);
        assert_eq!(conf.search, ["default.svc.cluster.local", "svc.cluster.local"]);
        assert_eq!(conf.ndots, 15);
        assert_eq!(ResolvConf::parse("").ndots, 1);
        assert_eq!(ResolvConf::parse(&"nameserver 1.1.1.1\n".repeat(99)).servers.len(), ENTRIES_MAX);
    }
}
