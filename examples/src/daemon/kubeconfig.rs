//! Reaching the API servers as a kubeconfig file says.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use icp_core::shell::pki::Identity;
use icp_core::shell::{HttpClient, HttpConfig, tls};
use serde_json::Value;

use super::DaemonError;

/// A client for the current context of the file, with its certificate or token.
///
/// # Errors
/// If the file cannot be read, names what is not there, or holds a certificate that cannot be used.
pub fn client(path: &Path, user_agent: &str) -> Result<HttpClient, DaemonError> {
    let fail = |detail: String| DaemonError::Config { path: path.into(), detail };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let config: Value = serde_saphyr::from_str(&text).map_err(|e| fail(e.to_string()))?;
    let named = |list: &str, name: &str, part: &str| {
        let entries = config.get(list).and_then(Value::as_array).into_iter().flatten();
        let found =
            entries.filter(|e| e.get("name").and_then(Value::as_str) == Some(name)).find_map(|e| e.get(part));
        found.cloned().ok_or_else(|| fail(format!("{list}: {name:?} is missing")))
    };
    let text_of =
        |object: &Value, field: &str| object.get(field).and_then(Value::as_str).unwrap_or("").to_string();
    let context = named("contexts", &text_of(&config, "current-context"), "context")?;
    let cluster = named("clusters", &text_of(&context, "cluster"), "cluster")?;
    let user = named("users", &text_of(&context, "user"), "user")?;
    // The text of a PEM file, inline or beside the kubeconfig.
    let pem = |object: &Value, field: &str| -> Result<Option<String>, DaemonError> {
        let data = text_of(object, &format!("{field}-data"));
        if !data.is_empty() {
            let bytes = BASE64_STANDARD.decode(&data).map_err(|e| fail(format!("{field}-data: {e}")))?;
            return String::from_utf8(bytes).map(Some).map_err(|e| fail(format!("{field}-data: {e}")));
        }
        let file = text_of(object, field);
        if file.is_empty() {
            return Ok(None);
        }
        let file: PathBuf = path.parent().unwrap_or(Path::new(".")).join(file);
        std::fs::read_to_string(&file)
            .map(Some)
            .map_err(|e| fail(format!("{field}: {}: {e}", file.display())))
    };
    let identity = match (pem(&user, "client-certificate")?, pem(&user, "client-key")?) {
        (Some(certificate_pem), Some(key_pem)) => Some(Identity { certificate_pem, key_pem }),
        _ => None,
    };
    let server = text_of(&cluster, "server");
    let (endpoint, secure) = match (server.strip_prefix("https://"), server.strip_prefix("http://")) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => return Err(fail(format!("server: {server:?} is no http or https address"))),
    };
    let tls = match (secure, pem(&cluster, "certificate-authority")?) {
        (false, _) => None,
        (true, Some(ca)) => Some(tls::client(&ca, identity.as_ref(), &["h2"])?),
        (true, None) => return Err(fail("certificate-authority: Required value".into())),
    };
    let token = text_of(&user, "token");
    let name = text_of(&cluster, "tls-server-name");
    Ok(HttpClient::new(HttpConfig {
        endpoints: vec![endpoint.trim_end_matches('/').into()],
        tls,
        server_name: (!name.is_empty()).then_some(name),
        token: (!token.is_empty()).then_some(token),
        user_agent: format!("{user_agent}/{}", env!("CARGO_PKG_VERSION")),
    }))
}
