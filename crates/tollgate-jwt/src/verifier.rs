//! The verifier of tokens: its settings.

mod verification;

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, SystemTime},
};

use http::HeaderName;
use tollgate_core::{
    answer::Answer,
    clock::{Clock as _, SystemClock},
    denial::{Denial, DenialKind},
    key::Environment,
    store::{KeyStore, StoreEvent},
    verify::{Principal, Verify, VerifyRequest},
};

use crate::{
    circuit_breaker::CircuitBreaker,
    claims::{Claims, invalid},
    issuer::Issuer,
    key_ring::{KeyRing, KeysError},
    key_set::{Fault, InvalidKeySet},
    profiles::Profiles,
    revocations::Revocations,
    shared_tasks::SharedTasks,
    token_cache::TokenCache,
};
use verification::Inner;

type Verified = Result<Arc<Principal>, Denial>;

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
/// | a header that names no environment, of a caller whose token is valid anywhere | 400 | `environment_invalid` |
/// | a header that names another environment than the principal's own | 401 | `wrong_environment` |
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
/// It must be used in a tokio runtime whose timers are enabled.
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

impl Settings {
    /// Whether all issuers are one: then `sub` alone identifies a caller.
    fn has_one_name(&self) -> bool {
        let mut names = self.issuers.iter().map(|(issuer, _)| issuer.name());
        let first = names.next();
        names.all(|name| Some(name) == first)
    }
}

type ToPrincipal = dyn Fn(&Claims) -> Result<Principal, Denial> + Send + Sync;

/// What makes the principal of a token.
#[derive(Clone)]
enum Principals {
    Claims(Arc<ToPrincipal>),
    Profiles(Arc<dyn Profiles>),
}

impl JwtVerifier {
    /// The largest limit of a token's length: 1 MiB. The verifier keeps a key of this length for the digests of tokens.
    pub const MAX_TOKEN_BYTES: usize = 1024 * 1024;

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
    /// Two may have the same name if one of them is [`Issuer::hs256`] and the other one has key pairs: the token's algorithm chooses, for an
    /// issuer in transition from a secret to key pairs.
    ///
    /// # Errors
    /// [`DuplicateIssuer`] if the verifier has an issuer of this name and kind.
    pub fn with_issuer(self, issuer: Issuer) -> Result<Self, DuplicateIssuer> {
        let is_same = |other: &Issuer| other.name() == issuer.name() && other.is_hs256() == issuer.is_hs256();
        if self.0.settings.issuers.iter().any(|(other, _)| is_same(other)) {
            return Err(DuplicateIssuer { name: issuer.name().into() });
        }
        Ok(self.set(|settings| {
            let ring = Arc::new(issuer.key_ring());
            settings.issuers.push((issuer, ring));
        }))
    }

    /// Makes principals from claims. Default: [`Claims::to_principal`].
    ///
    /// It is called once for a token, and its answer is cached until the token expires. Use [profiles](Self::with_profiles) if it depends on
    /// anything but the claims.
    ///
    /// The end of a token does not end other tokens, even if their principals are clones of one: each principal gets an
    /// [`EndSignal`](tollgate_core::store::EndSignal) of its own. If the application's signal has ended already, so has the new one. The
    /// application cannot end the principal by its signal later: use [`Revocations`].
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
    /// It needs [profiles](Self::with_profiles): a suspended tenant is refused only if they refuse it. Without them,
    /// [`connect`](Self::connect) fails and each request is refused with 500. Profiles must not be older than the event: read
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
    /// Another value, or the header twice, is refused with 400; with 401, if the principal has allowed networks, since the caller may be
    /// outside them. A principal that has another environment already is refused with
    /// [`WrongEnvironment`](DenialKind::WrongEnvironment): 401. Default: the environment is that of the principal, if it has one.
    ///
    /// Do not put a `CachedVerifier` in front: it finds principals by the credential alone, and would return one of the other environment.
    /// This verifier has a cache of its own.
    pub fn with_environment_header(self, name: HeaderName, default: Environment) -> Self {
        self.set(|settings| settings.environment = Some((name, default)))
    }

    /// Caches the principals of at most this many tokens. Default: 100,000.
    pub fn with_capacity(self, tokens: usize) -> Self {
        self.set(|settings| settings.capacity = tokens)
    }

    /// Refuses longer tokens before anything else is done with them. Default: 16 KiB. At most [1 MiB](Self::MAX_TOKEN_BYTES).
    ///
    /// A `CredentialLayer` in front of the verifier refuses credentials of more than 4,096 bytes: raise its `with_max_length`, too.
    pub fn with_max_token_bytes(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_token_bytes = bytes.min(Self::MAX_TOKEN_BYTES))
    }

    /// Fetches the keys of all issuers, so that a mistake is found at the start of the program, and the first request need not wait. Without
    /// it, keys are fetched when a token asks for them.
    ///
    /// # Errors
    /// [`ConnectError`] names the first issuer whose keys cannot be fetched, are none, do not fit its algorithms, or contain a secret. It
    /// is also returned for [store events](Self::with_store_events) without profiles.
    pub async fn connect(&self) -> Result<(), ConnectError> {
        self.connect_at(SystemClock.now()).await
    }

    /// As [`connect`](Self::connect), at this instant: for stacks whose clock is not the machine's.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_at(&self, now: SystemTime) -> Result<(), ConnectError> {
        if self.0.settings.store.is_some() && matches!(self.0.settings.principals, Principals::Claims(_)) {
            return Err(ConnectError(ConnectFault::NoProfiles));
        }
        for (issuer, ring) in &self.0.settings.issuers {
            let error = |error| ConnectError(ConnectFault::Keys { issuer: issuer.name().into(), error });
            let keys = ring.connect(now).await.map_err(error)?;
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
        self.0.cache.forget_all();
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
            lookups: SharedTasks::default(),
            breaker: CircuitBreaker::default(),
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
            // Only the owner of a valid token may learn more about the request, and only where the token may be used.
            return self.0.verify(request, None).map(|verified| {
                Err(if verified?.allowed_networks().is_anywhere() {
                    Denial::new(DenialKind::EnvironmentInvalid)
                } else {
                    invalid("the request's header names no environment. The principal has allowed networks, so the caller gets 401")
                })
            });
        };
        self.0.verify(request, environment)
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

/// The keys of an issuer cannot be used, or a setting is missing: returned by [`JwtVerifier::connect`]. The message names the issuer or the
/// setting, and says what to do.
#[derive(Clone, Debug)]
pub struct ConnectError(ConnectFault);

#[derive(Clone, Debug)]
enum ConnectFault {
    Keys { issuer: Box<str>, error: KeysError },
    NoProfiles,
}

/// Events about tenants without anything that refuses a suspended one.
const NO_PROFILES: &str = "JwtVerifier::with_store_events has no effect without profiles that refuse suspended tenants: add with_profiles";

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ConnectFault::Keys { issuer, error } => {
                write!(f, "the keys of the issuer {issuer} cannot be used: {error}")
            }
            ConnectFault::NoProfiles => f.write_str(NO_PROFILES),
        }
    }
}

impl std::error::Error for ConnectError {}

/// A verifier has an issuer of this name already: returned by [`JwtVerifier::with_issuer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateIssuer {
    name: Box<str>,
}

impl fmt::Display for DuplicateIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "two issuers have the name {}: use one, or Issuer::hs256 beside one with key pairs; for more audiences, use Issuer::with_audience",
            self.name
        )
    }
}

impl std::error::Error for DuplicateIssuer {}
