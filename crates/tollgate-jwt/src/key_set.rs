//! The keys that an issuer publishes.

use std::{fmt, sync::Arc};

use jsonwebtoken::Algorithm;
use serde_json::Value;

use crate::{
    json,
    key::{Key, Unusable},
    token::Header,
};

/// The public keys of an issuer: a JSON Web Key Set (RFC 7517 section 5).
///
/// Keys that cannot verify signatures are left out: those for encryption (`use`, `key_ops`), those of types that are not supported, RSA keys
/// of fewer than 2,048 or more than 4,096 bits, and broken ones. A set has at most [100 keys](Self::MAX_KEYS).
///
/// ```
/// use tollgate_jwt::KeySet;
///
/// let keys = KeySet::parse(r#"{"keys": [{
///     "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "2033-05", "use": "sig",
///     "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
/// }]}"#)?;
/// assert_eq!(keys.len(), 1);
/// # Ok::<(), tollgate_jwt::InvalidKeySet>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Arc<Key>>,
    // How many symmetric keys were left out.
    symmetric: usize,
}

impl KeySet {
    /// The most keys of a set.
    pub const MAX_KEYS: usize = 100;

    /// The most bytes of a set.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Reads a key set.
    ///
    /// # Errors
    /// [`InvalidKeySet`] if the text is no key set, if it has no usable key, or if it has a symmetric key: a secret that is published
    /// is none, and every reader of the set could sign tokens with it.
    pub fn parse(json: impl AsRef<[u8]>) -> Result<Self, InvalidKeySet> {
        Self::parse_without_secrets(json.as_ref())?.refuse_secrets()
    }

    /// As [`parse`](Self::parse), but symmetric keys are left out.
    pub(crate) fn parse_without_secrets(json: &[u8]) -> Result<Self, InvalidKeySet> {
        if json.len() > Self::MAX_BYTES {
            return Err(InvalidKeySet(Fault::TooLong));
        }
        let set = json::object(json).map_err(|_| InvalidKeySet(Fault::NoKeySet))?;
        let Some(Value::Array(members)) = set.get("keys") else { return Err(InvalidKeySet(Fault::NoKeySet)) };
        if members.len() > Self::MAX_KEYS {
            return Err(InvalidKeySet(Fault::TooManyKeys));
        }
        let mut keys = Self::default();
        for member in members {
            match member.as_object().ok_or(Unusable::Other).and_then(Key::from_jwk) {
                Ok(key) => keys.keys.push(Arc::new(key)),
                Err(Unusable::Symmetric) => keys.symmetric += 1,
                Err(Unusable::Other) => {}
            }
        }
        match (keys.keys.is_empty(), members.is_empty(), keys.symmetric) {
            (false, ..) => Ok(keys),
            (true, true, _) => Err(InvalidKeySet(Fault::Empty)),
            (true, false, 0) => Err(InvalidKeySet(Fault::NoUsableKey)),
            (true, false, _) => Err(InvalidKeySet(Fault::Symmetric)),
        }
    }

    /// The set, unless symmetric keys were left out of it.
    pub(crate) fn refuse_secrets(self) -> Result<Self, InvalidKeySet> {
        if self.has_secrets() { Err(InvalidKeySet(Fault::Symmetric)) } else { Ok(self) }
    }

    pub(crate) fn has_secrets(&self) -> bool {
        self.symmetric > 0
    }

    /// A set of one secret.
    pub(crate) fn of_secret(secret: Key) -> Self {
        Self { keys: vec![Arc::new(secret)], symmetric: 0 }
    }

    /// The number of usable keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no usable key. Only an empty default is.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that a header names.
    pub(crate) fn find(&self, header: &Header) -> Found {
        let fits = |key: &&Arc<Key>| key.fits(header.algorithm) && key.is_named(header.kid.as_deref());
        let mut fitting = self.keys.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Found::Key(Arc::clone(key)),
            (Some(_), Some(_)) => Found::Ambiguous,
            (None, _) => Found::Missing,
        }
    }

    /// Keeps keys of an older set that this one has as well, so that tokens which were verified by them stay verified, and retires the
    /// others.
    pub(crate) fn replace(mut self, older: &Self) -> Self {
        for key in &mut self.keys {
            if let Some(same) = older.keys.iter().find(|old| old.is_same(key)) {
                *key = Arc::clone(same);
            }
        }
        for old in &older.keys {
            if !self.keys.iter().any(|key| Arc::ptr_eq(key, old)) {
                old.retire();
            }
        }
        self
    }

    /// Whether there is a key for one of these algorithms.
    pub(crate) fn fits_any(&self, algorithms: &[Algorithm]) -> bool {
        self.keys.iter().any(|key| algorithms.iter().any(|algorithm| key.fits(*algorithm)))
    }
}

/// The result of a search in a set.
pub(crate) enum Found {
    Key(Arc<Key>),
    /// No key has this name and fits the algorithm.
    Missing,
    /// Several keys fit.
    Ambiguous,
}

/// A text is no usable key set. The message says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKeySet(pub(crate) Fault);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    NoKeySet,
    TooLong,
    TooManyKeys,
    Empty,
    NoUsableKey,
    Symmetric,
    OtherAlgorithms,
}

impl fmt::Display for InvalidKeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Fault::NoKeySet => "this is no JSON Web Key Set: expected {\"keys\": [..]}",
            Fault::TooLong => "the key set is longer than 256 KiB",
            Fault::TooManyKeys => "the key set has more than 100 keys",
            Fault::Empty => {
                "the key set is empty: this issuer does not sign with a key pair; if it signs with HS256 and a secret, use Issuer::hs256"
            }
            Fault::NoUsableKey => "the key set has no key for signatures that is supported",
            Fault::Symmetric => {
                "the key set publishes a symmetric key (`\"kty\": \"oct\"`): replace this secret, remove it from the set, and, for tokens that are signed with a secret, use Issuer::hs256"
            }
            Fault::OtherAlgorithms => {
                "the key set has no key for the allowed algorithms: see Issuer::with_algorithms"
            }
        })
    }
}

impl std::error::Error for InvalidKeySet {}
