//! Verifies issued keys against a store.

use std::{fmt, sync::Arc, time::SystemTime};

use tollgate_core::{
    Answer, Denial, DenialKind, KeyFormat, KeyLookUp, KeyRecord, KeyStatus, KeyStore, MalformedKey, Peppers,
    Presented, Principal, Unavailable, Verify,
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
    format: KeyFormat,
    more_formats: Vec<KeyFormat>,
    peppers: Peppers,
    store: Arc<dyn KeyStore>,
}

impl KeyVerifier {
    /// Verifies keys of this format, by their plain SHA-256.
    pub fn new(format: KeyFormat, store: impl KeyStore) -> Self {
        Self { format, more_formats: Vec::new(), peppers: Peppers::none(), store: Arc::new(store) }
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

    /// Whether a key of one of the formats can look so.
    fn recognise(&self, secret: &[u8]) -> Result<(), MalformedKey> {
        let Err(problem) = self.format.parse(secret) else { return Ok(()) };
        // What is wrong with it is told as of the first format.
        let is_another = self.more_formats.iter().any(|format| format.parse(secret).is_ok());
        if is_another { Ok(()) } else { Err(problem) }
    }
}

impl Verify for KeyVerifier {
    fn verify(&self, presented: &Presented<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        let secret = presented.credential.expose_secret_bytes();
        if let Err(problem) = self.recognise(secret) {
            let denial = Denial::new(DenialKind::CredentialMalformed).with_log_detail(problem.reason());
            return Answer::Now(Err(denial));
        }
        let now = presented.now;
        let found = match self.peppers.only(secret) {
            Some(digest) => self.store.find(&KeyLookUp::new(&[digest], now)),
            None => self.store.find(&KeyLookUp::new(&self.peppers.all(secret), now)),
        };
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
