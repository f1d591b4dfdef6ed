//! When keys are fetched: by which requests, after failures, and while a fetch is held open.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use futures_util::{FutureExt as _, future::join_all};
use serde_json::json;
use tokio::{
    sync::Semaphore,
    time::{Duration, sleep},
};
use tollgate_core::denial::{DenialKind, Unavailable};
use tollgate_jwt::{Issuer, JwtVerifier, Revocations, fetch_keys_fn};
use tollgate_testing::{TestAuthority, midnight};

use crate::support::{authority, eventually, seconds, verify};

/// A source of keys whose fetches read the keys at once, and then wait until they are released.
struct Source {
    authority: TestAuthority,
    calls: Arc<AtomicUsize>,
    released: Arc<Semaphore>,
    fails: Arc<Mutex<bool>>,
    verifier: JwtVerifier,
}

impl Source {
    /// The verifier has fetched the first key already.
    async fn connected() -> Self {
        let source = Self::new().await;
        source.released.add_permits(1);
        source.verifier.connect_at(midnight()).await.unwrap();
        source
    }

    async fn new() -> Self {
        let (authority, _) = authority().await;
        let (calls, fails) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<bool>>::default());
        let released = Arc::new(Semaphore::new(0));
        let fetch = {
            let (keys, calls) = (authority.clone(), Arc::clone(&calls));
            let (released, fails) = (Arc::clone(&released), Arc::clone(&fails));
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
                let (keys, released, fails) = (keys.jwks(), Arc::clone(&released), Arc::clone(&fails));
                async move {
                    released.acquire().await.unwrap().forget();
                    if *fails.lock().unwrap() { Err(Unavailable::new("connection reset")) } else { Ok(keys) }
                }
            }
        };
        let issuer = Issuer::from_source(authority.issuer(), authority.audience(), fetch_keys_fn(fetch));
        Self { verifier: JwtVerifier::new(issuer), authority, calls, released, fails }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn set_fails(&self, fails: bool) {
        *self.fails.lock().unwrap() = fails;
    }

    /// Whether a new token of the current key is admitted.
    async fn admits(&self, sub: &str, now: SystemTime) -> Result<(), DenialKind> {
        let token = self.authority.mint(json!({"sub": sub}));
        verify(&self.verifier, &token, now).await.map(drop).map_err(|denial| denial.kind())
    }
}

#[tokio::test]
async fn requests_that_waited_together_for_an_older_fetch_share_the_next_one() {
    let source = Source::connected().await;
    let due = midnight() + seconds(250);
    source.admits("old", due).await.unwrap(); // begins a fetch beside the request
    eventually(|| source.calls() == 2).await;
    source.authority.rotate();
    let subs: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    let mut requests = Box::pin(join_all(subs.iter().map(|sub| source.admits(sub, due))));
    assert!(requests.as_mut().now_or_never().is_none(), "all wait for the fetch");
    source.released.add_permits(1);
    let release = async {
        eventually(|| source.calls() == 3).await;
        source.released.add_permits(1);
    };
    let (admitted, ()) = tokio::join!(requests, release);
    assert_eq!(admitted, [Ok(()); 10]);
    assert_eq!(source.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_unavailable_if_the_request_ends_before_its_fetch() {
    let source = Source::connected().await;
    let due = midnight() + seconds(250);
    source.admits("old", due).await.unwrap();
    eventually(|| source.calls() == 2).await;
    source.authority.rotate();
    let release = async {
        sleep(seconds(3)).await;
        source.released.add_permits(1); // the first fetch ends, and the second one hangs
    };
    let began = tokio::time::Instant::now();
    let (admitted, ()) = tokio::join!(source.admits("new", due), release);
    assert_eq!(admitted, Err(DenialKind::Unavailable));
    assert_eq!(source.calls(), 3);
    assert!(began.elapsed() < seconds(6), "the deadline is 5 seconds");
}

#[tokio::test]
async fn a_fetch_that_fails_during_a_rotation_costs_two_seconds_and_not_the_cool_down() {
    let source = Source::connected().await;
    source.released.add_permits(100);
    source.authority.rotate();
    source.set_fails(true);
    let at = midnight() + seconds(10);
    assert_eq!(source.admits("new", at).await, Err(DenialKind::Unavailable));
    source.set_fails(false);
    let early = at + Duration::from_millis(1_900);
    assert_eq!(source.admits("new", early).await, Err(DenialKind::Unavailable));
    assert_eq!(source.calls(), 2);
    assert_eq!(source.admits("new", at + seconds(3)).await, Ok(()));
    assert_eq!(source.calls(), 3);
}

#[tokio::test]
async fn a_request_with_a_known_key_repeats_a_fetch_that_has_failed() {
    let source = Source::connected().await;
    source.released.add_permits(100);
    let new = source.authority.publish_key();
    source.set_fails(true);
    let at = midnight() + seconds(10);
    let unknown = source.authority.mint_with_header(json!({"kid": "unknown"}), json!({"sub": "u"}));
    let denial = verify(&source.verifier, &unknown, at).await.unwrap_err();
    assert_eq!(denial.kind(), DenialKind::Unavailable, "it may be a new key");
    source.set_fails(false);
    assert_eq!(source.admits("old", at + seconds(3)).await, Ok(()));
    eventually(|| source.calls() == 3).await;
    source.authority.sign_with(&new);
    assert_eq!(source.admits("new", at + seconds(3)).await, Ok(()));
    assert_eq!(source.calls(), 3, "the set is young, but its last fetch had failed");
}

#[tokio::test(start_paused = true)]
async fn the_pause_after_a_failure_counts_from_its_end() {
    let source = Source::new().await;
    // The host hangs until the deadline, 5 seconds later.
    assert_eq!(source.admits("u", midnight()).await, Err(DenialKind::Unavailable));
    for later in [5_000, 6_900] {
        let now = midnight() + Duration::from_millis(later);
        assert_eq!(source.admits("u", now).await, Err(DenialKind::Unavailable));
        assert_eq!(source.calls(), 1, "{later} ms");
    }
    source.released.add_permits(1);
    assert_eq!(source.admits("u", midnight() + Duration::from_millis(7_100)).await, Ok(()));
    assert_eq!(source.calls(), 2);
}

#[tokio::test]
async fn a_token_that_is_revoked_while_its_key_is_confirmed_is_refused() {
    let mut source = Source::connected().await;
    let revocations = Revocations::new();
    source.verifier = source.verifier.clone().with_revocations(&revocations);
    let token = source.authority.mint(json!({"sub": "u", "jti": "1"}));
    verify(&source.verifier, &token, midnight()).await.unwrap();
    let due = midnight() + seconds(301);
    let mut request = Box::pin(verify(&source.verifier, &token, due));
    assert!(request.as_mut().now_or_never().is_none(), "the keys are too old");
    revocations.revoke_token("1", due + seconds(3_600)).unwrap();
    source.released.add_permits(1);
    assert_eq!(request.await.unwrap_err().kind(), DenialKind::KeyRevoked);
}

#[tokio::test]
async fn a_token_that_is_revoked_while_its_key_is_fetched_is_refused() {
    let mut source = Source::new().await;
    let revocations = Revocations::new();
    source.verifier = source.verifier.clone().with_revocations(&revocations);
    let token = source.authority.mint(json!({"sub": "u", "jti": "1"}));
    let mut request = Box::pin(verify(&source.verifier, &token, midnight()));
    assert!(request.as_mut().now_or_never().is_none());
    revocations.revoke_token("1", midnight() + seconds(3_700)).unwrap();
    source.released.add_permits(1);
    assert_eq!(request.await.unwrap_err().kind(), DenialKind::KeyRevoked);
}

#[tokio::test]
async fn any_duration_is_allowed() {
    let (authority, _) = authority().await;
    let issuer = crate::support::issuer(&authority)
        .with_key_ttl(Duration::MAX)
        .with_stale_keys_for(Duration::MAX)
        .with_key_cool_down(Duration::MAX)
        .with_key_deadline(Duration::MAX);
    let verifier = JwtVerifier::new(issuer).with_max_token_bytes(usize::MAX);
    for sub in ["one", "two"] {
        assert!(verify(&verifier, &authority.mint(json!({"sub": sub})), midnight()).await.is_ok());
    }
}

#[tokio::test]
async fn a_source_that_panics_is_named_in_the_log() {
    let source = fetch_keys_fn(|| async {
        assert_eq!(1, 2, "a mistake of the application");
        Ok::<_, Unavailable>(String::new())
    });
    let (authority, _) = authority().await;
    let verifier = JwtVerifier::new(Issuer::from_source(authority.issuer(), authority.audience(), source));
    let denial = verify(&verifier, &authority.mint(json!({"sub": "u"})), midnight()).await.unwrap_err();
    assert!(
        denial.kind() == DenialKind::Unavailable && denial.log_detail().contains("panicked"),
        "{}",
        denial.log_detail()
    );
}
