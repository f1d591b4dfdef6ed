//! Tokens and sessions that are revoked before they expire.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tollgate_core::{
    clock::{Clock, SystemClock},
    key::Digest,
    store::{EndReason, EndSignal, WeakEndSignal},
};

use crate::claims::Claims;

/// Revokes tokens and sessions before they expire: from now on they are refused, and streams that they have opened end.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tollgate_jwt::{Issuer, JwtVerifier, Revocations};
/// # fn doc(issuer: Issuer, session: &str, expires_at: SystemTime) -> Result<(), tollgate_jwt::RevocationsFull> {
///
/// let revocations = Revocations::new();
/// let verifier = JwtVerifier::new(issuer).with_revocations(&revocations);
///
/// revocations.revoke_session(session, expires_at)?; // for example when the user logs out
/// # Ok(()) }
/// ```
///
/// A token is known by its claim `jti`, and a session by `sid` or `session_id` (Supabase). Tokens without these claims cannot be revoked.
/// A revocation holds for the tokens of every issuer.
///
/// Clones share their state. It is in this process only: after a restart, and in every other process, revoke again what has not expired.
/// It holds at most 100,000 revocations unless [`with_capacity`](Self::with_capacity) says otherwise, of about 100 bytes each.
#[derive(Clone)]
pub struct Revocations(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    // Until when a token or session is revoked.
    revoked: HashMap<Digest, SystemTime>,
    held: Vec<Held>,
    // How many were left after the last sweep.
    swept: usize,
}

/// What a token's principal can be ended by. Digests, since an issuer may choose texts of any length.
#[derive(Clone, Copy)]
pub(crate) struct Ties {
    token: Option<Digest>,
    session: Option<Digest>,
    tenant: Option<Digest>,
}

/// A principal that was returned, for as long as anything holds its signal.
struct Held {
    signal: WeakEndSignal,
    ties: Ties,
}

impl Revocations {
    /// Nothing is revoked.
    pub fn new() -> Self {
        Self::with(100_000, Arc::new(SystemClock))
    }

    /// Holds at most this many revocations that have not expired. Default: 100,000. Returns an empty list.
    pub fn with_capacity(self, revocations: usize) -> Self {
        Self::with(revocations, Arc::clone(&self.0.clock))
    }

    /// Decides by this clock which revocations have expired. Default: the machine's. Returns an empty list.
    pub fn with_clock(self, clock: impl Clock) -> Self {
        Self::with(self.0.capacity, Arc::new(clock))
    }

    fn with(capacity: usize, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { clock, capacity, state: Mutex::default() }))
    }

    /// Revokes the token whose claim `jti` is this. `until` is its expiry, with the issuer's leeway, or any later instant: from then on,
    /// the revocation is forgotten.
    ///
    /// When it returns, this process refuses the token, and streams of it were signalled to end.
    ///
    /// # Errors
    /// [`RevocationsFull`] if the list is full of revocations that have not expired. The token was not revoked.
    pub fn revoke_token(&self, jti: &str, until: SystemTime) -> Result<(), RevocationsFull> {
        let token = token(jti);
        self.revoke(token, until, |ties| ties.token == Some(token))
    }

    /// Revokes all tokens whose claim `sid` or `session_id` is this, also those that are issued later. `until` is the latest expiry of
    /// these tokens, with the issuer's leeway, or any later instant.
    ///
    /// When it returns, this process refuses the tokens, and streams of them were signalled to end.
    ///
    /// # Errors
    /// [`RevocationsFull`] if the list is full of revocations that have not expired. The session was not revoked.
    pub fn revoke_session(&self, sid: &str, until: SystemTime) -> Result<(), RevocationsFull> {
        let session = session(sid);
        self.revoke(session, until, |ties| ties.session == Some(session))
    }

    fn revoke(
        &self,
        what: Digest,
        until: SystemTime,
        is_meant: impl Fn(&Ties) -> bool,
    ) -> Result<(), RevocationsFull> {
        let mut state = self.lock();
        if state.revoked.len() >= self.0.capacity && !state.revoked.contains_key(&what) {
            let now = self.0.clock.now();
            state.revoked.retain(|_, until| *until > now);
            if state.revoked.len() >= self.0.capacity {
                return Err(RevocationsFull(()));
            }
        }
        let known = state.revoked.entry(what).or_insert(until);
        *known = until.max(*known);
        let ended = state.take_ended(is_meant);
        drop(state);
        end(ended, EndReason::Revoked);
        Ok(())
    }

    /// Ends the principals of a tenant.
    pub(crate) fn end_tenant(&self, tenant: &str, reason: EndReason) {
        let tenant = Digest::of(tenant);
        let ended = self.lock().take_ended(|ties| ties.tenant == Some(tenant));
        end(ended, reason);
    }

    /// Tracks the signal of a principal. Returns whether its token is revoked as of `now`: a later revocation ends the signal.
    pub(crate) fn track(&self, signal: &EndSignal, ties: Ties, now: SystemTime) -> bool {
        let mut state = self.lock();
        let marks = [ties.token, ties.session].into_iter().flatten();
        let is_revoked =
            marks.into_iter().any(|mark| state.revoked.get(&mark).is_some_and(|until| *until > now));
        if !is_revoked {
            state.track(Held { signal: signal.downgrade(), ties });
        }
        is_revoked
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics between two related changes, so a panic on another thread leaves the value valid.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn track(&mut self, held: Held) {
        if self.held.len() > 2 * self.swept.max(1_024) {
            self.held.retain(|held| held.signal.is_held());
            self.swept = self.held.len();
        }
        self.held.push(held);
    }

    fn take_ended(&mut self, is_meant: impl Fn(&Ties) -> bool) -> Vec<EndSignal> {
        let mut ended = Vec::new();
        self.held.retain(|held| {
            let stays = !is_meant(&held.ties);
            if !stays {
                ended.extend(held.signal.upgrade());
            }
            stays
        });
        ended
    }
}

/// A task that waits for a signal may run at once, so no lock may be held.
fn end(signals: Vec<EndSignal>, reason: EndReason) {
    for signal in signals {
        signal.end(reason);
    }
}

impl Ties {
    pub(crate) fn new(claims: &Claims, tenant: Option<&str>) -> Self {
        Self {
            token: claims.text("jti").map(token),
            session: claims.text("sid").or_else(|| claims.text("session_id")).map(session),
            tenant: tenant.map(Digest::of),
        }
    }
}

fn token(jti: &str) -> Digest {
    Digest::of(format!("jti {jti}"))
}

fn session(sid: &str) -> Digest {
    Digest::of(format!("sid {sid}"))
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("revoked", &self.lock().revoked.len()).finish_non_exhaustive()
    }
}

/// The list of revocations is full: see [`Revocations::with_capacity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationsFull(());

impl fmt::Display for RevocationsFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the list of revoked tokens is full: raise Revocations::with_capacity, or revoke sessions in place of single tokens")
    }
}

impl std::error::Error for RevocationsFull {}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use tollgate_core::clock::ManualClock;

    use super::*;

    fn ties(jti: &str) -> Ties {
        Ties { token: Some(token(jti)), session: None, tenant: None }
    }

    #[test]
    fn a_full_list_refuses_revocations_and_forgets_only_expired_ones() {
        let clock = ManualClock::at(UNIX_EPOCH);
        let revocations = Revocations::new().with_capacity(2).with_clock(clock.clone());
        let until = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        revocations.revoke_token("one", until(10)).unwrap();
        revocations.revoke_token("two", until(20)).unwrap();
        assert!(revocations.revoke_token("three", until(30)).is_err());
        revocations.revoke_token("two", until(15)).unwrap(); // known already, and not shortened
        clock.set(until(10));
        revocations.revoke_token("three", until(30)).unwrap();
        let is_revoked = |jti, now| revocations.track(&EndSignal::new(), ties(jti), until(now));
        assert_eq!(["one", "two", "three"].map(|jti| is_revoked(jti, 10)), [false, true, true]);
        assert_eq!([16, 20].map(|now| is_revoked("two", now)), [true, false]);
    }

    #[test]
    fn forgets_signals_that_nothing_holds() {
        let revocations = Revocations::new();
        for number in 0..10_000 {
            revocations.track(&EndSignal::new(), ties(&number.to_string()), UNIX_EPOCH);
        }
        assert!(revocations.lock().held.len() <= 2_049);
    }
}
