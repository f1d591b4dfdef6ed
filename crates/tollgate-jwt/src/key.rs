//! One key that verifies tokens.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto::rust_crypto::DEFAULT_PROVIDER};
use serde_json::{Map, Value};

use crate::algorithm;

/// The sizes of an RSA modulus in bits: smaller ones are broken, larger ones cost a verifier too much time.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A key, bound to the algorithms that it may be used with.
pub(crate) struct Key {
    kid: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
    /// What the key is made of, to find it again in a newer set. Empty for a secret.
    material: Box<[u8]>,
    // Whether a newer set does not have the key.
    is_retired: AtomicBool,
}

/// Why a member of a key set is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is a secret, which must not be published.
    Symmetric,
    /// It is for another purpose, of a type that is not supported, too weak, or broken.
    Other,
}

impl Key {
    /// A secret for HS256. `None` if it is empty.
    pub(crate) fn hs256(secret: &[u8]) -> Option<Self> {
        let key = DecodingKey::from_secret(secret).ok()?;
        Some(Self::new(None, vec![Algorithm::HS256], key, Box::default()))
    }

    /// A member of a key set (RFC 7517 section 4).
    pub(crate) fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, Unusable> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        if text("kty") == Some("oct") || jwk.contains_key("k") {
            return Err(Unusable::Symmetric);
        }
        if !is_for_verification(jwk) {
            return Err(Unusable::Other);
        }
        let (mut algorithms, key, material) =
            public_key(text("kty"), text("crv"), &|name| URL_SAFE_NO_PAD.decode(text(name)?).ok())
                .ok_or(Unusable::Other)?;
        // The key's own algorithm (section 4.4): no other fits.
        if let Some(own) = jwk.get("alg") {
            let own = own.as_str().and_then(algorithm::named);
            algorithms.retain(|algorithm| Some(*algorithm) == own);
        }
        let kid =
            jwk.get("kid").map(|kid| kid.as_str().map(Into::into).ok_or(Unusable::Other)).transpose()?;
        let key = Self::new(kid, algorithms, key, material);
        // Finds keys that are no point on their curve now, and not at the first token.
        let is_valid = key.algorithms.iter().all(|algorithm| key.verifier(*algorithm).is_some());
        (is_valid && !key.algorithms.is_empty()).then_some(key).ok_or(Unusable::Other)
    }

    fn new(kid: Option<Box<str>>, algorithms: Vec<Algorithm>, key: DecodingKey, material: Box<[u8]>) -> Self {
        Self { kid, algorithms, decoding: key, material, is_retired: AtomicBool::new(false) }
    }

    /// Whether a token whose header has this `kid` may mean this key. A secret has no name, and there is only one.
    pub(crate) fn is_named(&self, kid: Option<&str>) -> bool {
        kid.is_none() || self.is_secret() || self.kid.as_deref() == kid
    }

    fn is_secret(&self) -> bool {
        self.algorithms == [Algorithm::HS256]
    }

    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether this is the same key, for the same algorithms, under the same name.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.kid == other.kid && self.algorithms == other.algorithms && self.material == other.material
    }

    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Whether `signature` is this key's signature of `message`.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &Vec<u8>) -> bool {
        let verifier = if self.fits(algorithm) { self.verifier(algorithm) } else { None };
        verifier.is_some_and(|verifier| verifier.verify(message, signature).is_ok())
    }

    /// The backend is named here. `jsonwebtoken::decode` asks the process-wide provider instead, which panics if some other crate
    /// enables a second backend, or which another crate may have replaced.
    fn verifier(&self, algorithm: Algorithm) -> Option<Box<dyn jsonwebtoken::crypto::JwtVerifier>> {
        (DEFAULT_PROVIDER.verifier_factory)(&algorithm, &self.decoding).ok()
    }
}

/// Whether a key may verify signatures: `use` and `key_ops` (RFC 7517 sections 4.2 and 4.3).
fn is_for_verification(jwk: &Map<String, Value>) -> bool {
    let is_for_signatures = jwk.get("use").is_none_or(|name| name == "sig");
    let verifies = jwk
        .get("key_ops")
        .is_none_or(|names| names.as_array().is_some_and(|names| names.iter().any(|name| name == "verify")));
    is_for_signatures && verifies
}

type PublicKey = (Vec<Algorithm>, DecodingKey, Box<[u8]>);

/// The key, the algorithms that its type allows, and what it is made of.
///
/// All lengths are checked here: the backends slice keys without a check.
fn public_key(
    kty: Option<&str>,
    crv: Option<&str>,
    part: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Option<PublicKey> {
    let point = |length| {
        let (x, y) = (part("x")?, part("y")?);
        // The form of a point that is not compressed (SEC 1, section 2.3.3).
        (x.len() == length && y.len() == length).then(|| [&[4], &*x, &*y].concat())
    };
    match (kty?, crv) {
        ("RSA", _) => {
            let (modulus, exponent) = (part("n")?, part("e")?);
            if !RSA_BITS.contains(&bits(&modulus)) || !is_exponent(&exponent) {
                return None;
            }
            let material = [&*modulus, &[0], &*exponent].concat().into();
            Some((RSA.into(), DecodingKey::from_rsa_raw_components(&modulus, &exponent), material))
        }
        ("EC", Some("P-256")) => {
            let point = point(32)?;
            Some((vec![Algorithm::ES256], DecodingKey::from_ec_der(&point), point.into()))
        }
        ("EC", Some("P-384")) => {
            let point = point(48)?;
            Some((vec![Algorithm::ES384], DecodingKey::from_ec_der(&point), point.into()))
        }
        ("OKP", Some("Ed25519")) => {
            let point = part("x").filter(|x| x.len() == 32)?;
            Some((vec![Algorithm::EdDSA], DecodingKey::from_ed_der(&point), point.into()))
        }
        _ => None,
    }
}

fn bits(number: &[u8]) -> usize {
    let number = number.iter().position(|byte| *byte != 0).and_then(|start| number.get(start..));
    let [first, rest @ ..] = number.unwrap_or_default() else { return 0 };
    8 * rest.len() + (8 - first.leading_zeros() as usize)
}

/// Odd, at least 3, and at most 32 bits: with 1, everything is a signature of itself.
fn is_exponent(exponent: &[u8]) -> bool {
    let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
    is_odd && (2..=32).contains(&bits(exponent))
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}
