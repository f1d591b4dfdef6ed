//! Verifies issued keys against a store.

use std::{fmt, sync::Arc, time::SystemTime};

use tollgate_core::{
    answer::Answer,
    denial::{Denial, DenialKind, Unavailable},
    key::{KeyFormat, MalformedKey, Peppers},
    store::{KeyLookup, KeyRecord, KeyStatus, KeyStore},
    verify::{Principal, Verify, VerifyRequest},
};

#[cfg(feature = "legacy")]
use crate::store::LegacyHashes;

/// Verifies issued keys: their shape first, so that junk costs no look-up, then their digest against a [`KeyStore`].
///
/// ```
/// use tollgate::{KeyFormat, KeyVerifier, MemoryKeys};
///
/// let keys = MemoryKeys::new();
/// let verifier = KeyVerifier::new(KeyFormat::new("sk")?, keys)
///     .with_format(KeyFormat::new("old")?.without_checksum()); // keys from before
/// # Ok::<(), tollgate::key::InvalidKeyFormat>(())
/// ```
///
/// A store that has to be waited for, such as a database, is put behind a cache:
///
/// ```
/// use tollgate::{CachedKeys, KeyFormat, KeyVerifier, store::KeyStore};
///
/// fn verifier(store: impl KeyStore) -> Result<KeyVerifier, tollgate::key::InvalidKeyFormat> {
///     Ok(KeyVerifier::new(KeyFormat::new("sk")?, CachedKeys::new(store)))
/// }
/// ```
pub struct KeyVerifier {
    format: KeyFormat,
    more_formats: Vec<KeyFormat>,
    peppers: Peppers,
    store: Arc<dyn KeyStore>,
    #[cfg(feature = "legacy")]
    legacy: Option<LegacyHashes>,
}

impl KeyVerifier {
    /// Verifies keys of this format, by their plain SHA-256.
    pub fn new(format: KeyFormat, store: impl KeyStore) -> Self {
        Self {
            format,
            more_formats: Vec::new(),
            peppers: Peppers::none(),
            store: Arc::new(store),
            #[cfg(feature = "legacy")]
            legacy: None,
        }
    }

    /// Accepts keys of another format, too.
    pub fn with_format(mut self, format: KeyFormat) -> Self {
        self.more_formats.push(format);
        self
    }

    /// Looks keys up by digests that are made with these peppers.
    pub fn with_peppers(mut self, peppers: Peppers) -> Self {
        self.peppers = peppers;
        self
    }

    /// Checks secrets that the store does not know against hashes from before, and upgrades the keys of those that are
    /// right.
    #[cfg(feature = "legacy")]
    pub fn with_legacy(mut self, legacy: LegacyHashes) -> Self {
        self.legacy = Some(legacy);
        self
    }

    /// Whether a key of one of the formats can look so.
    fn recognise(&self, secret: &[u8]) -> Result<(), MalformedKey> {
        let Err(problem) = self.format.parse(secret) else { return Ok(()) };
        // What is wrong with it is told as of the first format.
        let is_another = self.more_formats.iter().any(|format| format.parse(secret).is_ok());
        #[cfg(feature = "legacy")]
        let is_another = is_another || self.legacy.as_ref().is_some_and(|legacy| legacy.recognises(secret));
        if is_another { Ok(()) } else { Err(problem) }
    }
}

#[cfg(feature = "legacy")]
type Found = Answer<Result<Option<KeyRecord>, Unavailable>>;

#[cfg(feature = "legacy")]
impl KeyVerifier {
    /// Looks among the keys from before for one that the store has not found.
    fn ask_legacy(&self, found: Found, presented: &VerifyRequest<'_>) -> Found {
        let secret = presented.credential.expose_secret_bytes();
        let Some(legacy) = self.legacy.as_ref().filter(|legacy| legacy.recognises(secret)) else {
            return found;
        };
        if matches!(found, Answer::Now(Ok(Some(_)) | Err(_))) {
            return found;
        }
        let (legacy, store, now) = (legacy.clone(), Arc::clone(&self.store), presented.now);
        let (credential, digest) = (presented.credential.clone(), self.peppers.current(secret));
        Answer::later(async move {
            let found = found.wait().await?;
            if found.is_some() {
                return Ok(found);
            }
            legacy.upgrade(credential, digest).await?;
            // Whether or not it was upgraded here: another request may have done so between the two look-ups.
            store.find(&KeyLookup::new(&[digest], now)).wait().await
        })
    }
}

impl Verify for KeyVerifier {
    fn verify(&self, presented: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        let secret = presented.credential.expose_secret_bytes();
        if let Err(problem) = self.recognise(secret) {
            let denial = Denial::new(DenialKind::CredentialMalformed).with_log_detail(problem.reason());
            return Answer::Now(Err(denial));
        }
        let now = presented.now;
        let found = match self.peppers.only(secret) {
            Some(digest) => self.store.find(&KeyLookup::new(&[digest], now)),
            None => self.store.find(&KeyLookup::new(&self.peppers.all(secret), now)),
        };
        #[cfg(feature = "legacy")]
        let found = self.ask_legacy(found, presented);
        match found {
            Answer::Now(found) => Answer::Now(judge(found, now)),
            later @ Answer::Later(_) => later.map(move |found| judge(found, now)),
        }
    }
}

/// What a record says of its key. An expiry comes before a suspension, which only somebody with a good key may learn of.
fn judge(found: Result<Option<KeyRecord>, Unavailable>, now: SystemTime) -> Result<Arc<Principal>, Denial> {
    let Some(record) = found? else { return Err(Denial::new(DenialKind::KeyUnknown)) };
    match record.status() {
        KeyStatus::Active => Ok(record.into_principal()),
        KeyStatus::Revoked => Err(Denial::new(DenialKind::KeyRevoked)),
        _ if record.principal().expires_at().is_some_and(|expires_at| expires_at <= now) => {
            Err(Denial::new(DenialKind::KeyExpired))
        }
        KeyStatus::TenantSuspended => Err(Denial::new(DenialKind::TenantSuspended)),
        // A status that this version does not know cannot be meant to let anybody through.
        _ => Err(Denial::new(DenialKind::KeyUnknown).with_log_detail("the key has an unknown status")),
    }
}

impl fmt::Debug for KeyVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyVerifier")
            .field("format", &self.format)
            .field("more_formats", &self.more_formats)
            .finish_non_exhaustive()
    }
}
