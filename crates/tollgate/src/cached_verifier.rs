//! A cache in front of a verifier that answers later.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Request;
use tollgate_core::{
    answer::Answer,
    denial::{Denial, Outcome},
    key::Digest,
    request::RequestHead,
    store::StoreEvent,
    verify::{Credential, CredentialSource, Principal, RefusalText, Verify, VerifyRequest},
};

use crate::lookups::{AsOf, Cached, Digests, Entry, EventCount, Hashes, SharedLookups, Table};

/// A verifier's answer.
type Verified = Result<Arc<Principal>, Denial>;

/// A cache in front of a [`Verify`] that answers later, such as the token introspection of an authorization server (RFC 7662): it
/// answers at once what it knows.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{
///     Denial, DenialKind, Principal, Tollgate,
///     denial::Unavailable,
///     verify::{CachedVerifier, Credential, verify_fn},
/// };
///
/// async fn introspect(token: &str) -> Result<Option<String>, Unavailable> {
///     // asks the authorization server ...
/// #   let _ = token;
/// #   Ok(None)
/// }
///
/// let introspection = verify_fn(|credential: Credential| async move {
///     match introspect(credential.expose_secret()).await? {
///         Some(subject) => Ok(Principal::new(subject)),
///         None => Err(Denial::new(DenialKind::KeyUnknown)),
///     }
/// });
/// let verifier = CachedVerifier::new(introspection);
/// let tollgate = Tollgate::builder().verify(verifier.clone()).build()?;
///
/// verifier.invalidate_tenant("acme"); // for example from a webhook of the authorization server
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
///
/// For a service whose tokens must stop working soon after they are revoked:
///
/// ```
/// use std::time::Duration;
/// use tollgate::verify::{CachedVerifier, Verify};
///
/// fn cached(introspection: impl Verify) -> CachedVerifier {
///     CachedVerifier::new(introspection).with_ttl(Duration::from_secs(5)).with_deadline(Duration::from_secs(1))
/// }
/// ```
///
/// Keys in a [`KeyStore`](crate::store::KeyStore) have [`CachedKeys`](crate::CachedKeys), which learns of changes from the store. Clones
/// share their state. Each `with_*` method returns an empty cache, so call them first.
///
/// # What is cached
///
/// | | at most | for |
/// |---|---|---|
/// | principals | 100,000; beyond that, those that were not used lately are evicted | 30 seconds, and not past their expiry |
/// | refusals | 10,000 | 5 seconds, or until any invalidation |
///
/// The two are separate: a flood of invented credentials does not evict valid ones. A principal whose
/// [signal](crate::store::EndSignal) was sent, or which has expired, is never answered from the cache. A failure
/// ([`Unavailable`](crate::DenialKind::Unavailable)) is not cached, nor is a refusal with a
/// [`retry_after`](Denial::retry_after). An entry is found by the digest of the secret, takes about 300 bytes and its principal, and does
/// not hold the secret. Its time is measured by the requests' instants, and ends if the clock is set back.
///
/// # What the verifier sees
///
/// The answer to one request is given to others, so the verifier sees nothing but the secret and the instant: the credential's source
/// is always [`Bearer`](CredentialSource::Bearer), and the head is that of an empty `GET /`. A verifier that reads the request cannot
/// be cached, for example one that binds credentials to a connection. Put such a check into a [guard](crate::guard).
///
/// # When the verifier is slow or down
///
/// Concurrent requests with one secret share one lookup, and its failure, too. They do not join a lookup that has been in progress
/// for a second, but begin a new one. If the request that began it is dropped, the others still get the answer. A lookup fails after
/// [5 seconds](Self::with_deadline) at most. After the lookups of five different secrets in a row have failed, a circuit breaker lets
/// one request a second ask the verifier. The others are refused with 503 at once, until a lookup succeeds. Cached principals work
/// until their time is up. So answer `Unavailable` only for failures that do not depend on the credential: otherwise strangers can open
/// the circuit breaker with credentials of their own.
///
/// Lookups are tasks on tokio: a request that has to ask the verifier outside a tokio runtime is refused with 503. The runtime's
/// timers must be enabled, as with `#[tokio::main]`.
///
/// # Security
///
/// A credential that is revoked at its issuer works until its entry's time is up, unless it is [invalidated](Self::invalidate_principal).
#[derive(Clone)]
pub struct CachedVerifier(Arc<Inner>);

#[derive(Clone, Copy)]
struct Settings {
    capacity: usize,
    ttl: Duration,
    refused_capacity: usize,
    refused_ttl: Duration,
    deadline: Duration,
}

struct Inner {
    verifier: Arc<dyn Verify>,
    settings: Settings,
    hashes: Hashes,
    verified: Table<Verified>,
    refused: Table<Verified>,
    // Counts the invalidations.
    events: EventCount,
    lookups: SharedLookups<Arc<Principal>, Denial>,
    // What the verifier sees in place of a request.
    empty: Request<()>,
}

impl CachedVerifier {
    /// The maximum of [`with_ttl`](Self::with_ttl) and [`with_refusal_ttl`](Self::with_refusal_ttl): one hour.
    pub const MAX_TTL: Duration = Duration::from_secs(3_600);

    /// A cache in front of `verifier`.
    pub fn new(verifier: impl Verify) -> Self {
        let settings = Settings {
            capacity: 100_000,
            ttl: Duration::from_secs(30),
            refused_capacity: 10_000,
            refused_ttl: Duration::from_secs(5),
            deadline: Duration::from_secs(5),
        };
        Self::with_settings(Arc::new(verifier), settings)
    }

    /// Caches at most this many principals. Default: 100,000. With 0, concurrent requests with one secret still share a lookup.
    pub fn with_capacity(self, principals: usize) -> Self {
        self.set(|settings| settings.capacity = principals)
    }

    /// How long a principal is cached: a credential that is revoked without an invalidation works for this time at most. Default:
    /// 30 seconds. A longer time than [`MAX_TTL`](Self::MAX_TTL) is shortened to it.
    pub fn with_ttl(self, ttl: Duration) -> Self {
        self.set(|settings| settings.ttl = ttl.min(Self::MAX_TTL))
    }

    /// Caches at most this many refusals. Default: 10,000.
    pub fn with_refusal_capacity(self, refusals: usize) -> Self {
        self.set(|settings| settings.refused_capacity = refusals)
    }

    /// How long a refusal is cached: a credential that becomes valid works after this time at most. Default: 5 seconds. A longer time
    /// than [`MAX_TTL`](Self::MAX_TTL) is shortened to it.
    pub fn with_refusal_ttl(self, ttl: Duration) -> Self {
        self.set(|settings| settings.refused_ttl = ttl.min(Self::MAX_TTL))
    }

    /// A lookup fails if the verifier has not answered after this time. Default: 5 seconds.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        self.set(|settings| settings.deadline = deadline)
    }

    /// Forgets the principal with this identifier, and all refusals. When it returns, the verifier is asked again: a lookup that was in
    /// progress answers only the requests that already wait for it, and is not cached.
    pub fn invalidate_principal(&self, id: &str) {
        self.0.invalidate(|verified| verified.remove_key(id, u64::MAX));
    }

    /// Forgets the principals of a tenant, and all refusals, as [`invalidate_principal`](Self::invalidate_principal) does.
    pub fn invalidate_tenant(&self, tenant: &str) {
        self.0.invalidate(|verified| verified.remove_tenant(tenant, u64::MAX));
    }

    /// Forgets everything, as [`invalidate_principal`](Self::invalidate_principal) does.
    pub fn invalidate_all(&self) {
        self.0.invalidate(Table::clear);
    }

    fn set(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.0.settings;
        change(&mut settings);
        Self::with_settings(Arc::clone(&self.0.verifier), settings)
    }

    fn with_settings(verifier: Arc<dyn Verify>, settings: Settings) -> Self {
        let hashes = Hashes::default();
        Self(Arc::new(Inner {
            verifier,
            settings,
            verified: Table::new(settings.capacity, hashes.clone()),
            refused: Table::new(settings.refused_capacity, hashes.clone()),
            hashes,
            events: EventCount::default(),
            lookups: SharedLookups::new("verifier", settings.deadline, |found| !is_unavailable(found)),
            empty: Request::new(()),
        }))
    }
}

impl Verify for CachedVerifier {
    fn verify(&self, request: &VerifyRequest<'_>) -> Answer<Verified> {
        let digest = Digest::of(request.credential.expose_secret_bytes());
        let hash = self.0.hashes.of(&[digest]);
        match self.0.cached(hash, digest, request.now) {
            Some(found) => Answer::Now(found),
            None => self.0.ask(hash, digest, request),
        }
    }

    fn refusal_text(&self, credential: &Credential) -> Option<Arc<RefusalText>> {
        self.0.verifier.refusal_text(credential)
    }
}

impl Inner {
    /// The cached answer, if there is a fresh one.
    #[inline]
    fn cached(&self, hash: u64, digest: Digest, now: SystemTime) -> Option<Verified> {
        match self.verified.find(hash, &[digest], |entry| entry.is_fresh(now)) {
            Some(found) => is_active(&found, now).then_some(found),
            None => self.refused.find(hash, &[digest], |entry| entry.is_fresh(now)),
        }
    }

    /// Joins the lookup of a secret, or begins it, if the verifier may be asked.
    #[cold]
    fn ask(self: &Arc<Self>, hash: u64, digest: Digest, request: &VerifyRequest<'_>) -> Answer<Verified> {
        let now = request.now;
        let credential = request.credential.clone().with_source(CredentialSource::Bearer);
        let cache = Arc::clone(self);
        let lookup = async move {
            let head = RequestHead::of(&cache.empty);
            cache.verifier.verify(&VerifyRequest::new(&credential, head, now)).await
        };
        let cache = Arc::clone(self);
        let insert = move |found: &Verified, as_of| cache.insert(hash, digest, found, as_of, now);
        match self.lookups.join((hash, &[digest]), now, &self.events, Box::pin(lookup), insert) {
            Ok(waiter) => Answer::later(waiter.answer()),
            Err(error) => Answer::Now(Err(error.into())),
        }
    }

    /// Caches the answer to a lookup of `now`, unless there was an invalidation since `as_of`.
    fn insert(&self, hash: u64, digest: Digest, found: &Verified, as_of: AsOf, now: SystemTime) {
        let is_current = || self.events.as_of_now() == as_of;
        let entry = |fresh_until| Entry::new(Digests::from([digest]), found.clone(), now, fresh_until);
        let after = |ttl| now.checked_add(ttl).unwrap_or(now);
        match found {
            Ok(principal) if is_active(found, now) => {
                // An outdated answer removes no newer refusal.
                if is_current() {
                    self.refused.remove(hash, &[digest]);
                }
                let until = after(self.settings.ttl);
                let until = principal.expires_at().map_or(until, |expires_at| until.min(expires_at));
                self.verified.insert(hash, entry(until), is_current);
            }
            // A failure says nothing about the credential.
            Err(denial) if denial.outcome() != Outcome::Denied => {}
            _ => {
                // Even if the refusal is not cached: the verifier no longer confirms the principal.
                self.verified.remove(hash, &[digest]);
                // A denial with `retry_after` is about the verifier's own limits, and not about the credential.
                if found.as_ref().is_err_and(|denial| denial.retry_after().is_none()) {
                    self.refused.insert(hash, entry(after(self.settings.refused_ttl)), is_current);
                }
            }
        }
    }

    fn invalidate(&self, remove: impl FnOnce(&Table<Verified>)) {
        // Counted before anything is removed: an entry that is inserted from here on is newer.
        self.events.record(&StoreEvent::Connected);
        remove(&self.verified);
        self.refused.clear();
    }
}

impl Cached for Verified {
    fn principal(&self) -> Option<&Principal> {
        self.as_ref().ok().map(Arc::as_ref)
    }

    /// A verifier's answers have no generations.
    fn generation(&self) -> Option<u64> {
        Some(0)
    }
}

fn is_active(found: &Verified, now: SystemTime) -> bool {
    found.as_ref().is_ok_and(|principal| principal.ended(now).is_none())
}

fn is_unavailable(found: &Verified) -> bool {
    found.as_ref().is_err_and(|denial| denial.outcome() == Outcome::Unavailable)
}

impl fmt::Debug for CachedVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedVerifier")
            .field("verified", &self.0.verified.len())
            .field("refused", &self.0.refused.len())
            .field("in_progress", &self.0.lookups.len())
            .finish_non_exhaustive()
    }
}
