//! How often a caller may ask: exactness, what a refusal burns, and the numbers that callers see.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "whatever goes wrong in a test fails it")]

mod attempts;
mod clock;
mod conformance;
mod cost;
mod exact;
mod headers;
mod model;
mod months;
mod numbers;
mod obedient;
mod peek;
mod settling;
mod skannr;
mod traffic;

use std::{sync::Arc, time::SystemTime};

use http::{Request, StatusCode};
use tests::{
    hosts::How,
    suite::{Erasable, Inner, Reply, Stack, erase, with_key},
};
use tollgate::{
    Answer, CredentialLayer, Denial, PerWindow as _, Plan, Principal, RateLimitLayer, ScopeLayer, Tollgate,
    VerifyLayer,
    clock::ManualClock,
    scope::{Requirement, ScopeMap},
    verify::{Verify, VerifyRequest},
};
use tower::{Layer, ServiceBuilder};

/// Accepts every credential: `ada@acme.pro` is the key `ada` of the tenant `acme`, on the tier `pro`; `+5` at
/// its end gives it a quota of its own, 5 per minute.
struct Honest;

impl Verify for Honest {
    fn verify(&self, presented: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        let (name, own) = split(presented.credential.expose_secret(), '+');
        let (name, tier) = split(name, '.');
        let (id, tenant) = split(name, '@');
        let mut principal = Principal::new(id);
        if !tenant.is_empty() {
            principal = principal.with_tenant(tenant);
        }
        if !tier.is_empty() {
            principal = principal.with_plan(Plan::active(tier));
        }
        if let Ok(own) = own.parse::<u64>() {
            principal = principal.with_quota(tollgate::limit::DEFAULT_POLICY, own.per_minute());
        }
        Answer::Now(Ok(Arc::new(principal)))
    }
}

fn split(text: &str, separator: char) -> (&str, &str) {
    text.split_once(separator).unwrap_or((text, ""))
}

/// A request of this caller. `@` and `+` are not in the alphabet of bearer tokens, so the key comes in a header.
fn from(caller: &str) -> Request<String> {
    asking(caller, "/jobs")
}

/// A limit, or several layers, behind a credential and its verification.
fn behind<L, B>(clock: &ManualClock, layer: L) -> Stack
where
    L: Layer<Inner>,
    L::Service: Erasable<B>,
    B: http_body::Body<Data = bytes::Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    behind_verifier(clock, Honest, layer)
}

/// The same with another verifier.
fn behind_verifier<L, B>(clock: &ManualClock, verifier: impl Verify, layer: L) -> Stack
where
    L: Layer<Inner>,
    L::Service: Erasable<B>,
    B: http_body::Body<Data = bytes::Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    erase(
        ServiceBuilder::new()
            .layer(CredentialLayer::new().with_anonymous().dangerous_preflights().with_clock(clock.clone()))
            .layer(VerifyLayer::new(verifier).with_clock(clock.clone()))
            .layer(layer)
            .service(Inner::new()),
    )
}

/// A limit behind a verifier, and before a guard that knows no path but those under `/jobs`: all as one stack, or one by one.
fn guarding<B>(how: How, clock: &ManualClock, limit: RateLimitLayer, inner: impl Erasable<B>) -> Stack
where
    B: http_body::Body<Data = bytes::Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    let map = ScopeMap::new().get("/jobs", Requirement::none()).get("/jobs/{*rest}", Requirement::none());
    let scope = ScopeLayer::per_route(map).unwrap();
    match how {
        How::Built => {
            let tollgate = Tollgate::builder().verify(Honest).rate_limit(limit).scope(scope);
            erase(tollgate.clock(clock.clone()).build().unwrap().layer(inner))
        }
        How::Separate => erase(
            ServiceBuilder::new()
                .layer(CredentialLayer::new().with_clock(clock.clone()))
                .layer(VerifyLayer::new(Honest))
                .layer(limit)
                .layer(scope)
                .service(inner),
        ),
    }
}

/// A request of this caller for a path.
fn asking(caller: &str, path: &str) -> Request<String> {
    tests::suite::get(path, &[("x-api-key", caller)])
}

/// What a caller reads off a response: status, limit, remaining, reset in seconds after [`tests::suite::at`]`(0)`, and
/// `Retry-After`. Each is one number or nothing at all.
fn numbers(reply: &Reply) -> (u16, Option<u64>, Option<u64>, Option<u64>, Option<u64>) {
    let number = |name: &str| match &*reply.header(name) {
        "" => None,
        text => Some(text.parse::<u64>().unwrap()),
    };
    (
        reply.status().as_u16(),
        number("x-ratelimit-limit"),
        number("x-ratelimit-remaining"),
        number("x-ratelimit-reset").map(|reset| reset - midnight()),
        number("retry-after"),
    )
}

/// [`tests::suite::at`]`(0)` in seconds since the Unix epoch.
fn midnight() -> u64 {
    tests::suite::at(0).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// How many of so many requests of one caller pass.
async fn passing(stack: &mut Stack, caller: &str, requests: usize) -> usize {
    let mut passed = 0;
    for _ in 0..requests {
        passed += usize::from(tests::suite::send(stack, from(caller)).await.status() == StatusCode::OK);
    }
    passed
}

#[tokio::test]
async fn the_helpers_distinguish_callers() {
    let clock = ManualClock::at(tests::suite::at(0));
    let mut stack = behind(&clock, RateLimitLayer::new(1.per_minute()));
    assert_eq!(passing(&mut stack, "ada@acme.pro+3", 9).await, 3);
    assert_eq!(passing(&mut stack, "ada@acme.pro", 9).await, 0);
    assert_eq!(passing(&mut stack, "bob", 9).await, 1);
    let reply = tests::suite::send(&mut stack, with_key("cyd")).await;
    assert_eq!(numbers(&reply), (200, Some(1), Some(0), Some(60), None));
}
