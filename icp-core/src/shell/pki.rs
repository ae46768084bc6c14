//! Certificates of a cluster: its authority, serving and client certificates, and kubeconfigs.
//!
//! ```
//! use icp_core::base::Time;
//! use icp_core::shell::pki::Authority;
//! let now: Time = "2026-11-24T00:00:00Z".parse().unwrap();
//! let ca = Authority::generate("icp", now).unwrap();
//! let server = ca.serving("kube-apiserver", &["127.0.0.1", "kubernetes.default.svc"], now).unwrap();
//! assert!(server.certificate_pem.contains("BEGIN CERTIFICATE"));
//! ```

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use crate::base::{Duration, Time};

/// How long an authority is valid.
const AUTHORITY_DAYS: u64 = 3_650;
/// How long a certificate is valid.
const CERTIFICATE_DAYS: u64 = 365;

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A name, key or request is malformed.
    #[error("{what}: {source}")]
    Certificate {
        /// What was being made or read.
        what: &'static str,
        /// What is wrong.
        source: rcgen::Error,
    },
}

fn at(what: &'static str) -> impl Fn(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate { what, source }
}

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key (PKCS#8).
    pub key_pem: String,
}

impl core::fmt::Debug for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Identity").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// A certificate authority.
pub struct Authority {
    identity: Identity,
    issuer: Issuer<'static, KeyPair>,
}

impl core::fmt::Debug for Authority {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Authority")
            .field("certificate_pem", &self.identity.certificate_pem)
            .finish_non_exhaustive()
    }
}

fn subject(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// Valid from the day before `now`, so that clocks may differ, until `days` after it.
fn validity(params: &mut CertificateParams, now: Time, days: u64) {
    let day = |time: Time| {
        let date = jiff::Timestamp::from_second(time.as_secs())
            .unwrap_or_default()
            .to_zoned(jiff::tz::TimeZone::UTC);
        let number = |n: i8| u8::try_from(n).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), number(date.month()), number(date.day()))
    };
    params.not_before = day(now - Duration::from_secs(86_400));
    params.not_after = day(now + Duration::from_secs(86_400 * days));
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// If no key can be generated.
    pub fn generate(common_name: &str, now: Time) -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(at("authority key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(common_name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature]
                .to_vec();
        validity(&mut params, now, AUTHORITY_DAYS);
        let certificate = params.self_signed(&key).map_err(at("authority certificate"))?;
        let identity = Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
        Ok(Self { identity, issuer: Issuer::new(params, key) })
    }

    /// An authority that was made before.
    ///
    /// # Errors
    /// If the PEM texts are no certificate and key.
    pub fn from_identity(identity: Identity) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(&identity.key_pem).map_err(at("authority key"))?;
        let issuer =
            Issuer::from_ca_cert_pem(&identity.certificate_pem, key).map_err(at("authority certificate"))?;
        Ok(Self { identity, issuer })
    }

    /// The authority's certificate in PEM, for those who trust it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.identity.certificate_pem
    }

    /// The authority's certificate and key, to be kept.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    fn issue(&self, mut params: CertificateParams, now: Time) -> Result<Identity, PkiError> {
        let key = KeyPair::generate().map_err(at("key"))?;
        validity(&mut params, now, CERTIFICATE_DAYS);
        params.key_usages = [KeyUsagePurpose::DigitalSignature].to_vec();
        let certificate = params.signed_by(&key, &self.issuer).map_err(at("certificate"))?;
        Ok(Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// A serving certificate for names and addresses. It opens nothing: a client that shows it is refused.
    ///
    /// # Errors
    /// If a name cannot stand in a certificate.
    pub fn serving(&self, common_name: &str, names: &[&str], now: Time) -> Result<Identity, PkiError> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).map_err(at("subject alternative names"))?;
        params.distinguished_name = subject(common_name, &[]);
        params.extended_key_usages = [ExtendedKeyUsagePurpose::ServerAuth].to_vec();
        self.issue(params, now)
    }

    /// A client certificate: the API server reads the user from the common name and the groups from the
    /// organizations.
    ///
    /// # Errors
    /// If no key can be generated.
    pub fn client(&self, user: &str, groups: &[&str], now: Time) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(user, groups);
        params.extended_key_usages = [ExtendedKeyUsagePurpose::ClientAuth].to_vec();
        self.issue(params, now)
    }

    /// Signs a certificate signing request in PEM as it stands; who calls this has approved its names.
    ///
    /// # Errors
    /// If it is no request, or asks for an extension that is not known.
    pub fn sign_request(&self, request_pem: &str, now: Time) -> Result<String, PkiError> {
        let mut request =
            CertificateSigningRequestParams::from_pem(request_pem).map_err(at("signing request"))?;
        validity(&mut request.params, now, CERTIFICATE_DAYS);
        let certificate = request.signed_by(&self.issuer).map_err(at("certificate"))?;
        Ok(certificate.pem())
    }

    /// The kubeconfig of a client (JSON, which is YAML).
    #[must_use]
    pub fn kubeconfig(&self, server: &str, cluster: &str, user: &str, identity: &Identity) -> String {
        let data = |text: &str| STANDARD.encode(text);
        let context = format!("{user}@{cluster}");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": context, "preferences": {},
            "clusters": [{ "name": cluster, "cluster": {
                "server": server, "certificate-authority-data": data(self.certificate_pem()) } }],
            "users": [{ "name": user, "user": {
                "client-certificate-data": data(&identity.certificate_pem),
                "client-key-data": data(&identity.key_pem) } }],
            "contexts": [{ "name": context, "context": { "cluster": cluster, "user": user } }],
        });
        let mut text = serde_json::to_string_pretty(&config).unwrap_or_default();
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_being_stored_and_signs_requests() {
        let now: Time = "2026-11-24T00:00:00Z".parse().unwrap();
        let ca = Authority::from_identity(Authority::generate("t", now).unwrap().identity().clone()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("system:node:w1", &["system:nodes"]);
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        assert!(ca.sign_request(&csr, now).unwrap().contains("BEGIN CERTIFICATE"));
        assert!(ca.sign_request("nonsense", now).is_err());
        let client = ca.client("u", &["g"], now).unwrap();
        let config: serde_json::Value =
            serde_json::from_str(&ca.kubeconfig("https://127.0.0.1:1", "c", "u", &client)).unwrap();
        assert_eq!(config["current-context"], "u@c");
    }
}
