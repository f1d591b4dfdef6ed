//! The keys of one issuer as they are known now, and when they are fetched again.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::timeout;
use tollgate_core::{
    answer::{Answer, Pending},
    denial::{Denial, Unavailable},
};

use crate::{
    claims::invalid,
    fetch_keys::FetchKeys,
    key::Key,
    key_set::{Found, InvalidKeySet, KeySet},
    single_flight::{SingleFlight, Waiter},
    token::Header,
};

/// How long after a failure the source is not asked again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How much earlier than its fetch a set may be used.
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
    fetches: SingleFlight<(), Result<(), KeysError>>,
    /// Until when a token may be verified by its key alone, without a look at the state: milliseconds since 1970.
    fresh_until: AtomicU64,
}

#[derive(Default)]
struct State {
    set: Option<Arc<KeySet>>,
    /// When the fetch of this set began.
    fetched_at: Option<SystemTime>,
    /// When the last fetch began, if it has failed, and its error.
    failed: Option<(SystemTime, KeysError)>,
    /// When the set was last fetched because of an unknown key.
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
            fetches: SingleFlight::default(),
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
            // Some other request's fetch may have begun earlier and failed, so that this request began a second one.
            found.unwrap_or_else(|_| ring.final_answer(&header, now))
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
            waiter.result().await;
            match self.next(header, now, round) {
                Next::Now(found) => return found,
                Next::Wait(next) => waiter = next,
            }
        }
        waiter.result().await;
        self.final_answer(header, now)
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
                    if age >= self.refresh_age() && may_retry {
                        let _in_progress = self.fetch(source, now);
                    }
                    return Next::Now(found);
                }
                // A fetch in progress may have begun before the key was published, so it does not count as the one for this key.
                let joins = round == 0 && self.fetches.is_in_progress(&());
                if !joins {
                    if !state.missed_at.is_none_or(|at| has_passed(at, self.settings.cool_down, now)) {
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

    /// The answer without a further fetch.
    fn final_answer(&self, header: &Header, now: SystemTime) -> Result<Arc<Key>, Denial> {
        self.answer(&self.lock(), header, now)
    }

    fn answer(&self, state: &State, header: &Header, now: SystemTime) -> Result<Arc<Key>, Denial> {
        let is_usable =
            state.age(now).is_some_and(|age| age < self.settings.stale_for.max(self.settings.ttl));
        if let Some(found) = state.find(header).filter(|_| is_usable) {
            return found;
        }
        // After a failure, an unknown key may be a new one.
        if is_usable && state.failed.is_none() {
            return Err(unknown());
        }
        let error = state
            .failed
            .as_ref()
            .map_or("no answer within the deadline".to_owned(), |(_, error)| error.to_string());
        Err(Denial::unavailable(format!("the keys of the issuer {} are not known: {error}", self.issuer)))
    }

    /// Fetches the keys at the start of the program.
    pub(crate) async fn connect(self: &Arc<Self>, now: SystemTime) -> Result<Arc<KeySet>, KeysError> {
        if let Some(source) = &self.source {
            let result = match self.fetch(source, now) {
                Next::Wait(waiter) => waiter.result().await,
                Next::Now(_) => None,
            };
            let ended = || {
                KeysError::Unavailable(Unavailable::new(
                    "the fetch ended without an answer: it has panicked, or there is no tokio runtime",
                ))
            };
            result.unwrap_or_else(|| Err(ended()))?;
        }
        Ok(self.lock().set.clone().unwrap_or_default())
    }

    fn fetch(self: &Arc<Self>, source: &Arc<dyn FetchKeys>, now: SystemTime) -> Next {
        let begin = || -> Pending<_> {
            let (ring, source) = (Arc::clone(self), Arc::clone(source));
            Box::pin(async move {
                let deadline = ring.settings.deadline;
                let fetched = timeout(deadline, async { source.fetch().await }).await;
                let fetched = fetched
                    .unwrap_or_else(|_| Err(Unavailable::new(format!("no answer within {deadline:?}"))));
                let fetched = fetched
                    .map_err(KeysError::Unavailable)
                    .and_then(|text| KeySet::parse_without_secrets(&text).map_err(KeysError::Invalid));
                ring.store(fetched, now)
            })
        };
        match self.fetches.join((), begin) {
            Ok(waiter) => Next::Wait(waiter),
            Err(error) => Next::Now(Err(error.into())),
        }
    }

    /// Takes over the result of a fetch that began at `now`.
    fn store(&self, fetched: Result<KeySet, KeysError>, now: SystemTime) -> Result<(), KeysError> {
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
                state.fetched_at = Some(now);
                state.failed = None;
                self.set_fresh_until(now.checked_add(self.refresh_age()));
                Ok(())
            }
            Err(error) => {
                tracing::warn!(issuer = &*self.issuer, error = %error, "the key set of an issuer could not be fetched");
                state.failed = Some((now, error.clone()));
                // Only while the last set is not too old: `find` decides.
                let end = state
                    .fetched_at
                    .and_then(|at| at.checked_add(self.settings.stale_for.max(self.settings.ttl)));
                let next = now.checked_add(RETRY_AFTER);
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
        self.settings.ttl * 4 / 5
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

/// Whether `time` has passed since `instant`, or the clock was set back behind it.
fn has_passed(instant: SystemTime, time: Duration, now: SystemTime) -> bool {
    now.duration_since(instant).map_or(true, |passed| passed >= time)
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
