//! The backend trait of legacy keys: keys of an older system, which are known by another hash only.

use std::{fmt, sync::Arc};

use crate::{answer::Answer, denial::Unavailable, key::Digest};

/// Finds and upgrades legacy keys. Their secrets were stored as another hash, perhaps a salted one, by which a key cannot be
/// looked up, so no [`KeyStore`](crate::store::KeyStore) finds them by a digest yet.
///
/// Legacy keys are looked up by text that was stored beside the hash: usually a prefix of the secret. When a secret matches the
/// hash of a legacy key for the first time, the key is upgraded. From then on, the store finds it like any other.
///
/// Tollgate does not limit how long a request waits for its answer: give remote calls a deadline.
///
/// The example `migration` in Tollgate's repository implements this on a table of its own.
pub trait LegacyKeys: Send + Sync + 'static {
    /// The keys that were stored under this prefix and are not upgraded: one, or a few that share it. Include revoked keys, so
    /// that the log can distinguish them from unknown ones.
    ///
    /// # Errors
    /// [`Unavailable`] if the store cannot be reached.
    fn candidates(&self, prefix: &str) -> Answer<Result<Vec<LegacyKey>, Unavailable>>;

    /// Stores the digest of the key with this identifier: from now on the store finds the key by it, and
    /// [`candidates`](Self::candidates) does not return the key. A revoked key stays revoked.
    ///
    /// This is a change of the key: notify the store's [listeners](crate::store::Listeners) before this returns, or a cache may
    /// answer for some seconds that there is no such key. Several first requests at the same time upgrade a key several times.
    /// The later ones change nothing; they must not return before the first one's event was sent, and may send it again.
    ///
    /// # Errors
    /// [`Unavailable`] if the digest could not be stored.
    fn upgrade(&self, id: &str, digest: Digest) -> Answer<Result<(), Unavailable>>;
}

impl<S: LegacyKeys + ?Sized> LegacyKeys for Arc<S> {
    fn candidates(&self, prefix: &str) -> Answer<Result<Vec<LegacyKey>, Unavailable>> {
        (**self).candidates(prefix)
    }

    fn upgrade(&self, id: &str, digest: Digest) -> Answer<Result<(), Unavailable>> {
        (**self).upgrade(id, digest)
    }
}

/// A legacy key.
#[derive(Clone)]
#[non_exhaustive]
pub struct LegacyKey {
    /// Its identifier.
    pub id: Box<str>,
    /// The stored hash of its secret.
    pub hash: Box<str>,
}

impl LegacyKey {
    /// A key with this identifier and this hash of its secret.
    pub fn new(id: impl Into<Box<str>>, hash: impl Into<Box<str>>) -> Self {
        Self { id: id.into(), hash: hash.into() }
    }
}

impl fmt::Debug for LegacyKey {
    /// Hides the hash, from which a weak secret could be guessed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyKey").field("id", &self.id).finish_non_exhaustive()
    }
}
