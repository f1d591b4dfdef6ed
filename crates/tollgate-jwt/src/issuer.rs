//! An issuer of tokens, and what is required of its tokens.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use jsonwebtoken::Algorithm as Name;
use serde_json::Value;
use tollgate_core::denial::{Denial, DenialKind};

use crate::{
    Algorithm,
    claims::{Claims, invalid},
    fetch_keys::FetchKeys,
    key::Key,
    key_ring::{KeyRing, KeySettings},
    key_set::KeySet,
    token::{Header, Token},
};

/// An issuer of tokens: its name (`iss`), the audience that its tokens must be for (`aud`), and its keys.
///
/// ```
/// use tollgate_jwt::{Algorithm, Issuer};
///
/// # #[cfg(feature = "http")]
/// // Auth0, Okta, Keycloak and others publish their keys at a URL that their documentation names.
/// let issuer = Issuer::from_url(
///     "https://example.eu.auth0.com/",
///     "https://api.example.com",
///     "https://example.eu.auth0.com/.well-known/jwks.json",
/// )?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```
/// use std::time::Duration;
/// use tollgate_jwt::{Algorithm, Issuer};
/// # fn doc(issuer: Issuer) {
///
/// let issuer = issuer
///     .with_algorithms([Algorithm::Es256])
///     .with_access_tokens_only()
///     .with_leeway(Duration::from_secs(30))
///     .with_key_ttl(Duration::from_secs(10 * 60));
/// # }
/// ```
///
/// # How keys are fetched
///
/// | | default |
/// |---|---|
/// | at first | when [`JwtVerifier::connect`](crate::JwtVerifier::connect) or the first token asks for them; concurrent requests share one fetch |
/// | again | after [5 minutes](Self::with_key_ttl); from 4 minutes on beside the requests, so that none waits |
/// | for an unknown `kid` | once, and not again within [30 seconds](Self::with_key_cool_down), unless that fetch has failed |
/// | a fetch takes at most | [5 seconds](Self::with_key_deadline), and so does a request that waits for it |
/// | after a failure | at the next request, but not within 2 seconds of its end; the last keys stay in use until they are [1 hour](Self::with_stale_keys_for) old |
/// | a set has at most | 256 KiB and 100 keys |
///
/// An issuer must give a new key a new `kid`. A key that replaces another one under the same name, or without a name, is noticed when the
/// keys are fetched again: tokens of the new key are refused until then. A wrong signature causes no fetch.
///
/// Deadlines need the timers of the tokio runtime: with a `Builder` of your own, call `enable_all`.
///
/// An answer that is no key set, is too long, or has no usable key is a failure: the last keys stay in use. While keys are not known,
/// requests are refused with 503.
#[derive(Clone)]
pub struct Issuer {
    name: Box<str>,
    audiences: Vec<Box<str>>,
    algorithms: Vec<Name>,
    needs_access_token: bool,
    leeway: Duration,
    keys: Keys,
    key_settings: KeySettings,
}

#[derive(Clone)]
enum Keys {
    Fixed(KeySet),
    Fetched(Arc<dyn FetchKeys>),
}

impl Issuer {
    /// The longest leeway: 60 seconds.
    pub const MAX_LEEWAY: Duration = Duration::from_secs(60);

    /// The shortest secret for HS256, in bytes (RFC 7518 section 3.2).
    pub const MIN_SECRET_BYTES: usize = 32;

    /// An issuer that publishes its keys at a URL: see [`HttpKeys`](crate::HttpKeys).
    ///
    /// # Errors
    /// [`InvalidKeysUrl`](crate::InvalidKeysUrl) if the URL is not one of `https`, or of `http` on this machine.
    #[cfg(feature = "http")]
    pub fn from_url(
        issuer: impl Into<Box<str>>,
        audience: impl Into<Box<str>>,
        url: impl AsRef<str>,
    ) -> Result<Self, crate::InvalidKeysUrl> {
        Ok(Self::from_source(issuer, audience, crate::HttpKeys::new(url)?))
    }

    /// An issuer whose keys are fetched by code of your own.
    pub fn from_source(
        issuer: impl Into<Box<str>>,
        audience: impl Into<Box<str>>,
        source: impl FetchKeys,
    ) -> Self {
        let algorithms = Algorithm::DEFAULT.map(Algorithm::name).into();
        Self::new(issuer, audience, algorithms, Keys::Fetched(Arc::new(source)))
    }

    /// An issuer whose keys never change while the program runs.
    pub fn from_keys(issuer: impl Into<Box<str>>, audience: impl Into<Box<str>>, keys: KeySet) -> Self {
        let algorithms = Algorithm::DEFAULT.map(Algorithm::name).into();
        Self::new(issuer, audience, algorithms, Keys::Fixed(keys))
    }

    /// An issuer that signs with HS256 and a secret that it shares with this service, as older Supabase projects do. No other algorithm
    /// is accepted.
    ///
    /// # Security
    /// Everyone who knows the secret can issue tokens. Prefer an issuer with a key pair.
    ///
    /// The copy that is made of the secret is wiped when it is dropped; wipe your own if that matters.
    ///
    /// # Errors
    /// [`WeakSecret`] if the secret has fewer than [32 bytes](Self::MIN_SECRET_BYTES).
    pub fn hs256(
        issuer: impl Into<Box<str>>,
        audience: impl Into<Box<str>>,
        secret: impl AsRef<[u8]>,
    ) -> Result<Self, WeakSecret> {
        let secret = Some(secret.as_ref()).filter(|secret| secret.len() >= Self::MIN_SECRET_BYTES);
        let key = secret.and_then(Key::hs256).ok_or(WeakSecret(()))?;
        Ok(Self::new(issuer, audience, vec![Name::HS256], Keys::Fixed(KeySet::of_secret(key))))
    }

    fn new(
        issuer: impl Into<Box<str>>,
        audience: impl Into<Box<str>>,
        algorithms: Vec<Name>,
        keys: Keys,
    ) -> Self {
        Self {
            name: issuer.into(),
            audiences: vec![audience.into()],
            algorithms,
            needs_access_token: false,
            leeway: Duration::from_secs(5),
            keys,
            key_settings: KeySettings {
                ttl: Duration::from_secs(5 * 60),
                stale_for: Duration::from_secs(60 * 60),
                cool_down: Duration::from_secs(30),
                deadline: Duration::from_secs(5),
            },
        }
    }

    /// Accepts tokens for another audience as well.
    pub fn with_audience(mut self, audience: impl Into<Box<str>>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// The only algorithms that tokens may be signed with. Default: RS256, ES256 and `EdDSA`. A key limits them further: its type and
    /// its own `alg` must fit. Ignored for [`hs256`](Self::hs256).
    pub fn with_algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        if !self.is_hs256() {
            self.algorithms = algorithms.into_iter().map(Algorithm::name).collect();
        }
        self
    }

    /// Requires the token's type to be `at+jwt` (RFC 9068 section 2.1): so that no other kind of token of the issuer, such as an ID token,
    /// passes for an access token. Default: `at+jwt`, `JWT`, or none. Tokens of other types are always refused.
    pub fn with_access_tokens_only(mut self) -> Self {
        self.needs_access_token = true;
        self
    }

    /// How far the issuer's clock may differ: a token is accepted this long before its `nbf`, and after its `exp`. Default: 5 seconds. A
    /// longer one than [60 seconds](Self::MAX_LEEWAY) is shortened to it.
    pub fn with_leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway.min(Self::MAX_LEEWAY);
        self
    }

    /// How long keys are used before they are fetched again: a key that the issuer withdraws works for this time at most. Default: 5 minutes.
    pub fn with_key_ttl(mut self, ttl: Duration) -> Self {
        self.key_settings.ttl = ttl;
        self
    }

    /// While they cannot be fetched, how old keys may become. Default: 1 hour, since few access tokens live longer. A shorter time
    /// than the [TTL](Self::with_key_ttl) has no effect.
    pub fn with_stale_keys_for(mut self, time: Duration) -> Self {
        self.key_settings.stale_for = time;
        self
    }

    /// How long after a fetch because of an unknown `kid` no other one is made for that reason. Default: 30 seconds.
    ///
    /// While strangers send tokens with invented `kid`s, a new key may be refused for this time, unless the issuer has published it
    /// before its first use and for at least the [TTL](Self::with_key_ttl).
    pub fn with_key_cool_down(mut self, time: Duration) -> Self {
        self.key_settings.cool_down = time;
        self
    }

    /// How long a fetch of the keys may take. Default: 5 seconds.
    pub fn with_key_deadline(mut self, deadline: Duration) -> Self {
        self.key_settings.deadline = deadline;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn algorithms(&self) -> &[Name] {
        &self.algorithms
    }

    /// Whether it signs with a secret.
    pub(crate) fn is_hs256(&self) -> bool {
        self.algorithms == [Name::HS256]
    }

    pub(crate) fn key_ring(&self) -> KeyRing {
        match &self.keys {
            Keys::Fixed(keys) => KeyRing::fixed(&self.name, self.key_settings, keys.clone()),
            Keys::Fetched(source) => KeyRing::fetched(&self.name, self.key_settings, Arc::clone(source)),
        }
    }

    /// Checks what can be checked without a key.
    pub(crate) fn check_header(&self, header: &Header) -> Result<(), Denial> {
        if !self.algorithms.contains(&header.algorithm) {
            return Err(invalid("the token's algorithm is not one of those that are allowed for its issuer"));
        }
        match header.token_type.as_deref() {
            Some("at+jwt") => Ok(()),
            None | Some("jwt") if !self.needs_access_token => Ok(()),
            _ => Err(invalid("the token's `typ` is not that of an access token")),
        }
    }

    /// Checks the signature, and then the claims. Returns the instant from which the token is refused.
    pub(crate) fn check(
        &self,
        token: &Token,
        key: &Key,
        claims: &Claims,
        now: SystemTime,
    ) -> Result<SystemTime, Denial> {
        if !key.verifies(token.header.algorithm, &token.message, &token.signature) {
            return Err(invalid("the token's signature is not that of the issuer's key"));
        }
        if !self.is_for_audience(claims.get("aud")) {
            return Err(invalid("the token's `aud` is missing, or is not one of those that are accepted"));
        }
        // Such a token belongs to a sender with a key of its own (RFC 7800), which is not checked here.
        if claims.get("cnf").is_some() {
            return Err(invalid(
                "the token has `cnf`: tokens that are bound to a key of their sender are not supported",
            ));
        }
        let date = |name, error| claims.date(name).map_err(|()| invalid(error));
        let expires_at = date("exp", "the token's `exp` is no number of seconds before the year 9999")?;
        let expires_at = expires_at.ok_or_else(|| invalid("the token has no `exp`"))?;
        let not_before = date("nbf", "the token's `nbf` is no number of seconds before the year 9999")?;
        let is_early =
            |not_before: SystemTime| not_before.duration_since(now).is_ok_and(|ahead| ahead > self.leeway);
        if not_before.is_some_and(is_early) {
            return Err(invalid("the token is not valid yet"));
        }
        let ends_at = expires_at + self.leeway;
        if ends_at <= now {
            return Err(Denial::new(DenialKind::KeyExpired).with_log_detail("the token has expired"));
        }
        Ok(ends_at)
    }

    /// `aud` is a text or an array of texts (RFC 7519 section 4.1.3).
    fn is_for_audience(&self, claim: Option<&Value>) -> bool {
        let is_accepted = |name: &str| self.audiences.iter().any(|audience| **audience == *name);
        match claim {
            Some(Value::String(name)) => is_accepted(name),
            Some(Value::Array(names)) => {
                let names: Option<Vec<_>> = names.iter().map(Value::as_str).collect();
                names.is_some_and(|names| names.into_iter().any(is_accepted))
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("name", &self.name)
            .field("audiences", &self.audiences)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// A secret for HS256 has fewer than 32 bytes, so it could be guessed from one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeakSecret(());

impl fmt::Display for WeakSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the secret for HS256 has fewer than 32 bytes (RFC 7518 section 3.2): use 32 random bytes or more")
    }
}

impl std::error::Error for WeakSecret {}
