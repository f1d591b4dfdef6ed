//! Verifies issued keys by a key store.

use std::{fmt, sync::Arc, time::SystemTime};

use tollgate_core::{
    answer::Answer,
    denial::{Denial, DenialKind, Unavailable},
    key::{Environment, KeyFormat, MalformedKey, Peppers},
    store::{EndReason, EndSignal, KeyLookup, KeyRecord, KeyStatus, KeyStore},
    verify::{Principal, Verify, VerifyRequest},
};

#[cfg(feature = "legacy")]
use crate::store::LegacyHashes;

/// Verifies issued keys: first their format, so that junk costs no lookup, then their digest by a [`KeyStore`].
///
/// ```
/// use tollgate::{KeyFormat, KeyVerifier, MemoryKeys};
///
/// let keys = MemoryKeys::new();
/// let verifier = KeyVerifier::new(KeyFormat::new("sk")?, keys)
///     .with_format(KeyFormat::new("old")?.without_checksum()); // older keys
/// # Ok::<(), tollgate::key::InvalidKeyFormat>(())
/// ```
///
/// # Environments
///
/// A key's environment is that of its record. If the key names one, too, as `sk_live_` does, the two must agree: otherwise it is refused
/// with [`WrongEnvironment`](DenialKind::WrongEnvironment), which looks like an unknown key. A key whose format has no environment,
/// and a legacy key, have that of their record. A record without an environment admits a key of any: its principal has no environment,
/// and is refused where one is required.
///
/// # Databases
///
/// A store that answers later, such as a database, needs a cache in front of it:
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
    /// Verifies keys of this format by their SHA-256, without a pepper.
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

    /// Accepts keys of another format as well.
    pub fn with_format(mut self, format: KeyFormat) -> Self {
        self.more_formats.push(format);
        self
    }

    /// Looks keys up by digests with these peppers.
    pub fn with_peppers(mut self, peppers: Peppers) -> Self {
        self.peppers = peppers;
        self
    }

    /// Checks secrets that the store does not know against the hashes of legacy keys, and upgrades a key whose hash matches.
    #[cfg(feature = "legacy")]
    pub fn with_legacy(mut self, legacy: LegacyHashes) -> Self {
        self.legacy = Some(legacy);
        self
    }

    /// Checks the secret against all formats. Returns the environment that it names.
    fn check_format(&self, secret: &[u8]) -> Result<Option<Environment>, MalformedKey> {
        let first = self.format.parse(secret).map(|parsed| parsed.environment());
        if self.more_formats.is_empty() && first.is_ok() {
            return first;
        }
        self.check_more_formats(secret, first)
    }

    fn check_more_formats(
        &self,
        secret: &[u8],
        first: Result<Option<Environment>, MalformedKey>,
    ) -> Result<Option<Environment>, MalformedKey> {
        if let Ok(Some(_)) = first {
            return first;
        }
        let others = self.more_formats.iter().filter_map(|format| format.parse(secret).ok());
        let named = others.map(|parsed| parsed.environment());
        // A format that names an environment says more about the key than one that does not.
        match named.reduce(Option::or) {
            Some(environment) => Ok(environment),
            #[cfg(feature = "legacy")]
            None if self.legacy.as_ref().is_some_and(|legacy| legacy.accepts(secret)) => Ok(None),
            // The error is that of the first format.
            None => first,
        }
    }
}

#[cfg(feature = "legacy")]
type Found = Answer<Result<Option<KeyRecord>, Unavailable>>;

#[cfg(feature = "legacy")]
impl KeyVerifier {
    /// Looks for a legacy key if the store has not found the key.
    fn ask_legacy(&self, found: Found, request: &VerifyRequest<'_>) -> Found {
        let secret = request.credential.expose_secret_bytes();
        let Some(legacy) = self.legacy.as_ref().filter(|legacy| legacy.accepts(secret)) else {
            return found;
        };
        if matches!(found, Answer::Now(Ok(Some(_)) | Err(_))) {
            return found;
        }
        let (legacy, store, now) = (legacy.clone(), Arc::clone(&self.store), request.now);
        let (credential, digest) = (request.credential.clone(), self.peppers.current(secret));
        Answer::later(async move {
            let found = found.await?;
            if found.is_some() {
                return Ok(found);
            }
            legacy.upgrade(credential, digest).await?;
            // Even if nothing was upgraded here: another request may have upgraded the key between the two lookups.
            store.find(&KeyLookup::new(&[digest], now)).await
        })
    }
}

impl Verify for KeyVerifier {
    fn verify(&self, request: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        let secret = request.credential.expose_secret_bytes();
        let named = match self.check_format(secret) {
            Ok(named) => named,
            Err(error) => {
                let denial = Denial::new(DenialKind::CredentialMalformed).with_log_detail(error.reason());
                return Answer::Now(Err(denial));
            }
        };
        let now = request.now;
        let found = match self.peppers.only(secret) {
            Some(digest) => self.store.find(&KeyLookup::new(&[digest], now)),
            None => self.store.find(&KeyLookup::new(&self.peppers.all(secret), now)),
        };
        #[cfg(feature = "legacy")]
        let found = self.ask_legacy(found, request);
        match found {
            Answer::Now(found) => Answer::Now(to_principal(found, named, now)),
            later @ Answer::Later(_) => later.map(move |found| to_principal(found, named, now)),
        }
    }
}

/// The principal of a record, or why its key, which names the environment `named`, is refused. An expiry precedes a suspension, which only the owner of a valid key may
/// learn of.
fn to_principal(
    found: Result<Option<KeyRecord>, Unavailable>,
    named: Option<Environment>,
    now: SystemTime,
) -> Result<Arc<Principal>, Denial> {
    let Some(record) = found? else { return Err(Denial::new(DenialKind::KeyUnknown)) };
    if let (Some(named), Some(own)) = (named, record.principal().environment())
        && named != own
    {
        return Err(wrong_environment(named, own));
    }
    match record.status() {
        KeyStatus::Active => Ok(record.into_principal()),
        KeyStatus::Revoked => Err(Denial::new(DenialKind::KeyRevoked)),
        _ if record.principal().expires_at().is_some_and(|expires_at| expires_at <= now) => {
            Err(Denial::new(DenialKind::KeyExpired))
        }
        KeyStatus::TenantSuspended if record.principal().allowed_networks().is_anywhere() => {
            Err(Denial::new(DenialKind::TenantSuspended))
        }
        // A caller outside the key's networks must not see that the tenant is suspended. `VerifyLayer` checks the networks
        // first, and then refuses a principal that has ended.
        KeyStatus::TenantSuspended => Ok(suspended(record.principal())),
        // A status that this version does not know must not let a request through.
        _ => Err(Denial::new(DenialKind::KeyUnknown).with_log_detail("the key has an unknown status")),
    }
}

#[cold]
fn wrong_environment(named: Environment, own: Environment) -> Denial {
    Denial::new(DenialKind::WrongEnvironment)
        .with_log_detail(format!("the key says {named}, and its record {own}: issue a new key"))
}

#[cold]
fn suspended(principal: &Principal) -> Arc<Principal> {
    // An application's own store may not have sent the signal.
    let signal = EndSignal::new();
    signal.end(EndReason::TenantSuspended);
    Arc::new(principal.clone().with_end_signal(signal))
}

impl fmt::Debug for KeyVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyVerifier")
            .field("format", &self.format)
            .field("more_formats", &self.more_formats)
            .finish_non_exhaustive()
    }
}
