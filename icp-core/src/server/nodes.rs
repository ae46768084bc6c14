//! Requests that go on to kubelets and pods.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;

use super::client::wire::percent_encode;
use super::context::Context;
use super::{Body, ProxyTarget, failure};
use crate::api::resources::{ENDPOINT_SLICES, NODES, PODS};
use crate::api::{Status, reason};

/// The kubelet's port where a node tells none.
const KUBELET_PORT: u16 = 10_250;
/// Most bytes of a kubelet's refusal that are told on.
const REFUSAL_BYTES_MAX: usize = 2_000;

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// `[scheme:]name[:port]`, as the `proxy` subresource names its target.
fn split_name(name: &str) -> (&str, &str, &str) {
    match name.split(':').collect::<Vec<_>>().as_slice() {
        [name, port] => ("http", name, port),
        [scheme, name, port] => (if scheme.is_empty() { "http" } else { scheme }, name, port),
        _ => ("http", name, ""),
    }
}

/// Whether the API server may be sent to an address of the pod network: not to itself, nor to the services that a
/// cloud offers to its own machine (`apimachinery/pkg/util/proxy` `IsProxyableIP`).
fn is_proxyable(address: &str) -> bool {
    match address.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => {
            !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified() && !ip.is_multicast()
        }
        Ok(IpAddr::V6(ip)) => {
            !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified() && !ip.is_multicast()
        }
        Err(_) => false,
    }
}

/// The container that a log, exec or attach means.
fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let name = text(pod, "/metadata/name");
    let all = ["containers", "initContainers", "ephemeralContainers"];
    let names = |field: &str| {
        let list =
            pod.pointer(&format!("/spec/{field}")).and_then(Value::as_array).cloned().unwrap_or_default();
        list.into_iter().map(|c| text(&c, "/name").to_string()).collect::<Vec<_>>()
    };
    if !asked.is_empty() {
        if all.iter().any(|field| names(field).iter().any(|n| n == asked)) {
            return Ok(asked.to_string());
        }
        return Err(failure::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    let main = names("containers");
    match main.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(failure::bad_request(format!("a container name must be specified for pod {name}"))),
        many => {
            let annotation = pod
                .pointer("/metadata/annotations")
                .and_then(|a| a.get("kubectl.kubernetes.io/default-container"))
                .and_then(Value::as_str);
            match annotation.filter(|a| many.iter().any(|n| n == a)) {
                Some(chosen) => Ok(chosen.to_string()),
                None => Err(failure::bad_request(format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    many.join(" ")
                ))),
            }
        }
    }
}

impl Context {
    pub(super) async fn forward(self, request: Request<Bytes>) -> Result<Response<Body>, Status> {
        let (target, path) = match (self.info.kind.as_str(), self.request.subresource.as_str()) {
            ("Node", _) => (self.kubelet(&self.request.name).await?, self.request.tail.clone()),
            ("Service", _) => (self.service_target().await?, self.request.tail.clone()),
            ("Pod", "proxy") => (self.pod_target().await?, self.request.tail.clone()),
            (_, subresource) => {
                let pod = self.current().await?;
                let node = text(&pod, "/spec/nodeName");
                if node.is_empty() {
                    let message = format!("pod {} does not have a host assigned", self.request.name);
                    return Err(failure::bad_request(message));
                }
                (self.kubelet(node).await?, self.kubelet_path(&pod, subresource)?)
            }
        };
        let query = self.kubelet_query();
        let path = if path.is_empty() { "/".to_string() } else { path };
        let uri = if query.is_empty() { path } else { format!("{path}?{query}") };
        let (mut parts, body) = request.into_parts();
        parts.uri = uri.parse::<Uri>().map_err(|e| failure::bad_request(format!("path {uri:?}: {e}")))?;
        parts.headers.remove(AUTHORIZATION);
        let impersonation: Vec<HeaderName> =
            parts.headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
        for name in impersonation {
            parts.headers.remove(name);
        }
        let answer = self.server.0.nodes.forward(target, Request::from_parts(parts, body)).await?;
        if self.request.subresource == "log" && answer.status().as_u16() >= 300 {
            return Err(self.refused_log(answer).await);
        }
        Ok(answer)
    }

    /// A kubelet's plain-text refusal as a status (`rest.GenericHttpResponseChecker`).
    async fn refused_log(&self, answer: Response<Body>) -> Status {
        let code = answer.status().as_u16();
        let text = match Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(_) => String::new(),
        };
        let what = format!("( pods/log {})", self.request.name);
        match code {
            500 => failure::internal(text),
            400 => failure::bad_request(text),
            404 => {
                let message = format!("the server could not find the requested resource {what}");
                Status::failure(404, reason::NOT_FOUND, message)
            }
            _ => {
                let message = format!(
                    "the server responded with the status code {code} but did not return more information {what}"
                );
                Status::failure(code, "", message)
            }
        }
    }

    /// The kubelet's own path of a pod's subresource (`pkg/registry/core/pod/strategy.go`).
    fn kubelet_path(&self, pod: &Value, subresource: &str) -> Result<String, Status> {
        let (ns, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        if subresource == "portforward" {
            return Ok(format!("/portForward/{ns}/{name}"));
        }
        let container = container(pod, self.query.text("container"))?;
        let verb = if subresource == "log" { "containerLogs" } else { subresource };
        Ok(format!("/{verb}/{ns}/{name}/{container}"))
    }

    /// The query as the kubelet reads it.
    fn kubelet_query(&self) -> String {
        let rename = |key: &str| match key {
            "stdin" => "input".to_string(),
            "stdout" => "output".to_string(),
            "stderr" => "error".to_string(),
            other => other.to_string(),
        };
        let streams = matches!(self.request.subresource.as_str(), "exec" | "attach");
        let mut out = String::new();
        for (key, value) in self.query.pairs() {
            if self.request.subresource != "proxy" && key == "container" {
                continue;
            }
            if !out.is_empty() {
                out.push('&');
            }
            percent_encode(&if streams { rename(key) } else { key.to_string() }, &mut out);
            out.push('=');
            let flag = streams && matches!(key, "stdin" | "stdout" | "stderr" | "tty");
            percent_encode(if flag && value == "true" { "1" } else { value }, &mut out);
        }
        out
    }

    async fn kubelet(&self, node: &str) -> Result<ProxyTarget, Status> {
        let (_, name, port) = split_name(node);
        let Some(object) = self.server.object(&NODES, "", name).await? else {
            let info = super::store::builtin(&NODES).ok_or_else(failure::no_such_path)?;
            return Err(failure::not_found(info, name));
        };
        let addresses =
            object.pointer("/status/addresses").and_then(Value::as_array).cloned().unwrap_or_default();
        let of =
            |kind: &str| addresses.iter().find(|a| text(a, "/type") == kind).map(|a| text(a, "/address"));
        let told = object.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
        let told = told.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
        Ok(ProxyTarget::Kubelet {
            node: name.to_string(),
            address: of("InternalIP").or_else(|| of("Hostname")).map(ToString::to_string),
            port: port.parse().ok().or(told).unwrap_or(KUBELET_PORT),
        })
    }

    async fn pod_target(&self) -> Result<ProxyTarget, Status> {
        let (scheme, name, port) = split_name(&self.request.name);
        let Some(pod) = self.server.object(&PODS, self.namespace(), name).await? else {
            return Err(failure::not_found(&self.info, name));
        };
        let ip = text(&pod, "/status/podIP");
        if ip.is_empty() {
            return Err(failure::bad_request("address not allowed: the pod has no address yet"));
        }
        if !is_proxyable(ip) {
            return Err(failure::bad_request("address not allowed"));
        }
        let first = pod.pointer("/spec/containers/0/ports/0/containerPort").and_then(Value::as_u64);
        let first = first.and_then(|p| u16::try_from(p).ok());
        Ok(ProxyTarget::Address {
            scheme: scheme.to_string(),
            host: ip.to_string(),
            port: port.parse().ok().or(first).unwrap_or(80),
            node: text(&pod, "/spec/nodeName").to_string(),
        })
    }

    /// A ready endpoint of a service.
    async fn service_target(&self) -> Result<ProxyTarget, Status> {
        let (scheme, name, port) = split_name(&self.request.name);
        let slices = self.server.objects(&ENDPOINT_SLICES, Some(self.namespace())).await?;
        let of = |s: &&Value| {
            s.pointer("/metadata/labels")
                .and_then(|l| l.get("kubernetes.io/service-name"))
                .and_then(Value::as_str)
                == Some(name)
        };
        for slice in slices.iter().filter(of) {
            let ports = slice.get("ports").and_then(Value::as_array).cloned().unwrap_or_default();
            let chosen = ports.iter().find(|p| {
                port.is_empty()
                    || text(p, "/name") == port
                    || p.get("port").map(ToString::to_string).as_deref() == Some(port)
            });
            let number = chosen.and_then(|p| p.get("port")).and_then(Value::as_u64);
            let Some(number) = number.and_then(|n| u16::try_from(n).ok()) else { continue };
            let endpoints = slice.get("endpoints").and_then(Value::as_array).cloned().unwrap_or_default();
            let ready =
                endpoints.iter().find(|e| e.pointer("/conditions/ready") != Some(&Value::Bool(false)));
            if let Some(endpoint) = ready {
                if !is_proxyable(text(endpoint, "/addresses/0")) {
                    return Err(failure::bad_request("address not allowed"));
                }
                return Ok(ProxyTarget::Address {
                    scheme: scheme.to_string(),
                    host: text(endpoint, "/addresses/0").to_string(),
                    port: number,
                    node: text(endpoint, "/nodeName").to_string(),
                });
            }
        }
        let message = format!("no endpoints available for service {name:?}");
        Err(Status::failure(503, reason::SERVICE_UNAVAILABLE, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_carry_scheme_and_port() {
        assert_eq!(split_name("web"), ("http", "web", ""));
        assert_eq!(split_name("web:80"), ("http", "web", "80"));
        assert_eq!(split_name("https:web:443"), ("https", "web", "443"));
    }

    #[test]
    fn the_api_server_is_not_sent_to_itself() {
        for address in ["10.1.0.7", "192.168.0.1", "fd00::1"] {
            assert!(is_proxyable(address), "{address}");
        }
        for address in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "224.0.0.1",
            "web",
            "",
        ] {
            assert!(!is_proxyable(address), "{address}");
        }
    }

    #[test]
    fn the_container_must_be_clear() {
        let pod = json!({"metadata":{"name":"p"},"spec":{"containers":[{"name":"a"},{"name":"b"}]}});
        assert_eq!(container(&pod, "b").unwrap(), "b");
        let error = container(&pod, "").unwrap_err();
        assert_eq!(error.message, "a container name must be specified for pod p, choose one of: [a b]");
        assert!(container(&pod, "c").is_err());
    }
}
