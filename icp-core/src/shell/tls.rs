//! rustls configurations from PEM texts.

use alloc::sync::Arc;
use alloc::vec::Vec;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::pki::Identity;

/// Why a configuration could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A text is not PEM of the expected kind.
    #[error("{what}: {source}")]
    Pem {
        /// What was being read.
        what: &'static str,
        /// What is wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// The certificates and keys do not make a configuration.
    #[error("TLS configuration: {0}")]
    Config(#[from] rustls::Error),
    /// The client authorities do not make a verifier.
    #[error("client certificate verifier: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.map_err(|source| TlsError::Pem { what, source })
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|source| TlsError::Pem { what: "private key", source })
}

fn roots(ca_pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem, "certificate authority")? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// A server that shows `identity` and asks for client certificates of `client_ca_pem`, without insisting.
///
/// # Errors
/// If a PEM text is malformed or key and certificate do not fit.
pub fn server(identity: &Identity, client_ca_pem: Option<&str>) -> Result<Arc<ServerConfig>, TlsError> {
    serving(identity, client_ca_pem, false)
}

/// A server that shows `identity` and talks only to clients that show a certificate of `client_ca_pem`.
///
/// # Errors
/// As [`server`].
pub fn server_mutual(identity: &Identity, client_ca_pem: &str) -> Result<Arc<ServerConfig>, TlsError> {
    serving(identity, Some(client_ca_pem), true)
}

fn serving(
    identity: &Identity,
    client_ca_pem: Option<&str>,
    insist: bool,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match client_ca_pem {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider());
            let verifier = if insist { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let chain = certificates(&identity.certificate_pem, "serving certificate")?;
    let mut config = builder.with_single_cert(chain, key(&identity.key_pem)?)?;
    config.alpn_protocols = [b"h2".to_vec(), b"http/1.1".to_vec()].to_vec();
    Ok(Arc::new(config))
}

/// A client that trusts `ca_pem` and shows `identity`, if it has one. `protocols` is what it offers by ALPN.
///
/// # Errors
/// If a PEM text is malformed or key and certificate do not fit.
pub fn client(
    ca_pem: &str,
    identity: Option<&Identity>,
    protocols: &[&str],
) -> Result<Arc<ClientConfig>, TlsError> {
    client_trusting(Some(ca_pem), identity, protocols)
}

/// The same; without an authority it takes any certificate.
///
/// # Errors
/// As [`client`].
pub fn client_trusting(
    ca_pem: Option<&str>,
    identity: Option<&Identity>,
    protocols: &[&str],
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match ca_pem {
        Some(pem) => builder.with_root_certificates(roots(pem)?),
        None => {
            let verifier = AnyCertificate(provider().signature_verification_algorithms);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(&identity.certificate_pem, "client certificate")?;
            builder.with_client_auth_cert(chain, key(&identity.key_pem)?)?
        }
    };
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client that takes any certificate, for targets whose authority nobody knows (`https` in the `proxy` subresource
/// of pods and services). It shows none of its own.
///
/// # Errors
/// If the TLS library does not offer the usual versions.
pub fn client_unverified(protocols: &[&str]) -> Result<Arc<ClientConfig>, TlsError> {
    client_trusting(None, None, protocols)
}

/// Checks that the peer holds the key of its certificate, and nothing else.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> alloc::vec::Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
