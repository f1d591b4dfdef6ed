//! The way of a token: from the cache, or by its issuer, its key, its claims and its profile.

use std::{
    mem,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use tokio::time::timeout;
use tollgate_core::{
    answer::{Answer, Pending},
    denial::{Denial, DenialKind},
    key::Environment,
    request::RequestHead,
    store::{EndSignal, StoreEvent, StoreListener},
    verify::{Principal, VerifyRequest},
};

use super::{NO_PROFILES, Principals, Settings, Verified};
use crate::{
    circuit_breaker::CircuitBreaker,
    claims::{Claims, invalid},
    key::Key,
    key_ring::KeyRing,
    profiles::Profiles,
    recent_events::AsOf,
    revocations::Ties,
    shared_tasks::{ENDED, SharedTasks},
    token::Token,
    token_cache::{Entry, Slot, TokenCache},
};

/// How often a profile is looked up because of events about its tenant during the lookups.
const MAX_LOOKUPS: u8 = 3;

/// A lookup of a profile that has been in progress for longer is not joined: its answer may have been lost, and the source may be back.
const MAX_JOINED_AGE: Duration = Duration::from_secs(1);

/// An issuer's key, or a fetch of its keys.
type FoundKey = Answer<Result<Arc<Key>, Denial>>;

pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) cache: TokenCache,
    // How long a profile may be trusted, if the store has no events.
    pub(super) trusted_for: OnceLock<Duration>,
    pub(super) lookups: SharedTasks<(Slot, AsOf), Verified>,
    pub(super) breaker: CircuitBreaker,
}

impl Inner {
    /// The environment that a request names; `None` if no header is read.
    #[inline]
    pub(super) fn environment(&self, head: RequestHead<'_>) -> Result<Option<Environment>, ()> {
        let Some((name, default)) = &self.settings.environment else { return Ok(None) };
        let mut values = head.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(Some(*default)),
            (Some(value), None) => value.to_str().ok().and_then(|name| name.parse().ok()).map(Some).ok_or(()),
            (Some(_), Some(_)) => Err(()),
        }
    }

    #[inline]
    pub(super) fn verify(
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
                    // The entry may have ended during the wait, by a revocation or by an event about its tenant.
                    if Arc::ptr_eq(&found.await?, &entry.key) && inner.cache.has(&slot, &entry, now) {
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

    /// Chooses the issuer that a token names, and asks for its key. Two issuers may have one name: then their algorithms differ.
    fn key_of(&self, token: &Token, now: SystemTime) -> Result<(usize, FoundKey), Denial> {
        let name = token.claims.get("iss").and_then(|name| name.as_str());
        let name = name.ok_or_else(|| invalid("the token has no `iss` that is a text"))?;
        let named = || {
            let issuers = self.settings.issuers.iter().enumerate();
            issuers.filter(|(_, (issuer, _))| issuer.name() == name)
        };
        let (index, (issuer, ring)) = named()
            .find(|(_, (issuer, _))| issuer.algorithms().contains(&token.header.algorithm))
            .or_else(|| named().next())
            .ok_or_else(|| invalid("the token's `iss` is not one of the verifier's issuers"))?;
        issuer.check_header(&token.header)?;
        Ok((index, ring.find(&token.header, now)))
    }

    fn check(
        &self,
        mut token: Token,
        index: usize,
        key: Arc<Key>,
        now: SystemTime,
    ) -> Result<Checked, Denial> {
        let missing = || Denial::misconfigured("a JwtVerifier has no issuer");
        let (issuer, ring) = self.settings.issuers.get(index).ok_or_else(missing)?;
        let claims =
            Claims { members: mem::take(&mut token.claims), is_only_issuer: self.settings.has_one_name() };
        let ends_at = issuer.check(&token, &key, &claims, now)?;
        Ok(Checked { claims: Arc::new(claims), ends_at, key, ring: Arc::clone(ring), token })
    }

    /// Makes the principal of a token, and caches it.
    fn principal(self: &Arc<Self>, slot: Slot, checked: Checked, now: SystemTime) -> Answer<Verified> {
        match &self.settings.principals {
            Principals::Claims(_) if self.settings.store.is_some() => {
                Answer::Now(Err(Denial::misconfigured(NO_PROFILES)))
            }
            Principals::Claims(to_principal) => {
                let as_of = self.cache.as_of_now();
                let principal = to_principal(&checked.claims);
                Answer::Now(principal.and_then(|principal| {
                    let (principal, _) = self.keep(slot, principal, &checked, as_of, now)?;
                    Ok(principal)
                }))
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
        if !self.breaker.admits() {
            return Answer::Now(Err(Denial::unavailable(
                "the circuit breaker of the profiles is open: five lookups in a row have failed",
            )));
        }
        let (inner, deadline) = (Arc::clone(self), self.settings.profile_deadline);
        let begin = move || -> Pending<Verified> {
            Box::pin(async move {
                let found = timeout(deadline, inner.find_profile(slot, checked, profiles, now)).await;
                let found = found.unwrap_or_else(|_| {
                    Err(Denial::unavailable(format!("no profile of the token's subject within {deadline:?}")))
                });
                let has_failed = |denial: &Denial| denial.kind() == DenialKind::Unavailable;
                inner.breaker.record(slot.0, !found.as_ref().is_err_and(has_failed));
                found
            })
        };
        match self.lookups.join((slot, self.cache.as_of_now()), MAX_JOINED_AGE, begin) {
            Ok(waiter) => {
                let inner = Arc::clone(self);
                Answer::later(async move {
                    waiter.result().await.unwrap_or_else(|| {
                        inner.breaker.record(slot.0, false);
                        Err(Denial::unavailable(format!("the profile of a token is not known: {ENDED}")))
                    })
                })
            }
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
            // Its tenant may have changed while it was read.
            if let (principal, true) = self.keep(slot, principal, &checked, as_of, now)? {
                return Ok(principal);
            }
        }
        Err(Denial::unavailable("the tenant changed during each lookup of a profile"))
    }

    /// Tracks a principal, so that events end it, and caches it. Returns whether it is newer than all events about its tenant.
    fn keep(
        &self,
        slot: Slot,
        principal: Principal,
        checked: &Checked,
        as_of: AsOf,
        now: SystemTime,
    ) -> Result<(Arc<Principal>, bool), Denial> {
        let principal = Arc::new(adapt(principal, checked.ends_at, slot.1)?);
        let ties = Ties::new(&checked.claims, principal.tenant());
        if self.settings.revocations.track(principal.end_signal(), ties, now) {
            return Err(
                Denial::new(DenialKind::KeyRevoked).with_log_detail("the token or its session was revoked")
            );
        }
        let ends_at = principal.expires_at().unwrap_or(checked.ends_at);
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
        // From here on, an event ends the principal and removes the entry.
        let is_current = self.cache.insert(slot, entry, as_of);
        Ok((principal, is_current))
    }
}

/// The application's principal, as that of one token: with the token's end, the request's environment, and a signal of its own. An
/// application may return clones of one principal for several tokens, and the end of one must not end the others.
fn adapt(
    principal: Principal,
    ends_at: SystemTime,
    environment: Option<Environment>,
) -> Result<Principal, Denial> {
    let ends_at = principal.expires_at().map_or(ends_at, |own| own.min(ends_at));
    let signal = EndSignal::new();
    if let Some(reason) = principal.end_signal().reason() {
        signal.end(reason);
    }
    let own = principal.environment();
    let principal = principal.with_expiry(ends_at).with_end_signal(signal);
    match (own, environment) {
        (_, None) => Ok(principal),
        (Some(own), Some(named)) if own != named => Err(Denial::new(DenialKind::WrongEnvironment)
            .with_log_detail(format!("the request is for {named}, and the caller's principal is of {own}"))),
        (_, Some(named)) => Ok(principal.with_environment(named)),
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
