//! Legacy keys, whose secrets were stored as another hash.

mod hash;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, oneshot},
    task::spawn_blocking,
    time::timeout,
};
use tollgate_core::{
    denial::Unavailable,
    key::{Digest, KeyFormat, Pepper},
    store::{LegacyKey, LegacyKeys},
    verify::Credential,
};

use hash::Scheme;

/// Checks secrets against the hashes of legacy keys, and upgrades a key whose hash matches.
///
/// | stored as | written | feature |
/// |---|---|---|
/// | SHA-256 of the secret | 64 hexadecimal digits | `legacy` |
/// | HMAC-SHA-256 of the secret | 64 hexadecimal digits, [with the keys](Self::with_hmac) | `legacy` |
/// | bcrypt | `$2a$`, `$2b$`, `$2y$` | `bcrypt` |
/// | Argon2 | `$argon2id$…`, a PHC string | `argon2` |
///
/// A [`KeyVerifier`](crate::KeyVerifier::with_legacy) uses it for secrets that its store does not know. The hash of a key is checked
/// once, and then the key's [digest](Digest) is stored: from the second request on the key is verified like any other. If all
/// hashes are plain SHA-256 or HMACs, this is not needed: import the digests ([`Digest::from_parts`]), with the HMAC's key as a
/// previous [pepper](tollgate_core::key::Peppers::with_previous).
///
/// The example `migration` in Tollgate's repository is a complete service with legacy keys in a table of its own.
///
/// ```
/// # #[cfg(feature = "bcrypt")]
/// # fn example(table: impl tollgate::store::LegacyKeys, store: tollgate::MemoryKeys) -> Result<(), Box<dyn std::error::Error>> {
/// use tollgate::{KeyFormat, KeyVerifier, store::LegacyHashes};
///
/// // Legacy keys look like `k7Fq2xYz.0123…`, and are stored under the text before the full stop.
/// let legacy = LegacyHashes::new(table).with_prefix(|secret| secret.split_once('.').map(|(prefix, _)| prefix));
/// let verifier = KeyVerifier::new(KeyFormat::new("sk")?, store).with_legacy(legacy);
/// # let _ = verifier;
/// # Ok(())
/// # }
/// ```
///
/// # Security
///
/// A slow hash takes a tenth of a second of a core, and every client that knows a prefix can cause one. So hashes run on tokio's
/// threads for blocking work, on half of the machine's cores at most. At most 64 requests wait; further ones are answered with 503. A
/// client that hangs up leaves the queue. A hash that has begun goes on, and counts until its end. An [attempt
/// limit](crate::AttemptLimitLayer) in the same stack refuses clients that repeat this. When most keys are upgraded, revoke the rest
/// and remove this.
///
/// A digest is a fast hash. That is enough for random secrets. If people chose their secrets, stolen digests could be guessed:
/// add [a pepper](crate::KeyVerifier::with_peppers) that is not stored with them.
#[derive(Clone)]
pub struct LegacyHashes {
    keys: Arc<dyn LegacyKeys>,
    format: KeyFormat,
    prefix: Arc<PrefixOf>,
    scheme: Arc<Scheme>,
    permits: Arc<Permits>,
}

type PrefixOf = dyn for<'s> Fn(&'s str) -> Option<&'s str> + Send + Sync;

/// At most this many requests wait for a hash.
const MAX_WAITING: usize = 64;

/// How long an upgrade may take. Its caller cannot stop it.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(5);

/// Limits how many hashes are checked at a time, and how many requests wait for that.
struct Permits {
    // Held by the hash, which no caller can stop.
    hashing: Arc<Semaphore>,
    // Held by the request, which leaves the queue when it is dropped.
    waiting: Semaphore,
}

impl LegacyHashes {
    /// Legacy keys of any [opaque](KeyFormat::opaque) form, stored under their first eight characters.
    pub fn new(keys: impl LegacyKeys) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let hashing = Arc::new(Semaphore::new((cores / 2).max(1)));
        let permits = Permits { hashing, waiting: Semaphore::new(MAX_WAITING) };
        Self {
            keys: Arc::new(keys),
            format: KeyFormat::opaque(),
            prefix: Arc::new(|secret| secret.get(..8)),
            scheme: Arc::default(),
            permits: Arc::new(permits),
        }
    }

    /// Only secrets of this format can be legacy keys. Others cost no lookup.
    pub fn with_format(mut self, format: KeyFormat) -> Self {
        self.format = format;
        self
    }

    /// How to get the text under which a secret's key is stored; `None` if the secret cannot be a legacy key.
    pub fn with_prefix(
        mut self,
        prefix: impl for<'s> Fn(&'s str) -> Option<&'s str> + Send + Sync + 'static,
    ) -> Self {
        self.prefix = Arc::new(prefix);
        self
    }

    /// Also treats a hash of 64 hexadecimal digits as an HMAC with this key. The pepper's identifier is ignored.
    pub fn with_hmac(mut self, key: Pepper) -> Self {
        let mut keys = self.scheme.hmac_keys.clone();
        keys.push(Arc::new(key));
        self.scheme = Arc::new(Scheme { hmac_keys: keys });
        self
    }

    /// Whether a secret can be a legacy key.
    pub(crate) fn accepts(&self, secret: &[u8]) -> bool {
        self.format.parse(secret).is_ok()
    }

    /// Stores the digest if the secret belongs to a legacy key.
    pub(crate) async fn upgrade(self, credential: Credential, digest: Digest) -> Result<(), Unavailable> {
        let Some(prefix) = (self.prefix)(credential.expose_secret()) else { return Ok(()) };
        let candidates = self.keys.candidates(prefix).await?;
        for candidate in candidates {
            let id = candidate.id.clone();
            if self.matches(&credential, candidate).await? {
                return store_digest(self.keys, id, digest).await;
            }
        }
        Ok(())
    }

    async fn matches(&self, credential: &Credential, candidate: LegacyKey) -> Result<bool, Unavailable> {
        let Ok(waiting) = self.permits.waiting.try_acquire() else {
            return Err(Unavailable::new("too many requests wait for the hash of a legacy key"));
        };
        // The semaphores are never closed.
        let Ok(hashing) = Arc::clone(&self.permits.hashing).acquire_owned().await else { return Ok(false) };
        drop(waiting);
        let (credential, scheme) = (credential.clone(), Arc::clone(&self.scheme));
        let (answer, answered) = oneshot::channel();
        spawn_blocking(move || {
            let _until_its_end = hashing;
            // The caller may have hung up while this waited for a thread.
            if !answer.is_closed() {
                let secret = credential.expose_secret_bytes();
                let _ = answer.send(scheme.matches(secret, &candidate.id, &candidate.hash));
            }
        });
        answered
            .await
            .map_err(|error| Unavailable::new("checking the hash of a legacy key failed").with_source(error))
    }
}

/// Upgrades a key in a task of its own: a caller that hangs up must not stop it between the change and its event.
async fn store_digest(keys: Arc<dyn LegacyKeys>, id: Box<str>, digest: Digest) -> Result<(), Unavailable> {
    let upgrade = tokio::spawn(async move { timeout(UPGRADE_DEADLINE, keys.upgrade(&id, digest)).await });
    let failed = |error: Box<dyn Error + Send + Sync>| {
        Unavailable::new("the upgrade of a legacy key failed").with_source(error)
    };
    match upgrade.await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(elapsed)) => Err(failed(elapsed.into())),
        Err(panicked) => Err(failed(panicked.into())),
    }
}

impl fmt::Debug for LegacyHashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyHashes").field("format", &self.format).finish_non_exhaustive()
    }
}
