//! The memory of a limiter per subject, with a million subjects, and whether it frees memory by itself.

use std::{
    num::NonZeroU32,
    time::{Duration, SystemTime},
};

use benches::cast::Scenario;
use governor::{
    RateLimiter, clock::FakeRelativeClock, middleware::NoOpMiddleware, nanos::Nanos,
    state::keyed::DefaultKeyedStateStore,
};
use serde_json::{Value, json};
use tollgate::{
    Answer, Quota,
    limit::{Charge, LimitRequest, Limiter, MemoryLimiter},
};

const SUBJECTS: usize = 1_000_000;

/// The number of new subjects after all windows have passed.
const LATER: usize = SUBJECTS / 10;

pub(crate) fn figures() -> Value {
    let (kept, after) = tollgate();
    let (peer_kept, peer_after) = peer();
    let per_subject = |bytes: i64| bytes as f64 / SUBJECTS as f64;
    json!({
        "bytes_per_subject": per_subject(kept),
        "given_back": 1.0 - after as f64 / kept as f64,
        "peer_bytes_per_subject": per_subject(peer_kept),
        "peer_given_back": 1.0 - peer_after as f64 / peer_kept as f64,
    })
}

/// The bytes of a million subjects, and the bytes that remain after a tenth as many new subjects came much later.
fn tollgate() -> (i64, i64) {
    let quota = Scenario::Allowed.quota(3);
    let limiter = MemoryLimiter::new();
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let kept = held_by(|| (0..SUBJECTS).for_each(|number| take(&limiter, &quota, number, start)));
    let later = start + Duration::from_secs(3 * 24 * 3_600);
    let more = held_by(|| (0..LATER).for_each(|number| take(&limiter, &quota, SUBJECTS + number, later)));
    (kept, kept + more)
}

fn take(limiter: &MemoryLimiter, quota: &Quota, number: usize, now: SystemTime) {
    let (subject, group) = (format!("key_{number}"), format!("tenant_{number}"));
    let charge = Charge::new("default", &subject, &group, quota);
    let Answer::Now(Ok(decision)) = limiter.acquire(&LimitRequest::new(&[charge], now)) else {
        panic!("the limiter waits")
    };
    assert!(decision.is_allowed(), "a fresh subject was refused");
}

/// The same for governor, one window, keyed by the subject's name.
fn peer() -> (i64, i64) {
    let minute = governor::Quota::per_minute(NonZeroU32::new(60).unwrap());
    let clock = FakeRelativeClock::default();
    let store = DefaultKeyedStateStore::<String>::default();
    let limiter: RateLimiter<_, _, _, NoOpMiddleware<Nanos>> = RateLimiter::new(minute, store, clock.clone());
    let check = |number: usize| limiter.check_key(&format!("key_{number}")).unwrap();
    let kept = held_by(|| (0..SUBJECTS).for_each(check));
    clock.advance(Duration::from_secs(3 * 24 * 3_600));
    let more = held_by(|| (0..LATER).for_each(|number| check(SUBJECTS + number)));
    (kept, kept + more)
}

/// The bytes that were allocated and not freed.
fn held_by(work: impl FnOnce()) -> i64 {
    allocation_counter::measure(work).bytes_current
}
