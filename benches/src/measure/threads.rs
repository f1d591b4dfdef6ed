//! The whole check on one core and on two, from the credential's bytes to the decision, without HTTP, through the backend traits.

use std::{hint::black_box, sync::Barrier, time::Instant};

use http::{HeaderValue, Request, request};
use tollgate::{
    Answer, Environment, KeyVerifier, MemoryKeys, PerWindow, Plan, Principal, Quota, Scopes,
    clock::{Clock, SystemClock},
    limit::{Charge, LimitRequest, Limiter, MemoryLimiter},
    request::RequestHead,
    verify::{Credential, CredentialSource, Verify, VerifyRequest},
};

use super::median;
use crate::{cast, random};

/// A table of callers, and everything that checks them.
pub struct Checkpoint {
    verifier: KeyVerifier,
    limiter: MemoryLimiter,
    quota: Quota,
    credentials: Vec<Credential>,
    head: request::Parts,
}

impl Checkpoint {
    /// A checkpoint with `subjects` callers.
    pub fn new(subjects: usize) -> Self {
        let (format, keys) = (cast::format(), MemoryKeys::new());
        let mut credentials = Vec::with_capacity(subjects);
        for number in 0..subjects {
            let key = format.generate(Environment::Live).unwrap();
            let principal = Principal::new(format!("key_{number}"))
                .with_plan(Plan::active("pro"))
                .with_scopes(Scopes::new([cast::SCOPE]).unwrap());
            keys.import(key.expose_secret(), principal);
            let value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret())).unwrap();
            credentials.push(Credential::new(value, "Bearer ".len(), CredentialSource::Bearer));
        }
        // Shuffled, because memory would otherwise be read sequentially.
        random::shuffle(&mut credentials);
        let quota = u64::from(u32::MAX)
            .per_minute()
            .and(1_000_000_000_000.per_hour())
            .and(1_000_000_000_000.per_day());
        Self {
            verifier: KeyVerifier::new(format, keys),
            limiter: MemoryLimiter::new(),
            quota,
            credentials,
            head: Request::new(()).into_parts().0,
        }
    }

    /// The work of the layers for one credential.
    fn check(&self, credential: &Credential) -> bool {
        let now = SystemClock.now();
        let presented = VerifyRequest::new(credential, RequestHead::from(&self.head), now);
        let Answer::Now(Ok(principal)) = self.verifier.verify(&presented) else { return false };
        let charge = Charge::new("default", principal.id(), principal.id(), &self.quota);
        let Answer::Now(Ok(decision)) = self.limiter.acquire(&LimitRequest::new(&[charge], now)) else {
            return false;
        };
        let has_plan = principal.plan().is_some_and(|plan| plan.is_active());
        black_box(decision.tightest());
        principal.ended(now).is_none()
            && decision.is_allowed()
            && has_plan
            && principal.scopes().grants(cast::SCOPE)
    }

    /// The throughput of two threads compared with one: the median of `rounds`. Each thread makes `checks` in a round, and has its own
    /// callers, unless there is only one.
    pub fn two_threads_over_one(&self, checks: usize, rounds: usize) -> f64 {
        self.seconds(2, self.credentials.len(), 0); // so that every counter exists
        let ratio = |round| 2.0 * self.seconds(1, checks, round) / self.seconds(2, checks, round);
        median((0..rounds).map(ratio).collect())
    }

    fn seconds(&self, threads: usize, checks: usize, round: usize) -> f64 {
        in_parallel(threads, |thread| {
            let (even, odd) = self.credentials.split_at(self.credentials.len() / 2);
            let own = if thread == 0 && !even.is_empty() { even } else { odd };
            // Continues where the last round ended.
            let (before, after) = own.split_at(round * checks % own.len());
            for credential in after.iter().chain(before).cycle().take(checks) {
                assert!(self.check(credential), "an allowed caller was refused");
            }
        })
    }
}

/// The seconds from the start of the first thread to the end of the last one.
fn in_parallel(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let start_line = Barrier::new(threads);
    let run = |thread| {
        start_line.wait();
        let start = now();
        work(thread);
        (start, now())
    };
    let (starts, ends): (Vec<_>, Vec<_>) = std::thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).unzip()
    });
    let first = starts.into_iter().min().unwrap();
    ends.into_iter().max().unwrap().duration_since(first).as_secs_f64()
}

#[expect(clippy::disallowed_methods, reason = "measures elapsed time")]
fn now() -> Instant {
    Instant::now()
}
