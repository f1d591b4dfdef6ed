//! The backend trait of keys from before, of whose secrets only other hashes are known.

use std::{fmt, sync::Arc};

use crate::{answer::Answer, denial::Unavailable, key::Digest};

/// Keys from before, which no [`KeyStore`](crate::store::KeyStore) finds by a digest yet: their secrets were stored as another hash, a
/// salted one perhaps, by which nothing can be looked up.
///
/// They are looked up by what was stored in clear beside the hash: a prefix of the secret, usually. Once a secret has proved
/// to be one of them, the key is upgraded, and from then on found like any other.
///
/// The example `migration` of Tollgate's repository has it on a table of an application's own.
pub trait LegacyKeys: Send + Sync + 'static {
    /// The keys that are filed under this prefix and were not upgraded yet: one, or a few that share it. Revoked ones may be
    /// among them, so that the log tells them from unknown ones.
    ///
    /// # Errors
    /// [`Unavailable`] if they cannot be reached.
    fn candidates(&self, prefix: &str) -> Answer<Result<Vec<LegacyKey>, Unavailable>>;

    /// From now on the store finds the key with this identifier by this digest, and nobody asks for the hash any more. A key
    /// that was revoked meanwhile stays so.
    ///
    /// It is a change of the key like any other: the store tells its [watchers](crate::store::KeyStore::subscribe) before this answers, or a
    /// cache in front of it goes on for seconds saying that there is no such key. Several first uses at once upgrade a key
    /// several times: the later ones change nothing, and answer no sooner than the first one's news are told, which they may as
    /// well tell again.
    ///
    /// # Errors
    /// [`Unavailable`] if that could not be stored.
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

/// A key from before.
#[derive(Clone)]
#[non_exhaustive]
pub struct LegacyKey {
    /// Its identifier.
    pub id: Box<str>,
    /// The hash of its secret, as it was stored.
    pub hash: Box<str>,
}

impl LegacyKey {
    /// The key with this identifier, whose secret was stored as this hash.
    pub fn new(id: impl Into<Box<str>>, hash: impl Into<Box<str>>) -> Self {
        Self { id: id.into(), hash: hash.into() }
    }
}

impl fmt::Debug for LegacyKey {
    /// Hides the hash, from which a guessable secret could be told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyKey").field("id", &self.id).finish_non_exhaustive()
    }
}
