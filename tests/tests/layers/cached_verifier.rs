//! The cache in front of a verifier that answers later.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tests::suite::{Inner, Reply, Stack, at, erase, get, send};
use tokio::sync::watch;
use tollgate::{
    Denial, DenialKind, Principal, Tollgate,
    clock::ManualClock,
    store::EndReason,
    verify::{CachedVerifier, Credential, CredentialSource, verify_fn},
};
use tower::{Layer as _, ServiceExt as _};

/// A remote service that knows the owners of tokens.
#[derive(Clone)]
struct Remote(Arc<State>);

struct State {
    questions: AtomicUsize,
    answers: Mutex<HashMap<&'static str, Result<Principal, Denial>>>,
    // Holds all answers back while it is `false`.
    open: watch::Sender<bool>,
}

impl Remote {
    fn new() -> Self {
        let remote = Self(Arc::new(State {
            questions: AtomicUsize::new(0),
            answers: Mutex::default(),
            open: watch::Sender::new(true),
        }));
        remote.answers("ada", Ok(Principal::new("ada").with_tenant("acme")));
        remote.answers("bob", Ok(Principal::new("bob").with_tenant("acme")));
        remote.answers("cyd", Ok(Principal::new("cyd").with_tenant("globex")));
        remote
    }

    fn answers(&self, token: &'static str, answer: Result<Principal, Denial>) {
        self.0.answers.lock().unwrap().insert(token, answer);
    }

    fn questions(&self) -> usize {
        self.0.questions.load(Ordering::SeqCst)
    }

    fn hold(&self) {
        self.0.open.send_replace(false);
    }

    fn release(&self) {
        self.0.open.send_replace(true);
    }

    fn cached(&self) -> CachedVerifier {
        let remote = self.clone();
        CachedVerifier::new(verify_fn(move |credential: Credential| {
            let remote = remote.clone();
            async move {
                assert_eq!(credential.source(), &CredentialSource::Bearer);
                remote.0.questions.fetch_add(1, Ordering::SeqCst);
                let answer = remote.0.answers.lock().unwrap().get(credential.expose_secret()).cloned();
                let mut open = remote.0.open.subscribe();
                open.wait_for(|is_open| *is_open).await.unwrap();
                answer.unwrap_or_else(|| Err(Denial::new(DenialKind::KeyUnknown)))
            }
        }))
    }
}

struct World {
    clock: ManualClock,
    remote: Remote,
    verifier: CachedVerifier,
    stack: Stack,
}

impl World {
    fn new() -> Self {
        Self::with(|verifier| verifier)
    }

    fn with(change: impl FnOnce(CachedVerifier) -> CachedVerifier) -> Self {
        let (clock, remote) = (ManualClock::at(at(0)), Remote::new());
        let verifier = change(remote.cached());
        let tollgate = Tollgate::builder().verify(verifier.clone()).clock(clock.clone()).build().unwrap();
        Self { clock, remote, verifier, stack: erase(tollgate.layer(Inner::new())) }
    }

    async fn send(&mut self, token: &str) -> Reply {
        send(&mut self.stack, get("/", &[("x-api-key", token)])).await
    }

    /// The status of a request with this token, and how many questions have been asked since the beginning.
    async fn ask(&mut self, token: &str) -> (u16, usize) {
        let status = self.send(token).await.status().as_u16();
        (status, self.remote.questions())
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

#[tokio::test]
async fn a_principal_is_answered_from_the_cache_until_its_time_is_up() {
    let mut world = World::new();
    assert_eq!(world.ask("ada").await, (200, 1));
    world.pass(29);
    assert_eq!(world.ask("ada").await, (200, 1));
    world.pass(1);
    assert_eq!(world.ask("ada").await, (200, 2), "use does not extend the time");
}

#[tokio::test]
async fn a_credential_is_the_same_wherever_it_is_sent() {
    let mut world = World::new();
    assert_eq!(world.ask("ada").await, (200, 1));
    let bearer = send(&mut world.stack, get("/", &[("authorization", "Bearer ada")])).await;
    assert_eq!((bearer.status(), world.remote.questions()), (StatusCode::OK, 1));
}

#[tokio::test]
async fn a_time_is_bounded_by_the_expiry_and_by_the_maximum() {
    let mut world = World::with(|verifier| verifier.with_ttl(Duration::MAX));
    world.remote.answers("ada", Ok(Principal::new("ada").with_expiry(at(10))));
    assert_eq!(world.ask("ada").await, (200, 1));
    assert_eq!(world.ask("bob").await, (200, 2));
    world.pass(10);
    // The verifier still says that it is valid; the engine refuses it.
    assert_eq!(world.ask("ada").await, (401, 3));
    assert_eq!(world.ask("ada").await, (401, 4), "an ended principal is not cached");
    world.remote.answers("ada", Ok(Principal::new("ada")));
    assert_eq!(world.ask("ada").await, (200, 5));
    world.pass(CachedVerifier::MAX_TTL.as_secs() - 11);
    assert_eq!(world.ask("bob").await, (200, 5));
    world.pass(1);
    assert_eq!(world.ask("bob").await, (200, 6));
}

#[tokio::test]
async fn refusals_are_cached_apart_and_for_a_shorter_time() {
    let mut world = World::with(|verifier| verifier.with_refusal_capacity(10));
    assert_eq!(world.ask("ada").await, (200, 1));
    assert_eq!(world.ask("unknown").await, (401, 2));
    world.pass(4);
    assert_eq!(world.ask("unknown").await, (401, 2));
    world.pass(1);
    assert_eq!(world.ask("unknown").await, (401, 3));
    for number in 0..1_000 {
        world.ask(&format!("invented-{number}")).await;
    }
    assert_eq!(world.ask("ada").await, (200, 1_003), "a flood of invented tokens evicts no principal");
    assert_eq!(world.ask("invented-0").await, (401, 1_004), "and is bounded itself");
}

#[tokio::test]
async fn a_refusal_keeps_its_denial() {
    let mut world = World::new();
    let lapsed = Denial::new(DenialKind::Forbidden).with_code("account_locked");
    world.remote.answers("ada", Err(lapsed));
    for _ in 0..2 {
        let reply = world.send("ada").await;
        assert_eq!(
            (reply.status(), reply.json()["code"].clone()),
            (StatusCode::FORBIDDEN, "account_locked".into())
        );
    }
    assert_eq!(world.remote.questions(), 1);
}

#[tokio::test]
async fn failures_and_refusals_with_a_time_to_return_are_not_cached() {
    let mut world = World::new();
    for (denial, status) in [
        (Denial::unavailable("the authorization server is down"), 503),
        (Denial::misconfigured("no client secret"), 500),
        (Denial::new(DenialKind::RateLimited).with_retry_after(Duration::from_secs(1)), 429),
    ] {
        world.remote.answers("ada", Err(denial));
        let before = world.remote.questions();
        assert_eq!(world.ask("ada").await, (status, before + 1));
        assert_eq!(world.ask("ada").await, (status, before + 2));
    }
}

#[tokio::test]
async fn invalidation_by_hand_takes_effect_at_once() {
    let mut world = World::new();
    for token in ["ada", "bob", "cyd", "unknown"] {
        world.ask(token).await;
    }
    assert_eq!(world.remote.questions(), 4);
    world.verifier.invalidate_principal("ada");
    assert_eq!(world.ask("ada").await, (200, 5));
    assert_eq!(world.ask("bob").await, (200, 5), "others stay");
    assert_eq!(world.ask("unknown").await, (401, 6), "a refusal may be about any principal");
    world.verifier.invalidate_tenant("acme");
    for (token, questions) in [("ada", 7), ("bob", 8), ("cyd", 8)] {
        assert_eq!(world.ask(token).await, (200, questions), "{token}");
    }
    world.verifier.invalidate_all();
    for (token, questions) in [("ada", 9), ("bob", 10), ("cyd", 11)] {
        assert_eq!(world.ask(token).await, (200, questions), "{token}");
    }
}

#[tokio::test]
async fn a_lookup_that_an_invalidation_overtakes_is_not_cached() {
    // The two lookups end in either order.
    for _ in 0..20 {
        an_invalidation_overtakes_a_lookup().await;
    }
}

async fn an_invalidation_overtakes_a_lookup() {
    let mut world = World::new();
    world.remote.hold();
    let early = tokio::spawn(world.stack.clone().oneshot(get("/", &[("x-api-key", "ada")])));
    while world.remote.questions() == 0 {
        tokio::task::yield_now().await;
    }
    // The token is revoked at the issuer, which calls the application's webhook.
    world.remote.answers("ada", Err(Denial::new(DenialKind::KeyRevoked)));
    world.verifier.invalidate_principal("ada");
    let late = tokio::spawn(world.stack.clone().oneshot(get("/", &[("x-api-key", "ada")])));
    while world.remote.questions() == 1 {
        tokio::task::yield_now().await;
    }
    world.remote.release();
    assert_eq!(early.await.unwrap().unwrap().status(), 200, "it waited already");
    assert_eq!(late.await.unwrap().unwrap().status(), 401, "it did not join the older lookup");
    assert_eq!(world.ask("ada").await, (401, 2), "the older answer is not cached");
}

#[tokio::test]
async fn a_principal_whose_signal_was_sent_is_asked_about_again() {
    let mut world = World::new();
    let ada = Principal::new("ada");
    let signal = ada.end_signal().clone();
    world.remote.answers("ada", Ok(ada));
    assert_eq!(world.ask("ada").await, (200, 1));
    signal.end(EndReason::Revoked);
    world.remote.answers("ada", Ok(Principal::new("ada")));
    assert_eq!(world.ask("ada").await, (200, 2));
}

#[tokio::test]
async fn concurrent_requests_share_one_lookup_and_survive_the_one_that_began_it() {
    let world = World::new();
    world.remote.hold();
    let mut requests: Vec<_> = (0..50)
        .map(|_| tokio::spawn(world.stack.clone().oneshot(get("/", &[("x-api-key", "ada")]))))
        .collect();
    while world.remote.questions() == 0 {
        tokio::task::yield_now().await;
    }
    requests.remove(0).abort();
    tokio::task::yield_now().await;
    world.remote.release();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(world.remote.questions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_verifier_that_never_answers_is_waited_for_until_the_deadline() {
    let mut world = World::with(|verifier| verifier.with_deadline(Duration::from_secs(2)));
    world.remote.hold();
    let begun = tokio::time::Instant::now();
    let reply = world.send("ada").await;
    assert_eq!((reply.status(), begun.elapsed()), (StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(2)));
    let log_detail = reply.denial().unwrap().log_detail();
    assert_eq!(log_detail, "no answer from the verifier within 2s");
}

#[tokio::test]
async fn a_circuit_breaker_spares_a_verifier_that_is_down() {
    let mut world = World::new();
    assert_eq!(world.ask("ada").await, (200, 1));
    for token in ["t1", "t2", "t3", "t4", "t5"] {
        world.remote.answers(token, Err(Denial::unavailable("down")));
        assert_eq!(world.ask(token).await.0, 503);
    }
    assert_eq!(world.ask("bob").await, (503, 6), "the circuit breaker is open");
    assert_eq!(world.ask("ada").await, (200, 6), "what is cached still works");
    world.pass(1);
    assert_eq!(world.ask("bob").await, (200, 7), "one request a second asks");
    assert_eq!(world.ask("cyd").await, (200, 8), "and an answer closes it");
}

#[tokio::test]
async fn debug_output_has_no_secret() {
    let mut world = World::new();
    world.ask("s3cret").await;
    let print = format!("{:?}", world.verifier);
    assert!(print.contains("refused: 1") && !print.contains("s3cret"), "{print}");
}
