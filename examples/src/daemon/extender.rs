//! Calls of a scheduler's extenders, over HTTP or HTTPS.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use icp_core::base::Duration;
use icp_core::shell::host::Mailbox;
use icp_core::shell::pki::Identity;
use icp_core::shell::post::{self, Tls};
use icp_core::shell::tls;
use icp_sched::config::{ExtenderConfiguration, TlsConfig};
use icp_sched::extender::{ExtenderAnswer, ExtenderCall};
use icp_sched::machine::Event;

use super::DaemonError;

/// Where systems keep the authorities that they trust, as Go looks for them.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How the extenders of a configuration are reached, in its order.
#[derive(Clone, Debug, Default)]
pub struct Extenders(Arc<[Option<Tls>]>);

impl Extenders {
    /// Reads the certificates that the configuration `file` names.
    ///
    /// # Errors
    /// If one is missing or cannot be used, with its field.
    pub fn of(extenders: &[ExtenderConfiguration], file: &Path) -> Result<Self, DaemonError> {
        let one = |(at, extender): (usize, &ExtenderConfiguration)| {
            let fail = |(field, detail): (&str, String)| DaemonError::Config {
                path: file.into(),
                detail: format!("extenders[{at}].{field}: {detail}"),
            };
            let secure = extender.url_prefix.starts_with("https://");
            secure.then(|| tls_of(extender)).transpose().map_err(fail)
        };
        let all: Result<Vec<Option<Tls>>, DaemonError> = extenders.iter().enumerate().map(one).collect();
        Ok(Self(all?.into()))
    }

    /// Posts a JSON document to an extender; answers with the status code and the body.
    ///
    /// # Errors
    /// As [`post::json_over`].
    pub async fn post(
        &self,
        extender: usize,
        url: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<(u16, Vec<u8>), String> {
        post::json_over(url, body, timeout, self.0.get(extender).and_then(Option::as_ref)).await
    }

    /// Makes a call, and tells the machine what came back.
    pub async fn ask(self, call: ExtenderCall, mailbox: Mailbox<Event>) {
        let answer = self.post(call.extender, &call.url, call.body, call.timeout).await;
        let answer = answer.map(|(code, body)| ExtenderAnswer { code, body });
        mailbox.send(Event::Extender { id: call.id, answer }).await;
    }
}

/// The PEM text of an inline field, or else of a file.
fn pem(
    data: (&'static str, &str),
    file: (&'static str, &str),
) -> Result<Option<String>, (&'static str, String)> {
    if !data.1.is_empty() {
        let bytes = BASE64_STANDARD.decode(data.1).map_err(|e| (data.0, e.to_string()))?;
        return String::from_utf8(bytes).map(Some).map_err(|e| (data.0, e.to_string()));
    }
    if file.1.is_empty() {
        return Ok(None);
    }
    std::fs::read_to_string(file.1).map(Some).map_err(|e| (file.0, format!("{}: {e}", file.1)))
}

fn tls_of(extender: &ExtenderConfiguration) -> Result<Tls, (&'static str, String)> {
    let none = TlsConfig::default();
    let config = extender.tls.as_ref().unwrap_or(&none);
    let ([cert_file, key_file, ca_file], [cert_data, key_data, ca_data]) = (&config.files, &config.data);
    let ca = pem(("tlsConfig.caData", ca_data), ("tlsConfig.caFile", ca_file))?;
    if ca.as_ref().is_some_and(|pem| !pem.contains("-----BEGIN CERTIFICATE-----")) {
        return Err(("tlsConfig", "unable to load root certificates: no certificate is among them".into()));
    }
    let cert = pem(("tlsConfig.certData", cert_data), ("tlsConfig.certFile", cert_file))?;
    let key = pem(("tlsConfig.keyData", key_data), ("tlsConfig.keyFile", key_file))?;
    let identity = cert.zip(key).map(|(certificate_pem, key_pem)| Identity { certificate_pem, key_pem });
    // Without an authority, `enableHTTPS` takes any certificate, as upstream.
    let any = config.insecure || (extender.enable_https && ca.is_none());
    let trusted = match (any, ca) {
        (true, _) => None,
        (false, Some(ca)) => Some(ca),
        (false, None) => Some(system_roots()?),
    };
    let config_of = tls::client_trusting(trusted.as_deref(), identity.as_ref(), &["http/1.1"]);
    let config_of = config_of.map_err(|e| ("tlsConfig", e.to_string()))?;
    let server_name = (!config.server_name.is_empty()).then(|| config.server_name.clone());
    Ok(Tls { config: config_of, server_name })
}

fn system_roots() -> Result<String, (&'static str, String)> {
    let found = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read_to_string(path).ok());
    found.ok_or_else(|| ("tlsConfig.caFile", "Required value: this system has no list of authorities".into()))
}
