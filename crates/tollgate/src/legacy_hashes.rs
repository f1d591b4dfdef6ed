//! Keys from before, whose secrets were stored as another hash.

mod hash;

use std::{fmt, sync::Arc};

use tokio::sync::Semaphore;
use tollgate_core::{
    denial::Unavailable,
    key::{Digest, KeyFormat, Pepper},
    store::{LegacyKey, LegacyKeys},
    verify::Credential,
};

use hash::Scheme;

/// Checks secrets against hashes from before, and upgrades the key of one that is right.
///
/// | stored as | written | feature |
/// |---|---|---|
/// | SHA-256 of the secret | 64 hexadecimal digits | `legacy` |
/// | HMAC-SHA-256 of the secret | 64 hexadecimal digits, [with the keys](Self::with_hmac) | `legacy` |
/// | bcrypt | `$2a$`, `$2b$`, `$2y$` | `bcrypt` |
/// | Argon2 | `$argon2id$…`, a PHC string | `argon2` |
///
/// A [`KeyVerifier`](crate::KeyVerifier::with_legacy) asks for it where its store knows no such key. Then, once for each key, the hash
/// is checked, and the key's [digest](Digest) is stored: from the second request on it is verified like any other. Where plain
/// SHA-256 or an HMAC is all there is, there is nothing to check: import the digests
/// ([`Digest::from_parts`]), with the HMAC's key as a former [pepper](tollgate_core::key::Peppers::with_previous).
///
/// The example `migration` of Tollgate's repository is a whole service whose keys are verified so, in a table of its own.
///
/// ```
/// # #[cfg(feature = "bcrypt")]
/// # fn example(table: impl tollgate::store::LegacyKeys, store: tollgate::MemoryKeys) -> Result<(), Box<dyn std::error::Error>> {
/// use tollgate::{KeyFormat, KeyVerifier, store::LegacyHashes};
///
/// // Old keys look like `k7Fq2xYz.0123…`, and are filed under what stands before the full stop.
/// let legacy = LegacyHashes::new(table).with_prefix(|secret| secret.split_once('.').map(|(prefix, _)| prefix));
/// let verifier = KeyVerifier::new(KeyFormat::new("sk")?, store).with_legacy(legacy);
/// # let _ = verifier;
/// # Ok(())
/// # }
/// ```
///
/// # Security
///
/// A slow hash costs a tenth of a second of a whole core, which strangers could spend who know a prefix. So it runs on tokio's
/// threads for blocking work, on half of the machine's cores at most, and where 64 are waiting the next is answered
/// 503. An [attempt limit](crate::AttemptLimitLayer) outside stops who goes on. Once most keys are upgraded, revoke the rest
/// and leave this out.
///
/// A digest is a fast hash. That is enough for secrets that were made at random; if people chose theirs, digests that
/// are stolen could be tried out, unless [a pepper](crate::KeyVerifier::with_peppers) goes into them that is not stolen, too.
#[derive(Clone)]
pub struct LegacyHashes {
    keys: Arc<dyn LegacyKeys>,
    format: KeyFormat,
    prefix: Arc<PrefixOf>,
    scheme: Arc<Scheme>,
    turnstile: Arc<Turnstile>,
}

type PrefixOf = dyn for<'s> Fn(&'s str) -> Option<&'s str> + Send + Sync;

/// How many wait for a hash at most.
const MAX_WAITING: usize = 64;

/// Lets so many at a time hash, and so many wait.
struct Turnstile {
    hashing: Semaphore,
    waiting: Semaphore,
}

impl LegacyHashes {
    /// Keys from before, of any [opaque](KeyFormat::opaque) form, filed under their first eight characters.
    pub fn new(keys: impl LegacyKeys) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let turnstile =
            Turnstile { hashing: Semaphore::new((cores / 2).max(1)), waiting: Semaphore::new(MAX_WAITING) };
        Self {
            keys: Arc::new(keys),
            format: KeyFormat::opaque(),
            prefix: Arc::new(|secret| secret.get(..8)),
            scheme: Arc::default(),
            turnstile: Arc::new(turnstile),
        }
    }

    /// Only secrets of this format can be keys from before: no other costs a look-up.
    pub fn with_format(mut self, format: KeyFormat) -> Self {
        self.format = format;
        self
    }

    /// What a secret's key is filed under; `None` for a secret that can be no key.
    pub fn with_prefix(
        mut self,
        prefix: impl for<'s> Fn(&'s str) -> Option<&'s str> + Send + Sync + 'static,
    ) -> Self {
        self.prefix = Arc::new(prefix);
        self
    }

    /// Takes 64 hexadecimal digits for an HMAC under this key, too. Its identifier does not matter.
    pub fn with_hmac(mut self, key: Pepper) -> Self {
        let mut keys = self.scheme.hmac_keys.clone();
        keys.push(Arc::new(key));
        self.scheme = Arc::new(Scheme { hmac_keys: keys });
        self
    }

    /// Whether a secret can be one from before.
    pub(crate) fn recognises(&self, secret: &[u8]) -> bool {
        self.format.parse(secret).is_ok()
    }

    /// If the secret is a key's from before, the store finds it by `digest` from now on.
    pub(crate) async fn upgrade(self, credential: Credential, digest: Digest) -> Result<(), Unavailable> {
        let Some(prefix) = (self.prefix)(credential.expose_secret()) else { return Ok(()) };
        let candidates = self.keys.candidates(prefix).wait().await?;
        for candidate in candidates {
            let id = candidate.id.clone();
            if self.matches(&credential, candidate).await? {
                return self.keys.upgrade(&id, digest).wait().await;
            }
        }
        Ok(())
    }

    async fn matches(&self, credential: &Credential, candidate: LegacyKey) -> Result<bool, Unavailable> {
        let Ok(_place) = self.turnstile.waiting.try_acquire() else {
            return Err(Unavailable::new("too many keys from before wait for their hash to be checked"));
        };
        // Neither is ever closed.
        let Ok(_turn) = self.turnstile.hashing.acquire().await else { return Ok(false) };
        let (credential, scheme) = (credential.clone(), Arc::clone(&self.scheme));
        let hashing = tokio::task::spawn_blocking(move || {
            scheme.matches(credential.expose_secret_bytes(), &candidate.id, &candidate.hash)
        });
        hashing.await.map_err(|_| Unavailable::new("the hash of a key from before could not be checked"))
    }
}

impl fmt::Debug for LegacyHashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyHashes").field("format", &self.format).finish_non_exhaustive()
    }
}
