//! The verifier of tokens.

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, SystemTime},
};

use http::HeaderName;
use tokio::time::timeout;
use tollgate_core::{
    answer::Answer,
    clock::{Clock as _, SystemClock},
    denial::{Denial, DenialKind},
    key::Environment,
    request::RequestHead,
    store::{KeyStore, StoreEvent, StoreListener},
    verify::{Principal, Verify, VerifyRequest},
};

use crate::{
    claims::{Claims, invalid},
    issuer::Issuer,
    key::Key,
    key_ring::{KeyRing, KeysError},
    key_set::{Fault, InvalidKeySet},
    profiles::Profiles,
    revocations::{Revocations, Ties},
    single_flight::SingleFlight,
    token::Token,
    token_cache::{AsOf, Entry, Slot, TokenCache},
};

type Verified = Result<Arc<Principal>, Denial>;

/// How often a profile is looked up again because of events during its lookup.
const MAX_LOOKUPS: u8 = 3;

/// Verifies JSON Web Tokens (RFC 7519) as bearer credentials, by the rules of RFC 8725.
///
/// ```no_run
/// use tollgate_jwt::{Issuer, JwtVerifier};
///
/// # #[cfg(feature = "http")]
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// let issuer = Issuer::from_url(
///     "https://example.supabase.co/auth/v1",
///     "authenticated",
///     "https://example.supabase.co/auth/v1/.well-known/jwks.json",
/// )?;
/// let verifier = JwtVerifier::new(issuer);
/// verifier.connect().await?; // the keys are there, or the program ends with a clear error
/// # Ok(()) }
/// ```
///
/// With a tenant and a role from claims of your own, and an environment from a header:
///
/// ```
/// use http::HeaderName;
/// use tollgate_core::key::Environment;
/// use tollgate_jwt::{Claims, Issuer, JwtVerifier};
/// # fn doc(issuer: Issuer) {
///
/// let verifier = JwtVerifier::new(issuer)
///     .with_principal(|claims: &Claims| {
///         Ok(claims.to_principal()?.with_tenant(claims.require_text("org_id")?))
///     })
///     .with_environment_header(HeaderName::from_static("x-environment"), Environment::Live);
/// # }
/// ```
///
/// # What is refused
///
/// | | with | the reason in the log |
/// |---|---|---|
/// | a text that is no token, or longer than [16 KiB](Self::with_max_token_bytes) | 401 | `token_invalid` |
/// | an issuer (`iss`) that the verifier does not have | 401 | `token_invalid` |
/// | an algorithm that is not listed for the issuer, such as `none`; a key that does not fit the algorithm | 401 | `token_invalid` |
/// | an unknown `kid`; no `kid`, and several keys that fit; a wrong signature | 401 | `token_invalid` |
/// | `jku`, `jwk`, `x5u`, `x5c`, `crit`, `b64: false`, `enc`, `zip` in the header; a `typ` of another kind of token | 401 | `token_invalid` |
/// | `aud` or `exp` missing or of the wrong type; another audience; `nbf` in the future; a claim `cnf` | 401 | `token_invalid` |
/// | an expired token | 401 | `key_expired` |
/// | a [revoked](Revocations) token or session | 401 | `key_revoked` |
/// | a header that names no environment, of a caller whose token is valid | 400 | `environment_invalid` |
/// | the keys of the issuer are not known; a profile cannot be looked up | 503 | `unavailable` |
///
/// Callers cannot distinguish the refusals with 401. The log says which check has failed, and shows nothing of the token.
///
/// The principal expires with its token, plus the issuer's [leeway](Issuer::with_leeway).
///
/// # What is cached
///
/// The principals of at most [100,000](Self::with_capacity) tokens are kept, so that a token which was seen before costs about as much as a
/// cached key. An entry ends with its token, with the key that signed it, with a revocation, with an
/// [event](Self::with_store_events) about its tenant, and, with [profiles](Self::with_profiles), after 30 seconds. It is found by a keyed
/// digest of the token, and does not hold the token. Refusals are not cached.
///
/// Clones share their state. Each `with_*` method returns a verifier with an empty cache, so call them first.
///
/// # Security
///
/// A token is valid until it expires, whatever its issuer decides meanwhile: let tokens live for minutes, and use [`Revocations`] for
/// logouts.
#[derive(Clone)]
pub struct JwtVerifier(Arc<Inner>);

#[derive(Clone)]
struct Settings {
    issuers: Vec<(Issuer, Arc<KeyRing>)>,
    principals: Principals,
    profile_ttl: Duration,
    profile_deadline: Duration,
    store: Option<Arc<dyn KeyStore>>,
    revocations: Revocations,
    environment: Option<(HeaderName, Environment)>,
    capacity: usize,
    max_token_bytes: usize,
}

/// What makes the principal of a token.
#[derive(Clone)]
enum Principals {
    Claims(Arc<dyn Fn(&Claims) -> Result<Principal, Denial> + Send + Sync>),
    Profiles(Arc<dyn Profiles>),
}

struct Inner {
    settings: Settings,
    cache: TokenCache,
    // How long a profile may be trusted, if the store has no events.
    trusted_for: OnceLock<Duration>,
    lookups: SingleFlight<(Slot, AsOf), Result<Arc<Principal>, Denial>>,
}

impl JwtVerifier {
    /// Verifies the tokens of one issuer.
    pub fn new(issuer: Issuer) -> Self {
        let ring = Arc::new(issuer.key_ring());
        Self::with_settings(Settings {
            issuers: vec![(issuer, ring)],
            principals: Principals::Claims(Arc::new(Claims::to_principal)),
            profile_ttl: Duration::from_secs(30),
            profile_deadline: Duration::from_secs(5),
            store: None,
            revocations: Revocations::new(),
            environment: None,
            capacity: 100_000,
            max_token_bytes: 16 * 1024,
        })
    }

    /// Verifies the tokens of another issuer as well. A token is verified by the keys, algorithms and audiences of the issuer that it names,
    /// and by no others.
    ///
    /// A later issuer of the same name replaces the earlier one.
    pub fn with_issuer(self, issuer: Issuer) -> Self {
        self.set(|settings| {
            settings.issuers.retain(|(other, _)| other.name() != issuer.name());
            let ring = Arc::new(issuer.key_ring());
            settings.issuers.push((issuer, ring));
        })
    }

    /// Makes principals from claims. Default: [`Claims::to_principal`].
    ///
    /// It is called once for a token, and its answer is cached until the token expires. Use [profiles](Self::with_profiles) if it depends on
    /// anything but the claims.
    pub fn with_principal<F>(self, to_principal: F) -> Self
    where
        F: Fn(&Claims) -> Result<Principal, Denial> + Send + Sync + 'static,
    {
        self.set(|settings| settings.principals = Principals::Claims(Arc::new(to_principal)))
    }

    /// Makes principals from claims and from what is stored about their subjects. Replaces [`with_principal`](Self::with_principal).
    pub fn with_profiles(self, profiles: impl Profiles) -> Self {
        self.set(|settings| settings.principals = Principals::Profiles(Arc::new(profiles)))
    }

    /// How long the principal of a profile is cached: a change of the profile takes effect after this time at most. Default: 30 seconds.
    /// For tenants, [`with_store_events`](Self::with_store_events) makes changes take effect at once.
    pub fn with_profile_ttl(self, ttl: Duration) -> Self {
        self.set(|settings| settings.profile_ttl = ttl)
    }

    /// A request is refused with 503 if its profile is not found within this time. Default: 5 seconds.
    pub fn with_profile_deadline(self, deadline: Duration) -> Self {
        self.set(|settings| settings.profile_deadline = deadline)
    }

    /// Obeys the events of a key store about tenants, so that tokens learn of a suspension and of a new plan as fast as keys do: cached
    /// principals of the tenant are forgotten, and if it was suspended, open streams of its principals end. While the store is disconnected,
    /// nothing is cached.
    ///
    /// A suspended tenant is refused only if your [profiles](Self::with_profiles) refuse it. Profiles must not be older than the event: read
    /// them from the store's database, and not from a replica that lags behind.
    ///
    /// A suspension that happens while the store is disconnected does not end streams of tokens that are open at that time. They end when their
    /// tokens expire.
    pub fn with_store_events(self, store: impl KeyStore) -> Self {
        self.set(|settings| settings.store = Some(Arc::new(store)))
    }

    /// Refuses the tokens and sessions in this list, which other verifiers may share. Default: a list of its own.
    pub fn with_revocations(self, revocations: &Revocations) -> Self {
        self.set(|settings| settings.revocations = revocations.clone())
    }

    /// Reads the environment of a request from a header, whose value is `live` or `test` in lower case. Without the header, it is `default`.
    /// Another value, or the header twice, is refused with 400. Default: the environment is that of the principal, if it has one.
    pub fn with_environment_header(self, name: HeaderName, default: Environment) -> Self {
        self.set(|settings| settings.environment = Some((name, default)))
    }

    /// Caches the principals of at most this many tokens. Default: 100,000.
    pub fn with_capacity(self, tokens: usize) -> Self {
        self.set(|settings| settings.capacity = tokens)
    }

    /// Refuses longer tokens before anything else is done with them. Default: 16 KiB.
    pub fn with_max_token_bytes(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_token_bytes = bytes)
    }

    /// Fetches the keys of all issuers, so that a mistake is found at the start of the program, and the first request need not wait. Without
    /// it, keys are fetched when a token asks for them.
    ///
    /// # Errors
    /// [`ConnectError`] names the first issuer whose keys cannot be fetched, are none, do not fit its algorithms, or contain a secret.
    pub async fn connect(&self) -> Result<(), ConnectError> {
        for (issuer, ring) in &self.0.settings.issuers {
            let error = |error| ConnectError { issuer: issuer.name().into(), error };
            let keys = ring.connect(SystemClock.now()).await.map_err(error)?;
            let invalid = |fault| Err(error(KeysError::Invalid(InvalidKeySet(fault))));
            if keys.has_secrets() {
                return invalid(Fault::Symmetric);
            }
            if !keys.fits_any(issuer.algorithms()) {
                return invalid(Fault::OtherAlgorithms);
            }
        }
        Ok(())
    }

    /// Forgets the cached principals of a tenant: for changes that no [store](Self::with_store_events) publishes.
    pub fn invalidate_tenant(&self, tenant: &str) {
        self.0.cache.forget_tenant(tenant);
    }

    /// Forgets all cached principals.
    pub fn invalidate_all(&self) {
        self.0.cache.forget_all(|state| state);
    }

    fn set(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.0.settings.clone();
        change(&mut settings);
        Self::with_settings(settings)
    }

    fn with_settings(settings: Settings) -> Self {
        let inner = Arc::new(Inner {
            cache: TokenCache::new(settings.capacity, settings.max_token_bytes, settings.store.is_none()),
            trusted_for: OnceLock::new(),
            lookups: SingleFlight::default(),
            settings,
        });
        if let Some(store) = &inner.settings.store {
            let listener: Weak<Inner> = Arc::downgrade(&inner);
            if let Some(time) = store.subscribe(listener).trusted_for() {
                inner.trusted_for.get_or_init(|| time);
                inner.cache.on_event(&StoreEvent::Connected);
            }
        }
        Self(inner)
    }
}

impl Verify for JwtVerifier {
    fn verify(&self, request: &VerifyRequest<'_>) -> Answer<Verified> {
        let environment = self.0.environment(request.head);
        let Ok(environment) = environment else {
            // Only the owner of a valid token may learn more about the request.
            let verified = self.0.verify(request, None);
            return verified.map(|verified| verified.and(Err(Denial::new(DenialKind::EnvironmentInvalid))));
        };
        self.0.verify(request, environment)
    }
}

impl Inner {
    /// The environment that a request names; `None` if no header is read.
    #[inline]
    fn environment(&self, head: RequestHead<'_>) -> Result<Option<Environment>, ()> {
        let Some((name, default)) = &self.settings.environment else { return Ok(None) };
        let mut values = head.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(Some(*default)),
            (Some(value), None) => value.to_str().ok().and_then(|name| name.parse().ok()).map(Some).ok_or(()),
            (Some(_), Some(_)) => Err(()),
        }
    }

    #[inline]
    fn verify(
        self: &Arc<Self>,
        request: &VerifyRequest<'_>,
        environment: Option<Environment>,
    ) -> Answer<Verified> {
        let token = request.credential.expose_secret_bytes();
        let Some(digest) = self.cache.digest(token) else {
            return Answer::Now(Err(invalid(
                "the token is longer than JwtVerifier::with_max_token_bytes allows",
            )));
        };
        let slot = (digest, environment);
        match self.cache.find(&slot, request.now) {
            Some(entry) if entry.has_fresh_key(request.now) => Answer::Now(Ok(Arc::clone(&entry.principal))),
            Some(entry) => self.confirm(slot, entry, token, request.now),
            None => self.verify_anew(slot, token, request.now),
        }
    }

    /// Answers from the cache if the issuer still has the key.
    #[cold]
    fn confirm(
        self: &Arc<Self>,
        slot: Slot,
        entry: Arc<Entry>,
        token: &[u8],
        now: SystemTime,
    ) -> Answer<Verified> {
        match entry.ring.find(&entry.header, now) {
            Answer::Now(Ok(key)) if Arc::ptr_eq(&key, &entry.key) => {
                Answer::Now(Ok(Arc::clone(&entry.principal)))
            }
            Answer::Now(Err(denial)) => Answer::Now(Err(denial)),
            Answer::Now(Ok(_)) => self.verify_anew(slot, token, now),
            Answer::Later(found) => {
                let (inner, token) = (Arc::clone(self), token.to_vec());
                Answer::later(async move {
                    if Arc::ptr_eq(&found.await?, &entry.key) {
                        return Ok(Arc::clone(&entry.principal));
                    }
                    inner.verify_anew(slot, &token, now).await
                })
            }
        }
    }

    #[cold]
    fn verify_anew(self: &Arc<Self>, slot: Slot, token: &[u8], now: SystemTime) -> Answer<Verified> {
        let token = match Token::parse(token) {
            Ok(token) => token,
            Err(denial) => return Answer::Now(Err(denial)),
        };
        let (index, key) = match self.key_of(&token, now) {
            Ok(found) => found,
            Err(denial) => return Answer::Now(Err(denial)),
        };
        match key {
            Answer::Now(key) => match key.and_then(|key| self.check(token, index, key, now)) {
                Ok(checked) => self.principal(slot, checked, now),
                Err(denial) => Answer::Now(Err(denial)),
            },
            Answer::Later(key) => {
                let inner = Arc::clone(self);
                Answer::later(async move {
                    let checked = inner.check(token, index, key.await?, now)?;
                    inner.principal(slot, checked, now).await
                })
            }
        }
    }

    /// Chooses the issuer that a token names, and asks for its key.
    fn key_of(
        &self,
        token: &Token,
        now: SystemTime,
    ) -> Result<(usize, Answer<Result<Arc<Key>, Denial>>), Denial> {
        let name = token.claims.get("iss").and_then(|name| name.as_str());
        let name = name.ok_or_else(|| invalid("the token has no `iss` that is a text"))?;
        let mut issuers = self.settings.issuers.iter().enumerate();
        let (index, (issuer, ring)) = issuers
            .find(|(_, (issuer, _))| issuer.name() == name)
            .ok_or_else(|| invalid("the token's `iss` is not one of the verifier's issuers"))?;
        issuer.check_header(&token.header)?;
        Ok((index, ring.find(&token.header, now)))
    }

    fn check(&self, token: Token, index: usize, key: Arc<Key>, now: SystemTime) -> Result<Checked, Denial> {
        let missing = || Denial::misconfigured("a JwtVerifier has no issuer");
        let (issuer, ring) = self.settings.issuers.get(index).ok_or_else(missing)?;
        let claims =
            Claims { members: token.claims.clone(), is_only_issuer: self.settings.issuers.len() == 1 };
        let ends_at = issuer.check(&token, &key, &claims, now)?;
        Ok(Checked { claims: Arc::new(claims), ends_at, key, ring: Arc::clone(ring), token })
    }

    /// Makes the principal of a token, and caches it.
    fn principal(self: &Arc<Self>, slot: Slot, checked: Checked, now: SystemTime) -> Answer<Verified> {
        match &self.settings.principals {
            Principals::Claims(to_principal) => {
                let as_of = self.cache.as_of_now();
                let principal = to_principal(&checked.claims);
                Answer::Now(principal.and_then(|principal| self.keep(slot, principal, &checked, as_of, now)))
            }
            Principals::Profiles(profiles) => self.look_up(slot, checked, Arc::clone(profiles), now),
        }
    }

    /// Looks a profile up. Concurrent requests with one token share the lookup, unless there was an event since it began.
    fn look_up(
        self: &Arc<Self>,
        slot: Slot,
        checked: Checked,
        profiles: Arc<dyn Profiles>,
        now: SystemTime,
    ) -> Answer<Verified> {
        let (inner, deadline) = (Arc::clone(self), self.settings.profile_deadline);
        let begin = move || -> tollgate_core::answer::Pending<Verified> {
            Box::pin(async move {
                let found = timeout(deadline, inner.find_profile(slot, checked, profiles, now)).await;
                found.unwrap_or_else(|_| {
                    Err(Denial::unavailable(format!("no profile of the token's subject within {deadline:?}")))
                })
            })
        };
        match self.lookups.join((slot, self.cache.as_of_now()), begin) {
            Ok(waiter) => Answer::later(async move {
                let ended = || {
                    Err(Denial::unavailable(
                        "the lookup of a profile ended without an answer: it has panicked, or the tokio runtime was shut down",
                    ))
                };
                waiter.result().await.unwrap_or_else(ended)
            }),
            Err(error) => Answer::Now(Err(error.into())),
        }
    }

    async fn find_profile(
        &self,
        slot: Slot,
        checked: Checked,
        profiles: Arc<dyn Profiles>,
        now: SystemTime,
    ) -> Verified {
        for _ in 0..MAX_LOOKUPS {
            let as_of = self.cache.as_of_now();
            let principal = profiles.find(&checked.claims).await?;
            let kept = self.keep(slot, principal, &checked, as_of, now)?;
            // Its tenant may have changed while it was read. From `keep` on, an event ends it.
            if self.cache.as_of_now() == as_of {
                return Ok(kept);
            }
        }
        Err(Denial::unavailable("the tenants changed during each lookup of a profile"))
    }

    /// Tracks a principal, so that events end it, and caches it.
    fn keep(
        &self,
        slot: Slot,
        principal: Principal,
        checked: &Checked,
        as_of: AsOf,
        now: SystemTime,
    ) -> Result<Arc<Principal>, Denial> {
        let ends_at = principal.expires_at().map_or(checked.ends_at, |own| own.min(checked.ends_at));
        let mut principal = principal.with_expiry(ends_at);
        if let Some(environment) = slot.1 {
            principal = principal.with_environment(environment);
        }
        let principal = Arc::new(principal);
        let ties = Ties::new(&checked.claims, principal.tenant());
        if self.settings.revocations.track(principal.end_signal(), ties, now) {
            return Err(
                Denial::new(DenialKind::KeyRevoked).with_log_detail("the token or its session was revoked")
            );
        }
        let ttl = match &self.settings.principals {
            Principals::Claims(_) => None,
            Principals::Profiles(_) => Some(self.settings.profile_ttl),
        };
        let ttl = ttl.into_iter().chain(self.trusted_for.get().copied()).min();
        let fresh_until =
            ttl.map_or(ends_at, |ttl| now.checked_add(ttl).map_or(ends_at, |until| until.min(ends_at)));
        let entry = Entry {
            principal: Arc::clone(&principal),
            key: Arc::clone(&checked.key),
            ring: Arc::clone(&checked.ring),
            header: checked.token.header.clone(),
            cached_at: now,
            fresh_until,
        };
        self.cache.insert(slot, entry, as_of);
        Ok(principal)
    }
}

/// A token whose signature and claims are verified.
struct Checked {
    claims: Arc<Claims>,
    ends_at: SystemTime,
    key: Arc<Key>,
    ring: Arc<KeyRing>,
    token: Token,
}

impl StoreListener for Inner {
    fn on_event(&self, event: &StoreEvent) {
        // First: a principal that is made from here on is newer than the event.
        self.cache.on_event(event);
        if let StoreEvent::Tenant { tenant, end: Some(reason), .. } = event {
            self.settings.revocations.end_tenant(tenant, *reason);
        }
    }
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let issuers: Vec<_> = self.0.settings.issuers.iter().map(|(issuer, _)| issuer).collect();
        f.debug_struct("JwtVerifier")
            .field("issuers", &issuers)
            .field("cached", &self.0.cache.len())
            .finish_non_exhaustive()
    }
}

/// The keys of an issuer cannot be used: returned by [`JwtVerifier::connect`]. The message names the issuer and says what to do.
#[derive(Clone, Debug)]
pub struct ConnectError {
    issuer: Box<str>,
    error: KeysError,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the keys of the issuer {} cannot be used: {}", self.issuer, self.error)
    }
}

impl std::error::Error for ConnectError {}
