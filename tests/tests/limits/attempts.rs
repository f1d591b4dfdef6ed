//! Failed attempts by address: how many are allowed, what counts as one, and what is refused after them.

mod addresses;
mod flood;
mod sockets;

use std::{
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response, StatusCode};
use tests::{
    hosts::How,
    suite::{
        Backend, Directory, Inner, Latch, Log, Reply, SlowEntitlements, SlowLimiter, Stack, at, erase, get,
        is_pending, is_ready_now, send,
    },
};
use tollgate::{
    Answer, AttemptLimitLayer, ClientAddress, CredentialLayer, Denial, DenialKind, PerWindow as _, Plan,
    PlanLayer, Principal, Quota, RateLimitLayer, RequestContext, ScopeLayer, Tollgate, VerifyLayer,
    clock::ManualClock,
    layers::ReportOnly,
    respond::Grpc,
    scope::{Requirement, ScopeMap},
    store::{EndReason, EndSignal},
    verify::{Verify, VerifyRequest},
};
use tower::{Layer as _, Service as _, ServiceBuilder};
use tracing::Level;

use crate::numbers;

/// The other end of a connection, as a server attaches it.
#[derive(Clone)]
struct Peer(IpAddr);

/// An address and its neighbour.
const HERE: &str = "192.0.2.1";
const THERE: &str = "192.0.2.2";

fn peer() -> ClientAddress {
    ClientAddress::of_peer(|head| head.extensions.get::<Peer>().map(|peer| peer.0))
}

fn attempts(quota: Quota) -> AttemptLimitLayer {
    AttemptLimitLayer::new(quota, peer())
}

/// A request for a path from an address, with these headers.
fn from_address(address: &str, path: &str, headers: &[(&str, &str)]) -> Request<String> {
    let mut request = get(path, headers);
    request.extensions_mut().insert(Peer(address.parse().unwrap()));
    request
}

fn with_key(address: &str, key: &str) -> Request<String> {
    from_address(address, "/jobs", &[("x-api-key", key)])
}

/// Knows the key `good`, of which 3 requests a minute are admitted; of any other it says that it is what the key is called.
#[derive(Clone)]
struct Verifier {
    calls: Arc<AtomicUsize>,
    backend: Backend,
}

impl Verifier {
    fn new() -> Self {
        Self { calls: Arc::default(), backend: Backend::prompt() }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Verify for Verifier {
    fn verify(&self, presented: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let verdict = match presented.credential.expose_secret() {
            "good" => Ok(Arc::new(Principal::new("ada").with_plan(Plan::active("pro")))),
            "expired" => Ok(Arc::new(Principal::new("ada").with_expiry(at(0)))),
            "revoked" => Err(DenialKind::KeyRevoked),
            "misplaced" => Err(DenialKind::WrongEnvironment),
            "elsewhere" => Err(DenialKind::NetworkNotAllowed),
            "suspended" => Err(DenialKind::TenantSuspended),
            "forbidden" => Err(DenialKind::Forbidden),
            _ => Err(DenialKind::KeyUnknown),
        };
        self.backend.answer(verdict).map(|verdict| verdict?.map_err(Denial::new))
    }
}

/// Answers 404 to what is nowhere.
fn inner() -> Inner {
    Inner::answering(|request| {
        let mut response = Response::new("inside".to_owned());
        if request.uri().path() == "/jobs/nowhere" {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        Ok(response)
    })
}

/// A limit of attempts around a whole stack.
fn guarding(how: How, clock: &ManualClock, attempts: AttemptLimitLayer, verifier: &Verifier) -> Stack {
    let map = ScopeMap::new().get("/jobs", Requirement::none()).get("/jobs/{*rest}", Requirement::none());
    let scope = ScopeLayer::per_route(map).unwrap();
    let limit = RateLimitLayer::new(3.per_minute());
    match how {
        How::Built => {
            let tollgate = Tollgate::builder().attempt_limit(attempts).verify(verifier.clone());
            let tollgate = tollgate.rate_limit(limit).scope(scope).clock(clock.clone());
            erase(tollgate.build().unwrap().layer(inner()))
        }
        How::Separate => erase(
            ServiceBuilder::new()
                .layer(attempts.with_clock(clock.clone()))
                .layer(CredentialLayer::new())
                .layer(VerifyLayer::new(verifier.clone()))
                .layer(limit)
                .layer(scope)
                .service(inner()),
        ),
    }
}

/// A limit of so many attempts a minute, around a verifier that counts its calls.
fn stack(how: How, quota: Quota) -> (Stack, ManualClock, Verifier) {
    let (clock, verifier) = (ManualClock::at(at(0)), Verifier::new());
    (guarding(how, &clock, attempts(quota), &verifier), clock, verifier)
}

/// A refusal for too many attempts: it says how long to wait, and nothing else.
fn is_shut_out(reply: &Reply) -> bool {
    numbers(reply) == (429, None, None, None, Some(60)) && reply.kind() == Some(DenialKind::RateLimited)
}

#[tokio::test]
async fn after_the_allowed_failures_the_verifier_is_not_asked() {
    for how in How::BOTH {
        let (mut stack, clock, verifier) = stack(how, 3.per_minute());
        for _ in 0..3 {
            let refused = send(&mut stack, with_key(HERE, "guess")).await;
            assert_eq!(numbers(&refused), (401, None, None, None, None), "{how:?}");
        }
        assert_eq!(verifier.calls(), 3);
        for key in ["guess", "good"] {
            let refused = send(&mut stack, with_key(HERE, key)).await;
            assert!(is_shut_out(&refused), "{how:?}: {refused:?}");
        }
        assert_eq!(verifier.calls(), 3, "refused before the key is verified");
        assert_eq!(send(&mut stack, with_key(THERE, "good")).await.status(), StatusCode::OK);
        clock.set(at(60));
        assert_eq!(send(&mut stack, with_key(HERE, "good")).await.status(), StatusCode::OK, "{how:?}");
    }
}

#[tokio::test]
async fn every_refusal_of_a_credential_is_a_failed_attempt() {
    let long = "x".repeat(5_000);
    let cases: [(&[(&str, &str)], _); 10] = [
        (&[], DenialKind::CredentialMissing),
        (&[("x-api-key", "")], DenialKind::CredentialEmpty),
        (&[("x-api-key", &long)], DenialKind::CredentialMalformed),
        (&[("x-api-key", "a"), ("x-api-key", "b")], DenialKind::CredentialRepeated),
        (&[("x-api-key", "a"), ("authorization", "Bearer b")], DenialKind::CredentialConflicting),
        (&[("x-api-key", "guess")], DenialKind::KeyUnknown),
        (&[("x-api-key", "revoked")], DenialKind::KeyRevoked),
        (&[("x-api-key", "expired")], DenialKind::KeyExpired),
        (&[("x-api-key", "misplaced")], DenialKind::WrongEnvironment),
        (&[("x-api-key", "elsewhere")], DenialKind::NetworkNotAllowed),
    ];
    for how in How::BOTH {
        for (headers, kind) in cases {
            let (mut stack, ..) = stack(how, 1.per_minute());
            let refused = send(&mut stack, from_address(HERE, "/jobs", headers)).await;
            assert_eq!(refused.kind(), Some(kind), "{how:?}");
            assert!(is_shut_out(&send(&mut stack, with_key(HERE, "good")).await), "{how:?} {kind:?}");
        }
    }
}

#[tokio::test]
async fn nothing_else_is_a_failed_attempt() {
    for how in How::BOTH {
        let (mut stack, _, verifier) = stack(how, 1.per_minute());
        let statuses = async |stack: &mut _, path, key, times| {
            let mut statuses = Vec::new();
            for _ in 0..times {
                let request = from_address(HERE, path, &[("x-api-key", key)]);
                statuses.push(send(stack, request).await.status().as_u16());
            }
            statuses
        };
        assert_eq!(statuses(&mut stack, "/jobs", "good", 1).await, [200]);
        assert_eq!(statuses(&mut stack, "/jobs/nowhere", "good", 1).await, [404]);
        assert_eq!(statuses(&mut stack, "/elsewhere", "good", 1).await, [404]);
        assert_eq!(statuses(&mut stack, "/jobs", "good", 3).await, [429; 3]);
        assert_eq!(statuses(&mut stack, "/jobs", "suspended", 3).await, [403; 3]);
        assert_eq!(statuses(&mut stack, "/jobs", "forbidden", 3).await, [403; 3]);
        verifier.backend.turn_into(&Backend::down());
        assert_eq!(statuses(&mut stack, "/jobs", "good", 3).await, [503; 3]);
        verifier.backend.turn_into(&Backend::prompt());
        assert_eq!(statuses(&mut stack, "/jobs", "guess", 3).await, [401, 429, 429], "{how:?}");
    }
}

#[tokio::test]
async fn a_thousand_failures_a_minute_can_be_allowed() {
    for how in How::BOTH {
        let (mut stack, ..) = stack(how, 1_000.per_minute());
        for _ in 0..1_000 {
            let refused = send(&mut stack, with_key(HERE, "guess")).await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        }
        assert!(is_shut_out(&send(&mut stack, with_key(HERE, "guess")).await), "{how:?}");
    }
}

#[tokio::test]
async fn concurrent_attempts_are_counted_when_they_have_failed() {
    for how in How::BOTH {
        let (mut stack, _, verifier) = stack(how, 1.per_minute());
        let latch = Latch::shut();
        verifier.backend.turn_into(&Backend::slow(&latch));
        let mut under_way = Vec::new();
        for _ in 0..5 {
            assert!(is_ready_now(&mut stack));
            under_way.push(stack.call(with_key(HERE, "guess")));
        }
        latch.open();
        for response in under_way {
            assert_eq!(response.await.unwrap().status(), StatusCode::UNAUTHORIZED);
        }
        assert!(is_shut_out(&send(&mut stack, with_key(HERE, "good")).await), "{how:?}");
    }
}

/// Regression: an attempt was charged by its response, and a caller that never waited for one was charged nothing.
#[tokio::test]
async fn an_attempt_that_is_abandoned_during_its_verification_has_failed_in_a_built_stack() {
    for how in How::BOTH {
        let (mut stack, _, verifier) = stack(how, 3.per_minute());
        verifier.backend.turn_into(&Backend::slow(&Latch::shut()));
        for is_polled in [true, false] {
            assert!(is_ready_now(&mut stack));
            let mut attempt = Box::pin(stack.call(with_key(HERE, "good")));
            assert!(!is_polled || is_pending(attempt.as_mut()));
        }
        verifier.backend.turn_into(&Backend::prompt());
        assert_eq!(send(&mut stack, with_key(HERE, "good")).await.status(), StatusCode::OK, "one is left");
        assert_eq!(send(&mut stack, with_key(HERE, "guess")).await.status(), StatusCode::UNAUTHORIZED);
        let last = send(&mut stack, with_key(HERE, "good")).await;
        assert_eq!(is_shut_out(&last), matches!(how, How::Built), "{how:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_abandoned_before_or_after_its_verification_is_no_attempt() {
    let clock = ManualClock::at(at(0));
    let (limiter, plans, latch) = (Backend::prompt(), Backend::prompt(), Latch::shut());
    let tollgate = Tollgate::builder()
        .attempt_limit(attempts(1.per_minute()).with_limiter(SlowLimiter::new(&limiter)))
        .verify(Verifier::new())
        .plan(SlowEntitlements(plans.clone()))
        .clock(clock);
    let mut stack = erase(tollgate.build().unwrap().layer(inner()));
    for backend in [&limiter, &plans] {
        backend.turn_into(&Backend::slow(&latch));
        assert!(is_ready_now(&mut stack));
        assert!(is_pending(pin!(stack.call(with_key(HERE, "good")))));
        backend.turn_into(&Backend::prompt());
        assert_eq!(send(&mut stack, with_key(HERE, "good")).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn an_abandoned_attempt_is_not_counted_if_verification_is_in_report_only_mode() {
    let (verifier, latch) = (Verifier::new(), Latch::shut());
    let verify = VerifyLayer::new(verifier.clone()).with_report_only(&ReportOnly::new());
    let tollgate = Tollgate::builder().attempt_limit(attempts(1.per_minute())).verify(verify);
    let tollgate = tollgate.clock(ManualClock::at(at(0))).build().unwrap();
    let mut stack = erase(tollgate.layer(inner()));
    verifier.backend.turn_into(&Backend::slow(&latch));
    assert!(is_ready_now(&mut stack));
    assert!(is_pending(pin!(stack.call(with_key(HERE, "guess")))));
    verifier.backend.turn_into(&Backend::prompt());
    assert_eq!(send(&mut stack, with_key(HERE, "good")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn in_report_only_mode_no_address_is_refused() {
    for how in How::BOTH {
        let (clock, verifier, report) = (ManualClock::at(at(0)), Verifier::new(), ReportOnly::new());
        let attempts = attempts(1.per_minute()).with_report_only(&report);
        let mut stack = guarding(how, &clock, attempts, &verifier);
        for refusals in [0, 1, 2] {
            assert_eq!(send(&mut stack, with_key(HERE, "guess")).await.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(report.refusals(), refusals, "{how:?}");
        }
        let good = send(&mut stack, with_key(HERE, "good")).await;
        assert_eq!((good.status(), report.refusals()), (StatusCode::OK, 3));
    }
}

#[tokio::test]
async fn a_limiter_that_is_down_refuses_every_address() {
    for how in How::BOTH {
        let (clock, verifier) = (ManualClock::at(at(0)), Verifier::new());
        let attempts = attempts(9.per_minute()).with_limiter(SlowLimiter::new(&Backend::down()));
        let mut stack = guarding(how, &clock, attempts, &verifier);
        let refused = send(&mut stack, with_key(HERE, "good")).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!((refused.kind(), verifier.calls()), (Some(DenialKind::Unavailable), 0), "{how:?}");
    }
}

#[tokio::test]
async fn a_limiter_that_is_slow_is_waited_for_before_and_after() {
    for how in How::BOTH {
        let (clock, verifier, limiter) = (ManualClock::at(at(0)), Verifier::new(), Backend::prompt());
        let attempts = attempts(1.per_minute()).with_limiter(SlowLimiter::new(&limiter));
        let mut stack = guarding(how, &clock, attempts, &verifier);

        let [before, after] = [Latch::shut(), Latch::shut()];
        limiter.turn_into(&Backend::slow(&before));
        assert!(is_ready_now(&mut stack));
        let mut response = pin!(stack.call(with_key(HERE, "guess")));
        assert!(is_pending(response.as_mut()));
        assert_eq!(verifier.calls(), 0);
        limiter.turn_into(&Backend::slow(&after));
        before.open();
        // The task is woken when the answer is there; nothing else can keep it then but the settlement.
        tokio::select! {
            biased;
            _ = response.as_mut() => panic!("the attempt is not counted yet"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(verifier.calls(), 1);
        after.open();
        assert_eq!(Reply::read(response.await.unwrap()).await.status(), StatusCode::UNAUTHORIZED);
        assert!(is_shut_out(&send(&mut stack, with_key(HERE, "guess")).await), "{how:?}");
    }
}

#[tokio::test]
async fn a_limiter_that_fails_meanwhile_does_not_hold_a_refusal_back() {
    for how in How::BOTH {
        let (clock, verifier, limiter) = (ManualClock::at(at(0)), Verifier::new(), Backend::prompt());
        let latch = Latch::shut();
        verifier.backend.turn_into(&Backend::slow(&latch));
        let attempts = attempts(1.per_minute()).with_limiter(SlowLimiter::new(&limiter));
        let mut stack = guarding(how, &clock, attempts, &verifier);
        let log = Log::start();
        assert!(is_ready_now(&mut stack));
        let mut response = pin!(stack.call(with_key(HERE, "guess")));
        assert!(is_pending(response.as_mut()));
        limiter.turn_into(&Backend::down());
        latch.open();
        assert_eq!(response.await.unwrap().status(), StatusCode::UNAUTHORIZED, "{how:?}");
        assert_eq!(log.entries().iter().filter(|entry| entry.level == Level::WARN).count(), 1);
    }
}

#[tokio::test]
async fn the_log_shows_which_address_was_refused() {
    for how in How::BOTH {
        let (mut stack, ..) = stack(how, 1.per_minute());
        send(&mut stack, with_key(HERE, "guess")).await;
        let log = Log::start();
        assert!(is_shut_out(&send(&mut stack, with_key(HERE, "guess")).await), "{how:?}");
        let refusals = log.refusals();
        let shown: Vec<_> = ["layer", "reason", "detail"].map(|field| refusals[0].field(field)).into();
        assert_eq!(shown, [Some("AttemptLimitLayer"), Some("rate_limited"), Some(HERE)]);
    }
}

#[tokio::test]
async fn grpc_callers_get_resource_exhausted() {
    for how in How::BOTH {
        let (mut stack, ..) = stack(how, 1.per_minute());
        let grpc = [("content-type", "application/grpc"), ("x-api-key", "guess")];
        for code in ["16", "8"] {
            let mut request = from_address(HERE, "/jobs.Jobs/List", &grpc);
            *request.method_mut() = http::Method::POST;
            *request.version_mut() = http::Version::HTTP_2;
            RequestContext::set_responder(request.extensions_mut(), Arc::new(Grpc::new()));
            let reply = send(&mut stack, request).await;
            assert_eq!((reply.status(), &*reply.header("grpc-status")), (StatusCode::OK, code), "{how:?}");
            assert_eq!(numbers(&reply), (200, None, None, None, None));
        }
    }
}

#[tokio::test]
async fn no_response_shows_how_many_attempts_are_left() {
    // A refusal before the rate limit shows no values at all.
    let clock = ManualClock::at(at(0));
    let tollgate = Tollgate::builder()
        .attempt_limit(attempts(2.per_minute()))
        .verify(Verifier::new())
        .rate_limit(30.per_minute())
        .clock(clock.clone());
    let mut stack = erase(tollgate.build().unwrap().layer(inner()));
    let refused = send(&mut stack, with_key(HERE, "expired")).await;
    assert_eq!(numbers(&refused), (401, None, None, None, None));

    // A refusal behind it shows the caller's own limit.
    let (signal, latch) = (EndSignal::new(), Latch::shut());
    let principal = Principal::new("ada").with_end_signal(signal.clone());
    let directory = Directory::new(&Backend::prompt()).with("good", principal);
    let layers = (
        attempts(2.per_minute()).with_clock(clock),
        CredentialLayer::new(),
        VerifyLayer::new(directory),
        RateLimitLayer::new(30.per_minute()),
        PlanLayer::new(SlowEntitlements(Backend::slow(&latch))),
    );
    let mut stack = erase(layers.layer(inner()));
    assert!(is_ready_now(&mut stack));
    let mut response = pin!(stack.call(with_key(HERE, "good")));
    assert!(is_pending(response.as_mut()));
    signal.end(EndReason::Revoked);
    latch.open();
    let refused = Reply::read(response.await.unwrap()).await;
    assert_eq!(numbers(&refused), (401, Some(30), Some(29), Some(60), None));
}
