//! `/etc/resolv.conf` and `/etc/hosts`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{NodeFacts, hostname};
use crate::pod::Pod;
use crate::runtime::DnsConfig;

/// Most name servers and search domains (`MaxDNSNameservers`, `MaxDNSSearchPaths`).
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// The resolver configuration of a pod (`k8s.io/kubernetes/pkg/kubelet/network/dns/dns.go`).
#[must_use]
pub fn pod_dns(pod: &Pod, node: &NodeFacts) -> DnsConfig {
    let spec = &pod.spec;
    let cluster = match spec.dns_policy.as_str() {
        "ClusterFirstWithHostNet" => true,
        "Default" | "None" => false,
        _ => !spec.host_network,
    };
    let mut dns = if cluster && !node.cluster_dns.is_empty() {
        let (ns, domain) = (&pod.namespace, &node.cluster_domain);
        let mut searches = Vec::new();
        if !domain.is_empty() {
            searches = vec![format!("{ns}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        }
        searches.extend(node.host_dns.searches.iter().cloned());
        DnsConfig { servers: node.cluster_dns.clone(), searches, options: vec!["ndots:5".into()] }
    } else if spec.dns_policy == "None" {
        DnsConfig::default()
    } else {
        node.host_dns.clone()
    };
    if let Some(more) = &spec.dns_config {
        let add = |list: &mut Vec<String>, more: &[String]| {
            for item in more {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut dns.servers, &more.nameservers);
        add(&mut dns.searches, &more.searches);
        for option in &more.options {
            let text = match &option.value {
                Some(value) => format!("{}:{value}", option.name),
                None => option.name.clone(),
            };
            dns.options.retain(|o| o.split(':').next() != Some(option.name.as_str()));
            dns.options.push(text);
        }
    }
    dns.servers.truncate(SERVERS_MAX);
    dns.searches.truncate(SEARCHES_MAX);
    dns
}

/// The text of `/etc/resolv.conf`.
#[must_use]
pub fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

/// The text of `/etc/hosts`.
#[must_use]
pub fn hosts_file(pod: &Pod, ips: &[IpAddr], node: &NodeFacts) -> String {
    let mut text = String::from(if pod.spec.host_network {
        "# Kubernetes-managed hosts file (host network).\n"
    } else {
        "# Kubernetes-managed hosts file.\n"
    });
    text.push_str(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let (name, domain) = hostname(pod, node);
    for ip in ips {
        let ip = ip.to_string();
        if domain.is_empty() {
            text.push_str(&format!("{ip}\t{name}\n"));
        } else {
            let short = name.split('.').next().unwrap_or_default();
            text.push_str(&format!("{ip}\t{short}.{domain}\t{short}\n"));
        }
    }
    if !pod.spec.host_aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in &pod.spec.host_aliases {
            text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
        }
    }
    text
}
