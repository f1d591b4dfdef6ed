//! Verifies issued keys against a store.

use std::{fmt, sync::Arc, time::SystemTime};

use tollgate_core::{
    Answer, Denial, DenialKind, KeyFormat, KeyRecord, KeyStatus, KeyStore, Peppers, Presented, Principal,
    Unavailable, Verify,
};

/// Verifies issued keys: their shape first, so that junk costs no look-up, then their digest against a [`KeyStore`].
///
/// ```
/// use tollgate::{KeyFormat, KeyVerifier, MemoryKeys};
///
/// let keys = MemoryKeys::new();
/// let verifier = KeyVerifier::new(KeyFormat::new("sk")?, keys)
///     .with_format(KeyFormat::new("old")?.without_checksum()); // keys from before
/// # Ok::<(), tollgate::InvalidKeyFormat>(())
/// ```
pub struct KeyVerifier {
    formats: Vec<KeyFormat>,
    peppers: Peppers,
    store: Arc<dyn KeyStore>,
}

impl KeyVerifier {
    /// Verifies keys of this format, by their plain SHA-256.
    pub fn new(format: KeyFormat, store: impl KeyStore) -> Self {
        Self { formats: vec![format], peppers: Peppers::none(), store: Arc::new(store) }
    }

    /// Accepts keys of another format, too.
    pub fn with_format(mut self, format: KeyFormat) -> Self {
        self.formats.push(format);
        self
    }

    /// Looks keys up by digests that are made with these peppers.
    pub fn with_peppers(mut self, peppers: Peppers) -> Self {
        self.peppers = peppers;
        self
    }
}

impl Verify for KeyVerifier {
    fn verify(&self, presented: &Presented<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        let secret = presented.credential.expose_secret();
        let now = presented.now;
        let mut problem = None;
        let is_well_formed = self.formats.iter().any(|format| match format.parse(secret) {
            Ok(_) => true,
            Err(error) => {
                problem.get_or_insert(error);
                false
            }
        });
        if is_well_formed {
            self.store.find(&self.peppers.all(secret)).map(move |found| judge(found, now))
        } else {
            let reason = problem.map_or("no key format is configured", |error| error.reason());
            Answer::Now(Err(Denial::new(DenialKind::CredentialMalformed).with_log_detail(reason)))
        }
    }
}

/// What a record says of its key. An expiry comes before a suspension, which only somebody with a good key may learn of.
fn judge(
    found: Result<Option<Arc<KeyRecord>>, Unavailable>,
    now: SystemTime,
) -> Result<Arc<Principal>, Denial> {
    let Some(record) = found? else { return Err(Denial::new(DenialKind::KeyUnknown)) };
    match record.status() {
        KeyStatus::Active => Ok(Arc::clone(record.principal())),
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
        f.debug_struct("KeyVerifier").field("formats", &self.formats).finish_non_exhaustive()
    }
}
