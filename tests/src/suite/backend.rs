//! Backends that answer at once, answer when the test lets them, or are down.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;
use tollgate::{
    Answer, Denial, DenialKind, Plan, Policy, Principal, Quota, RateLimitLayer,
    denial::Unavailable,
    guard::{Guard, GuardRequest},
    in_flight::{MemoryPlaces, Place, PlaceRequest, Places},
    limit::{Charge, Decision, LimitRequest, Limiter, MemoryLimiter},
    verify::{Entitlements, Verify, VerifyRequest},
};

use super::at;

/// How a backend behaves. Clones are the same backend.
#[derive(Clone, Default)]
pub struct Backend(Arc<Mutex<Mode>>);

#[derive(Clone, Default)]
enum Mode {
    #[default]
    Prompt,
    Slow(Latch),
    Down,
    // Fails only after a while.
    DownLater(Latch),
}

impl Backend {
    /// Answers at once.
    pub fn prompt() -> Self {
        Self::default()
    }

    /// Answers when the latch is opened.
    pub fn slow(latch: &Latch) -> Self {
        Self(Arc::new(Mutex::new(Mode::Slow(latch.clone()))))
    }

    /// Fails at once.
    pub fn down() -> Self {
        Self(Arc::new(Mutex::new(Mode::Down)))
    }

    /// Fails when the latch is opened.
    pub fn down_later(latch: &Latch) -> Self {
        Self(Arc::new(Mutex::new(Mode::DownLater(latch.clone()))))
    }

    /// From now on behaves as the other one does at this moment.
    ///
    /// # Panics
    /// If another thread panicked during a change.
    pub fn turn_into(&self, other: &Self) {
        let mode = other.mode();
        *self.0.lock().unwrap() = mode;
    }

    fn mode(&self) -> Mode {
        self.0.lock().unwrap().clone()
    }

    /// The answer, as this backend gives it.
    pub fn answer<T: Send + 'static>(&self, value: T) -> Answer<Result<T, Unavailable>> {
        match self.mode() {
            Mode::Prompt => Answer::Now(Ok(value)),
            Mode::Slow(latch) => Answer::later(async move {
                latch.opened().await;
                Ok(value)
            }),
            Mode::Down => Answer::Now(Err(outage())),
            Mode::DownLater(latch) => Answer::later(async move {
                latch.opened().await;
                Err(outage())
            }),
        }
    }
}

fn outage() -> Unavailable {
    Unavailable::new("the test has switched this backend off")
}

/// Holds answers back until it is opened. Clones are the same latch.
#[derive(Clone)]
pub struct Latch(watch::Sender<bool>);

impl Latch {
    /// A latch that is shut.
    pub fn shut() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Lets all answers go.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn opened(&self) {
        // The sender lives as long as this latch, so that the wait cannot fail.
        let _ = self.0.subscribe().wait_for(|is_open| *is_open).await;
    }
}

/// A verifier that knows some principals by their credentials.
#[derive(Clone, Default)]
pub struct Directory {
    backend: Backend,
    principals: HashMap<String, Arc<Principal>>,
}

impl Directory {
    /// An empty directory.
    pub fn new(backend: &Backend) -> Self {
        Self { backend: backend.clone(), principals: HashMap::new() }
    }

    /// Knows this principal by this credential.
    pub fn with(mut self, credential: &str, principal: Principal) -> Self {
        self.principals.insert(credential.to_owned(), Arc::new(principal));
        self
    }
}

impl Verify for Directory {
    fn verify(&self, presented: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        let known = self.principals.get(presented.credential.expose_secret()).cloned();
        self.backend.answer(known).map(|known| known?.ok_or(Denial::new(DenialKind::KeyUnknown)))
    }
}

/// The in-process limiter, on a backend of the test's choice.
pub struct SlowLimiter {
    backend: Backend,
    counters: MemoryLimiter,
}

impl SlowLimiter {
    /// Without any counts.
    pub fn new(backend: &Backend) -> Self {
        Self { backend: backend.clone(), counters: MemoryLimiter::new() }
    }

    /// Uses up a subject's quota under a policy, at the instant at which [worlds](super::World) begin.
    pub fn use_up(&self, policy: &'static str, subject: &str, quota: &Quota) {
        for limit in quota.limits() {
            let charge = Charge::new(policy, subject, subject, quota).settled(limit.limit);
            // The counters in this process answer at once.
            drop(self.counters.acquire(&LimitRequest::new(&[charge], at(0))));
        }
    }
}

/// Each key has this quota in `limiter`, by a policy named `key`.
///
/// # Panics
/// Never: the policy has a name of its own.
pub fn limit_by_key(quota: Quota, limiter: impl Limiter) -> RateLimitLayer {
    RateLimitLayer::from_policies([Policy::new("key", quota)]).unwrap().with_limiter(limiter).unwrap()
}

impl Limiter for SlowLimiter {
    fn acquire(&self, request: &LimitRequest<'_>) -> Answer<Result<Decision, Unavailable>> {
        // One that is down counts nothing; a slow one begins when it is asked.
        match self.backend.mode() {
            Mode::Down | Mode::DownLater(_) => self.backend.answer(Decision::evaluate(request.now, [])),
            Mode::Prompt | Mode::Slow(_) => match self.counters.acquire(request) {
                Answer::Now(Ok(decision)) => self.backend.answer(decision),
                other => other,
            },
        }
    }
}

/// The places in this process, on a backend of the test's choice. Clones count together.
#[derive(Clone)]
pub struct SlowPlaces {
    backend: Backend,
    places: MemoryPlaces,
}

impl SlowPlaces {
    /// All places are free.
    pub fn new(backend: &Backend) -> Self {
        Self { backend: backend.clone(), places: MemoryPlaces::new() }
    }

    /// Whether a subject could take one of `limit` places now, whatever the backend does.
    pub fn has_free(&self, name: &str, subject: &str, limit: u32) -> bool {
        let request = PlaceRequest::new(name, subject, subject, limit, at(0));
        matches!(self.places.take(&request), Answer::Now(Ok(Some(_))))
    }
}

impl Places for SlowPlaces {
    fn take(&self, request: &PlaceRequest<'_>) -> Answer<Result<Option<Place>, Unavailable>> {
        // One that is down gives no place; a slow one begins when it is asked.
        match self.backend.mode() {
            Mode::Down | Mode::DownLater(_) => self.backend.answer(None),
            Mode::Prompt | Mode::Slow(_) => match self.places.take(request) {
                Answer::Now(Ok(place)) => self.backend.answer(place),
                other => other,
            },
        }
    }
}

/// The principal's own plan, on a backend of the test's choice.
pub struct SlowEntitlements(
    /// The backend.
    pub Backend,
);

impl Entitlements for SlowEntitlements {
    fn plan(&self, principal: &Arc<Principal>) -> Answer<Result<Option<Arc<Plan>>, Unavailable>> {
        self.0.answer(principal.plan().cloned())
    }
}

/// Admits principals with a role, on a backend of the test's choice.
pub struct SlowGuard(
    /// The backend.
    pub Backend,
);

impl Guard for SlowGuard {
    fn check(&self, request: &GuardRequest<'_>) -> Answer<Result<(), Denial>> {
        let decision = request.authenticated().and_then(|principal| match principal.role() {
            Some(_) => Ok(()),
            None => Err(Denial::new(DenialKind::Forbidden)),
        });
        self.0.answer(decision).map(|decision| decision?)
    }
}
