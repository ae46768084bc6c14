//! Service account tokens: JSON web tokens signed with ES256 (RFC 7515, RFC 7518 §3.4).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde_json::{Value, json};

use crate::base::Time;

/// Why a token is not accepted, or a key not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The text is not a token of this kind.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// The signature is not of this server's key.
    #[error("the token's signature does not verify")]
    Signature,
    /// The token has ended or has not begun.
    #[error("the token is not valid at this time")]
    Time,
    /// The issuer or audience is another.
    #[error("the token is for another {0}")]
    Other(&'static str),
    /// The signing key is no PKCS#8 document of a P-256 key, or signing failed.
    #[error("the signing key cannot be used: {0}")]
    Key(String),
}

/// Signs and verifies service account tokens.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    id: String,
}

impl core::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The namespace of the service account.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The audiences.
    pub audiences: Vec<String>,
    /// The pod that the token is bound to: name and uid.
    pub pod: Option<(String, String)>,
    /// The secret of the account's namespace that the token is bound to: name and uid.
    pub secret: Option<(String, String)>,
    /// The node that the token is bound to: name and uid.
    pub node: Option<(String, String)>,
    /// The id of the token.
    pub id: String,
}

impl TokenKey {
    /// A fresh PKCS#8 document of a P-256 key, from the operating system's generator.
    ///
    /// # Errors
    /// [`TokenError::Key`] if the generator fails.
    pub fn generate() -> Result<Vec<u8>, TokenError> {
        let random = SystemRandom::new();
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map(|doc| doc.as_ref().to_vec())
            .map_err(|e| TokenError::Key(e.to_string()))
    }

    /// The key in a PKCS#8 document.
    ///
    /// # Errors
    /// [`TokenError::Key`] if it is none.
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, TokenError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document, &random)
            .map_err(|e| TokenError::Key(e.to_string()))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, pair.public_key().as_ref());
        Ok(Self { id: B64.encode(digest.as_ref()), pair, random })
    }

    /// The public key as a JSON web key set (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let coordinate = |range| B64.encode(point.get(range).unwrap_or_default());
        json!({ "keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": coordinate(1..33), "y": coordinate(33..65),
        }] })
    }

    /// Signs claims.
    ///
    /// # Errors
    /// [`TokenError::Key`] if the operating system's generator fails.
    pub fn sign(&self, claims: &Value) -> Result<String, TokenError> {
        let header = json!({ "alg": "ES256", "kid": self.id });
        let text = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
        let signature =
            self.pair.sign(&self.random, text.as_bytes()).map_err(|e| TokenError::Key(e.to_string()))?;
        Ok(format!("{text}.{}", B64.encode(signature.as_ref())))
    }

    /// Verifies a token for an issuer and any of some audiences at a time.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(
        &self,
        token: &str,
        issuer: &str,
        audiences: &[String],
        now: Time,
    ) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("no signature"))?;
        let (_, claims) = signed.split_once('.').ok_or(TokenError::Malformed("no claims"))?;
        let signature = B64.decode(signature).map_err(|_| TokenError::Malformed("signature"))?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        let claims = B64.decode(claims).map_err(|_| TokenError::Malformed("claims"))?;
        let claims: Value = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed("claims"))?;
        let number = |field: &str| claims.get(field).and_then(Value::as_i64);
        let text =
            |pointer: &str| claims.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string();
        if number("exp").is_none_or(|exp| exp <= now.as_secs())
            || number("nbf").is_some_and(|nbf| nbf > now.as_secs())
        {
            return Err(TokenError::Time);
        }
        if text("/iss") != issuer {
            return Err(TokenError::Other("issuer"));
        }
        let held: Vec<String> = match claims.get("aud") {
            Some(Value::String(one)) => alloc::vec![one.clone()],
            Some(Value::Array(many)) => {
                many.iter().filter_map(Value::as_str).map(ToString::to_string).collect()
            }
            _ => Vec::new(),
        };
        let audiences: Vec<String> = held.into_iter().filter(|a| audiences.contains(a)).collect();
        if audiences.is_empty() {
            return Err(TokenError::Other("audience"));
        }
        let bound = |kind: &str| {
            let name = text(&format!("/kubernetes.io/{kind}/name"));
            (!name.is_empty()).then(|| (name, text(&format!("/kubernetes.io/{kind}/uid"))))
        };
        Ok(Claims {
            namespace: text("/kubernetes.io/namespace"),
            name: text("/kubernetes.io/serviceaccount/name"),
            uid: text("/kubernetes.io/serviceaccount/uid"),
            audiences,
            pod: bound("pod"),
            secret: bound("secret"),
            node: bound("node"),
            id: text("/jti"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_token_verifies_for_its_issuer_audience_and_time_alone() {
        let key = TokenKey::from_pkcs8(&TokenKey::generate().unwrap()).unwrap();
        let claims = json!({"iss":"me","aud":["api"],"exp":100,"nbf":10,"sub":"system:serviceaccount:a:b",
            "kubernetes.io":{"namespace":"a","serviceaccount":{"name":"b","uid":"u"}}});
        let token = key.sign(&claims).unwrap();
        let aud = vec!["api".to_string()];
        let at = Time::from_secs(50);
        let got = key.verify(&token, "me", &aud, at).unwrap();
        assert_eq!((got.namespace.as_str(), got.name.as_str(), got.uid.as_str()), ("a", "b", "u"));
        assert_eq!(key.verify(&token, "you", &aud, at), Err(TokenError::Other("issuer")));
        assert_eq!(key.verify(&token, "me", &[], at), Err(TokenError::Other("audience")));
        assert_eq!(key.verify(&token, "me", &aud, Time::from_secs(100)), Err(TokenError::Time));
        let other = TokenKey::from_pkcs8(&TokenKey::generate().unwrap()).unwrap();
        assert_eq!(other.verify(&token, "me", &aud, at), Err(TokenError::Signature));
        let mut forged = token.clone();
        forged.insert(forged.find('.').unwrap() + 3, 'x');
        assert!(key.verify(&forged, "me", &aud, at).is_err());
    }
}
