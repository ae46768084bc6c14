//! The objects that every cluster has, created at the first request if they are missing.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::context::Context;
use super::write::Change;
use super::{ApiServer, failure, store};
use crate::api::{Status, reason, set_at, table};

mod roles;

/// The namespaces that exist before anybody makes one.
const NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

fn system_objects() -> Vec<Value> {
    let mut objects: Vec<Value> = NAMESPACES
        .iter()
        .map(|name| {
            json!({"apiVersion": "v1", "kind": "Namespace",
                   "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } }})
        })
        .collect();
    for (name, value, what) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        objects.push(json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": { "name": name }, "value": value, "description": what,
            "preemptionPolicy": "PreemptLowerPriority" }));
    }
    objects.extend(roles::objects());
    objects
}

impl ApiServer {
    /// Creates what is missing. Several servers may do so at once: whoever is second finds it there.
    pub(super) async fn bootstrap(&self) -> Result<(), Status> {
        // What is written last tells that all was written.
        let kubernetes = self.object(&crate::api::resources::SERVICES, "default", "kubernetes").await?;
        if kubernetes.is_none() {
            for object in system_objects() {
                self.ensure(object).await?;
            }
        }
        let options = self.options();
        let address = first_service_address(&options.service_cidr);
        if let (None, Some(address)) = (kubernetes, address) {
            self.ensure(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": { "name": "kubernetes", "namespace": "default",
                              "labels": { "component": "apiserver", "provider": "kubernetes" } },
                "spec": { "type": "ClusterIP", "clusterIP": address.to_string(), "sessionAffinity": "None",
                          "ports": [{ "name": "https", "port": 443, "protocol": "TCP",
                                      "targetPort": options.secure_port }] },
            }))
            .await?;
        }
        self.publish_endpoints().await
    }

    async fn ensure(&self, object: Value) -> Result<(), Status> {
        let text = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or("").to_string();
        let (api_version, kind) = (text("/apiVersion"), text("/kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let Some(info) = table::find_kind(group, version, &kind) else {
            return Err(failure::internal(format!("{kind} is not in the resource table")));
        };
        let mut context = Context::internal(self, info, &text("/metadata/namespace"), "");
        match context.insert(object, true).await {
            Err(status) if !status.is(reason::ALREADY_EXISTS) => Err(status),
            _ => Ok(()),
        }
    }

    /// Leads the `kubernetes` service to the addresses of the API servers.
    async fn publish_endpoints(&self) -> Result<(), Status> {
        let options = self.options();
        if options.advertise_addresses.is_empty() {
            return Ok(());
        }
        let addresses: Vec<_> = options.advertise_addresses.iter().map(ToString::to_string).collect();
        let family =
            if options.advertise_addresses.iter().all(core::net::IpAddr::is_ipv4) { "IPv4" } else { "IPv6" };
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "kubernetes", "namespace": "default",
                          "labels": { "kubernetes.io/service-name": "kubernetes" } },
            "addressType": family,
            "endpoints": addresses.iter().map(|a| json!({
                "addresses": [a], "conditions": { "ready": true } })).collect::<Vec<_>>(),
            "ports": [{ "name": "https", "port": options.secure_port, "protocol": "TCP" }],
        });
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": { "name": "kubernetes", "namespace": "default",
                          "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } },
            "subsets": [{
                "addresses": addresses.iter().map(|a| json!({ "ip": a })).collect::<Vec<_>>(),
                "ports": [{ "name": "https", "port": options.secure_port, "protocol": "TCP" }],
            }],
        });
        for (gvr, object) in
            [(crate::api::resources::ENDPOINT_SLICES, slice), (crate::api::resources::ENDPOINTS, endpoints)]
        {
            self.ensure(object.clone()).await?;
            let info = store::builtin(&gvr).ok_or_else(failure::no_such_path)?;
            let mut context = Context::internal(self, info, "default", "kubernetes");
            let fields = ["endpoints", "ports", "subsets", "addressType"];
            let change = Change::With(Box::new(move |old| {
                let mut new = old.clone();
                for field in fields {
                    if let Some(value) = object.get(field) {
                        set_at(&mut new, &[field], value.clone());
                    }
                }
                Ok(new)
            }));
            context.change(&change).await?;
        }
        Ok(())
    }
}

/// The address of the `kubernetes` service: the first of the range.
fn first_service_address(cidr: &ipnet::IpNet) -> Option<core::net::IpAddr> {
    cidr.hosts().next()
}
