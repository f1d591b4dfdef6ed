//! The keys of one issuer as they are known now, and when they are fetched again.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, timeout};
use tollgate_core::{
    answer::{Answer, Pending},
    denial::{Denial, Unavailable},
};

use crate::{
    claims::invalid,
    fetch_keys::FetchKeys,
    key::Key,
    key_set::{Found, InvalidKeySet, KeySet},
    shared_tasks::{ENDED, SharedTasks, Waiter},
    token::Header,
};

/// How long after the end of a failed fetch the source is not asked again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How much earlier a request may have begun than what it compares its time with. More means that the clock was set back.
const MAX_SET_BACK: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
pub(crate) struct KeySettings {
    pub(crate) ttl: Duration,
    pub(crate) stale_for: Duration,
    pub(crate) cool_down: Duration,
    pub(crate) deadline: Duration,
}

/// The keys of one issuer.
pub(crate) struct KeyRing {
    /// The issuer, as errors name it.
    issuer: Box<str>,
    /// `None`: the keys never change.
    source: Option<Arc<dyn FetchKeys>>,
    settings: KeySettings,
    state: Mutex<State>,
    fetches: SharedTasks<(), Result<(), KeysError>>,
    /// Until when a token may be verified by its key alone, without a look at the state: milliseconds since 1970.
    fresh_until: AtomicU64,
}

#[derive(Default)]
struct State {
    set: Option<Arc<KeySet>>,
    /// When the fetch of this set began.
    fetched_at: Option<SystemTime>,
    /// When the last fetch ended, if it has failed, and its error.
    failed: Option<(SystemTime, KeysError)>,
    /// When a fetch because of an unknown key last began, unless it has failed.
    missed_at: Option<SystemTime>,
}

/// Why the keys of an issuer are not known.
#[derive(Clone, Debug)]
pub(crate) enum KeysError {
    Unavailable(Unavailable),
    Invalid(InvalidKeySet),
}

enum Next {
    Now(Result<Arc<Key>, Denial>),
    Wait(Waiter<Result<(), KeysError>>),
}

impl KeyRing {
    pub(crate) fn fixed(issuer: &str, settings: KeySettings, keys: KeySet) -> Self {
        let state = State { set: Some(Arc::new(keys)), ..State::default() };
        Self::new(issuer, settings, None, state, u64::MAX)
    }

    pub(crate) fn fetched(issuer: &str, settings: KeySettings, source: Arc<dyn FetchKeys>) -> Self {
        Self::new(issuer, settings, Some(source), State::default(), 0)
    }

    fn new(
        issuer: &str,
        settings: KeySettings,
        source: Option<Arc<dyn FetchKeys>>,
        state: State,
        fresh_until: u64,
    ) -> Self {
        Self {
            issuer: issuer.into(),
            source,
            settings,
            state: Mutex::new(state),
            fetches: SharedTasks::default(),
            fresh_until: AtomicU64::new(fresh_until),
        }
    }

    /// Whether the keys were confirmed lately. If not, [`find`](Self::find) confirms them.
    #[inline]
    pub(crate) fn is_fresh(&self, now: SystemTime) -> bool {
        milliseconds(now) < self.fresh_until.load(Ordering::Acquire)
    }

    /// The key that a header names. Waits at most for the deadline.
    pub(crate) fn find(
        self: &Arc<Self>,
        header: &Header,
        now: SystemTime,
    ) -> Answer<Result<Arc<Key>, Denial>> {
        let waiter = match self.next(header, now, 0) {
            Next::Now(found) => return Answer::Now(found),
            Next::Wait(waiter) => waiter,
        };
        let (ring, header) = (Arc::clone(self), header.clone());
        Answer::later(async move {
            let found = timeout(ring.settings.deadline, ring.find_by_fetch(waiter, &header, now)).await;
            let late = || format!("no answer within {:?}", ring.settings.deadline);
            found.unwrap_or_else(|_| ring.answer_without_fetch(&header, now, &late()))
        })
    }

    async fn find_by_fetch(
        self: &Arc<Self>,
        mut waiter: Waiter<Result<(), KeysError>>,
        header: &Header,
        now: SystemTime,
    ) -> Result<Arc<Key>, Denial> {
        // A fetch that this request has joined may have begun before its key was published: then it begins another one.
        for round in 1..=2 {
            if waiter.result().await.is_none() {
                return self.answer_without_fetch(header, now, ENDED);
            }
            match self.next(header, now, round) {
                Next::Now(found) => return found,
                Next::Wait(next) => waiter = next,
            }
        }
        match waiter.result().await {
            Some(_) => self.answer(&self.lock(), header, now),
            None => self.answer_without_fetch(header, now, ENDED),
        }
    }

    /// The key, or the fetch to wait for.
    fn next(self: &Arc<Self>, header: &Header, now: SystemTime, round: u8) -> Next {
        let mut state = self.lock();
        let Some(source) = &self.source else {
            return Next::Now(state.find(header).unwrap_or_else(|| Err(unknown())));
        };
        let age = state.age(now);
        let has_failed = state.failed.is_some();
        let may_retry = state.failed.as_ref().is_none_or(|(at, _)| has_passed(*at, RETRY_AFTER, now));
        match age {
            // Known, and not too old. A set that is due is fetched beside the request.
            Some(age) if age < self.settings.ttl || (has_failed && age < self.settings.stale_for) => {
                if let Some(found) = state.find(header) {
                    if may_retry && (has_failed || age >= self.refresh_age()) {
                        let _in_progress = self.fetch(source, now);
                    }
                    return Next::Now(found);
                }
                // A fetch in progress may have begun before the key was published. Then this request may cause a second one, which
                // others may have begun by then: a fetch that is in progress after the first one began later than this request.
                if !self.fetches.is_in_progress(&()) {
                    let is_cool =
                        state.missed_at.is_none_or(|at| has_passed(at, self.settings.cool_down, now));
                    if !is_cool || !may_retry {
                        return Next::Now(self.answer(&state, header, now));
                    }
                    state.missed_at = Some(now);
                }
            }
            // Not known, or too old.
            _ if round > 0 || !may_retry => return Next::Now(self.answer(&state, header, now)),
            _ => {}
        }
        // Under the lock: the next request with the same key must find this fetch, or it would be refused by the cool-down.
        let fetch = self.fetch(source, now);
        drop(state);
        fetch
    }

    /// The answer after a fetch.
    fn answer(&self, state: &State, header: &Header, now: SystemTime) -> Result<Arc<Key>, Denial> {
        if let Some(found) = self.usable(state, header, now) {
            return found;
        }
        match &state.failed {
            // After a failure, an unknown key may be a new one.
            Some((_, error)) => Err(self.unavailable(error)),
            None if self.is_usable(state, now) => Err(unknown()),
            None => Err(self.unavailable(&"they are too old, or the clock was set back")),
        }
    }

    /// The answer if a fetch was not finished: an unknown key may be a new one.
    #[cold]
    fn answer_without_fetch(&self, header: &Header, now: SystemTime, why: &str) -> Result<Arc<Key>, Denial> {
        self.usable(&self.lock(), header, now).unwrap_or_else(|| Err(self.unavailable(&why)))
    }

    /// `None` if the key is not known, or if the set is too old.
    fn usable(&self, state: &State, header: &Header, now: SystemTime) -> Option<Result<Arc<Key>, Denial>> {
        if self.is_usable(state, now) { state.find(header) } else { None }
    }

    fn is_usable(&self, state: &State, now: SystemTime) -> bool {
        state.age(now).is_some_and(|age| age < self.settings.stale_for.max(self.settings.ttl))
    }

    fn unavailable(&self, error: &dyn std::fmt::Display) -> Denial {
        Denial::unavailable(format!("the keys of the issuer {} are not known: {error}", self.issuer))
    }

    /// Fetches the keys at the start of the program.
    pub(crate) async fn connect(self: &Arc<Self>, now: SystemTime) -> Result<Arc<KeySet>, KeysError> {
        if let Some(source) = &self.source {
            let result = match self.fetch(source, now) {
                Next::Wait(waiter) => waiter.result().await,
                Next::Now(_) => None,
            };
            result.unwrap_or_else(|| Err(KeysError::Unavailable(Unavailable::new(ENDED))))?;
        }
        Ok(self.lock().set.clone().unwrap_or_default())
    }

    fn fetch(self: &Arc<Self>, source: &Arc<dyn FetchKeys>, now: SystemTime) -> Next {
        let begin = || -> Pending<_> {
            let (ring, source) = (Arc::clone(self), Arc::clone(source));
            Box::pin(async move {
                let (began, deadline) = (Instant::now(), ring.settings.deadline);
                let fetched = timeout(deadline, async { source.fetch().await }).await;
                let fetched = fetched
                    .unwrap_or_else(|_| Err(Unavailable::new(format!("no answer within {deadline:?}"))));
                let fetched = fetched
                    .map_err(KeysError::Unavailable)
                    .and_then(|text| KeySet::parse_without_secrets(&text).map_err(KeysError::Invalid));
                ring.store(fetched, now, now.checked_add(began.elapsed()).unwrap_or(now))
            })
        };
        match self.fetches.join((), Duration::MAX, begin) {
            Ok(waiter) => Next::Wait(waiter),
            Err(error) => Next::Now(Err(error.into())),
        }
    }

    /// Takes over the result of a fetch.
    fn store(
        &self,
        fetched: Result<KeySet, KeysError>,
        began: SystemTime,
        ended: SystemTime,
    ) -> Result<(), KeysError> {
        let mut state = self.lock();
        match fetched {
            Ok(set) => {
                if set.has_secrets() {
                    tracing::warn!(
                        issuer = &*self.issuer,
                        "the key set publishes a symmetric key, which is ignored: replace this secret, and remove it from the set"
                    );
                }
                let set = match &state.set {
                    Some(older) => set.replace(older),
                    None => set,
                };
                state.set = Some(Arc::new(set));
                state.fetched_at = Some(began);
                state.failed = None;
                self.set_fresh_until(began.checked_add(self.refresh_age()));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(issuer = &*self.issuer, error = %error, "the key set of an issuer could not be fetched");
                state.failed = Some((ended, error.clone()));
                // The cool-down is for sets that lack a key. A set that was not fetched says nothing about keys.
                state.missed_at = None;
                // Only while the last set is not too old: `find` decides.
                let end = state
                    .fetched_at
                    .and_then(|at| at.checked_add(self.settings.stale_for.max(self.settings.ttl)));
                let next = ended.checked_add(RETRY_AFTER);
                self.set_fresh_until(end.zip(next).map(|(end, next)| end.min(next)));
                Err(error)
            }
        }
    }

    fn set_fresh_until(&self, instant: Option<SystemTime>) {
        self.fresh_until.store(instant.map_or(0, milliseconds), Ordering::Release);
    }

    /// The age at which a set is fetched again beside the requests, so that none of them waits.
    fn refresh_age(&self) -> Duration {
        self.settings.ttl / 5 * 4
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics between two related changes, so a panic on another thread leaves the value valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// `None` if there is no set, or if the clock was set back behind its fetch.
    fn age(&self, now: SystemTime) -> Option<Duration> {
        self.set.as_ref()?;
        match now.duration_since(self.fetched_at?) {
            Ok(age) => Some(age),
            // A request that has read the clock a little earlier.
            Err(error) => (error.duration() < MAX_SET_BACK).then_some(Duration::ZERO),
        }
    }

    /// `None` if the set does not have the key.
    fn find(&self, header: &Header) -> Option<Result<Arc<Key>, Denial>> {
        match self.set.as_ref()?.find(header) {
            Found::Key(key) => Some(Ok(key)),
            Found::Ambiguous => Some(Err(invalid(
                "several keys of the issuer fit the token: its `kid` must name one of them",
            ))),
            Found::Missing => None,
        }
    }
}

fn unknown() -> Denial {
    invalid("the issuer has no key with this `kid` for this algorithm")
}

/// Whether `time` has passed since `instant`, or the clock was set back far behind it.
fn has_passed(instant: SystemTime, time: Duration, now: SystemTime) -> bool {
    match now.duration_since(instant) {
        Ok(passed) => passed >= time,
        // A request that began before `instant`, and has waited meanwhile.
        Err(error) => error.duration() >= MAX_SET_BACK,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "for 584 million years")]
fn milliseconds(instant: SystemTime) -> u64 {
    instant.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl std::fmt::Display for KeysError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable(error) => write!(f, "{error:#}"),
            Self::Invalid(error) => error.fmt(f),
        }
    }
}
