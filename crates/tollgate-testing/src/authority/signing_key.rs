//! A key that signs tokens, made at run time.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::Signer as _;
use serde_json::{Value, json};

#[derive(Clone)]
pub(super) enum SigningKey {
    Es256(p256::ecdsa::SigningKey),
    Ed25519(ed25519_dalek::SigningKey),
}

impl SigningKey {
    pub(super) fn es256() -> Self {
        // Of 2^32 keys, one is not below the order of the curve.
        loop {
            if let Ok(key) = p256::ecdsa::SigningKey::from_slice(&random()) {
                return Self::Es256(key);
            }
        }
    }

    pub(super) fn ed25519() -> Self {
        Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(&random()))
    }

    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Es256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
            Self::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
        }
    }

    /// The public key (RFC 7517 section 4).
    pub(super) fn jwk(&self) -> Value {
        match self {
            Self::Es256(key) => {
                // 4, x and y (SEC 1, section 2.3.3).
                let point = key.verifying_key().to_sec1_point(false);
                let [x, y] = [1..33, 33..65].map(|part| URL_SAFE_NO_PAD.encode(&point.as_bytes()[part]));
                json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "x": x, "y": y})
            }
            Self::Ed25519(key) => {
                let x = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
                json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x})
            }
        }
    }
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}
