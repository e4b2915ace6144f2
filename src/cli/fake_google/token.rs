//! The token endpoint: a signed statement of the service account against an access token (RFC 7523).

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::clock::Clock;

const SCOPE: &str = "https://www.googleapis.com/auth/spreadsheets";

/// Gives out tokens.
pub(super) struct Issuer {
    public: Vec<u8>,
    audience: String,
    tokens: BTreeSet<String>,
    count: u64,
    /// Whether the key is refused.
    pub revoked: bool,
}

impl Issuer {
    pub fn new(private: &str, audience: String) -> Self {
        let pair = PrivatePkcs8KeyDer::from_pem_slice(private.as_bytes())
            .ok()
            .and_then(|der| RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok());
        let public = pair.map(|pair| pair.public_key().as_ref().to_vec()).unwrap_or_default();
        Self { public, audience, tokens: BTreeSet::new(), count: 0, revoked: false }
    }

    pub fn knows(&self, token: &str) -> bool {
        self.tokens.contains(token)
    }

    pub fn expire(&mut self) {
        self.tokens.clear();
    }

    /// Status and body of the answer to a form.
    pub fn issue(&mut self, form: &str) -> (u16, Value) {
        let field = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(form.as_bytes());
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        if field("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
            return (
                400,
                json!({"error": "unsupported_grant_type", "error_description": "Invalid grant_type"}),
            );
        }
        let refuse = |words: &str| (400, json!({"error": "invalid_grant", "error_description": words}));
        if self.revoked {
            return refuse("Invalid JWT Signature.");
        }
        let Some(claims) = self.verified(&field("assertion")) else {
            return refuse("Invalid JWT Signature.");
        };
        let now = now_secs();
        let (iat, exp) = (claims["iat"].as_i64().unwrap_or(0), claims["exp"].as_i64().unwrap_or(0));
        if (iat - now).abs() > 300 || exp <= now || exp - iat > 3_600 {
            let words =
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.";
            return refuse(words);
        }
        if claims["iss"] != super::EMAIL {
            return refuse("Invalid grant: account not found");
        }
        if claims["aud"] != self.audience.as_str() || claims["scope"] != SCOPE {
            return refuse("Invalid JWT: audience or scope.");
        }
        self.count += 1;
        let token = format!("ya29.fake-{}", self.count);
        self.tokens.insert(token.clone());
        (200, json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}))
    }

    fn verified(&self, assertion: &str) -> Option<Value> {
        let (signed, signature) = assertion.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        // Clients pad, though RFC 7515 does not.
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok();
        let head: Value = serde_json::from_slice(&decode(head)?).ok()?;
        if head["alg"] != "RS256" {
            return None;
        }
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public);
        key.verify(signed.as_bytes(), &decode(signature)?).ok()?;
        serde_json::from_slice(&decode(claims)?).ok()
    }
}

fn now_secs() -> i64 {
    Clock::system().now().millis() / 1_000
}
