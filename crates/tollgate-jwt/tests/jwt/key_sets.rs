//! How keys are fetched: rotation, failures, and hosts that misbehave.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{FutureExt as _, future::join_all};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use tollgate_core::{
    clock::Clock as _,
    denial::{DenialKind, Unavailable},
};
use tollgate_jwt::{Algorithm, Issuer, JwtVerifier, KeySet, fetch_keys_fn};
use tollgate_testing::{KeySetAnswer, TestAuthority, hs256_token, midnight};

use crate::{
    openssl::{ES384, MODULUS, P384_X, P384_Y, PS256, RS256, WEAK_MODULUS, WEAK_RS256},
    support::{Setup, eventually, issuer, seconds, verify},
};

fn user() -> Value {
    json!({"sub": "user_1"})
}

const SECRET: &[u8] = b"a secret of 32 bytes for a test..";

/// The secret in a key set, as self-hosted Supabase projects publish it.
fn symmetric() -> Value {
    use base64::Engine as _;
    let secret = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(SECRET);
    json!({"kty": "oct", "alg": "HS256", "kid": "secret", "k": secret})
}

#[tokio::test]
async fn refuses_a_symmetric_key_in_a_key_set() {
    let setup = Setup::new().await;
    let mut set: Value = serde_json::from_str(&setup.authority.jwks()).unwrap();
    set["keys"].as_array_mut().unwrap().push(symmetric());
    setup.authority.answer_with(KeySetAnswer::Text(set.to_string()));
    let error = setup.verifier.connect().await.unwrap_err().to_string();
    assert!(
        error.contains("symmetric")
            && error.contains("Issuer::hs256")
            && error.contains(&setup.authority.issuer()),
        "{error}"
    );
    assert!(KeySet::parse(set.to_string()).is_err());

    let claims = json!({"sub": "u", "iss": setup.authority.issuer(), "aud": "test", "exp": 2_000_077_200});
    let token = hs256_token(SECRET, &json!({"alg": "HS256", "kid": "secret"}), &claims);
    assert_eq!(setup.refusal(&token).await.0, DenialKind::TokenInvalid);
    // The other keys of the set work, so that such a key which appears later takes no service down.
    assert!(setup.verify(&setup.authority.mint(user())).await.is_ok());

    // A secret alone is no key set.
    let only = Setup::new().await;
    only.authority.answer_with(KeySetAnswer::Text(json!({"keys": [symmetric()]}).to_string()));
    assert!(only.verifier.connect().await.unwrap_err().to_string().contains("symmetric"));
    assert_eq!(only.refusal(&only.authority.mint(user())).await.0, DenialKind::Unavailable);
}

#[tokio::test]
async fn an_empty_key_set_is_a_clear_error_at_the_start() {
    let setup = Setup::new().await;
    setup.authority.answer_with(KeySetAnswer::Text(r#"{"keys":[]}"#.to_owned()));
    let error = setup.verifier.connect().await.unwrap_err().to_string();
    assert!(error.contains("the key set is empty") && error.contains("Issuer::hs256"), "{error}");
    let (kind, detail) = setup.refusal(&setup.authority.mint(user())).await;
    assert!(kind == DenialKind::Unavailable && detail.contains("empty"), "{detail}");
}

#[test]
fn leaves_out_keys_that_cannot_verify_signatures() {
    let rsa = |more: Value| {
        let mut key = json!({"kty": "RSA", "n": MODULUS, "e": "AQAB"});
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        KeySet::parse(json!({"keys": [key]}).to_string()).map(|keys| keys.len()).unwrap_or_default()
    };
    for good in [json!({}), json!({"use": "sig"}), json!({"alg": "PS384"}), json!({"key_ops": ["verify"]})] {
        assert_eq!(rsa(good.clone()), 1, "{good}");
    }
    for bad in [
        json!({"use": "enc"}),
        json!({"use": 1}),
        json!({"key_ops": ["encrypt"]}),
        json!({"key_ops": "verify"}),
        json!({"alg": "RSA-OAEP"}),
        json!({"alg": "HS256"}),
        json!({"alg": "ES256"}),
        json!({"alg": 7}),
        json!({"kid": 7}),
        json!({"n": WEAK_MODULUS}),
        json!({"e": "AQ"}),   // 1: everything is its own signature
        json!({"e": "AQAA"}), // even
        json!({"e": "AQAAAAE"}),
        json!({"e": ""}),
        json!({"n": ""}),
        json!({"kty": "rsa"}),
        json!({"k": "AQAB"}), // a secret
    ] {
        assert_eq!(rsa(bad.clone()), 0, "{bad}");
    }
    // Too short for the backend, which would panic; and no point on the curve.
    for key in [
        json!({"kty": "OKP", "crv": "Ed25519", "x": "AQAB"}),
        json!({"kty": "OKP", "crv": "X25519", "x": P384_X}),
        json!({"kty": "EC", "crv": "P-256", "x": P384_X, "y": P384_Y}),
        json!({"kty": "EC", "crv": "P-384", "x": P384_X, "y": P384_X}),
        json!({"kty": "EC", "crv": "P-521", "x": P384_X, "y": P384_Y}),
        json!("no object"),
    ] {
        assert!(KeySet::parse(json!({"keys": [key]}).to_string()).is_err(), "{key}");
    }
    let key = json!({"kty": "RSA", "n": MODULUS, "e": "AQAB"});
    assert_eq!(KeySet::parse(json!({"keys": vec![&key; 100]}).to_string()).unwrap().len(), 100);
    assert!(KeySet::parse(json!({"keys": vec![&key; 101]}).to_string()).is_err());
    assert!(
        KeySet::parse(json!({"keys": [key], "more": "x".repeat(KeySet::MAX_BYTES)}).to_string()).is_err()
    );
}

#[tokio::test]
async fn verifies_what_openssl_has_signed() {
    let key = |alg: Option<&str>| {
        let key = json!({"kty": "RSA", "n": MODULUS, "e": "AQAB", "kid": "rsa", "alg": alg});
        let key: serde_json::Map<_, _> =
            key.as_object().unwrap().clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
        KeySet::parse(json!({"keys": [key]}).to_string()).unwrap()
    };
    let both = [Algorithm::Rs256, Algorithm::Ps256];
    for (alg, rs256, ps256) in
        [(None, true, true), (Some("RS256"), true, false), (Some("PS256"), false, true)]
    {
        let verifier = JwtVerifier::new(Issuer::from_keys("i", "a", key(alg)).with_algorithms(both));
        let accepts = [
            verify(&verifier, RS256, midnight()).await.is_ok(),
            verify(&verifier, PS256, midnight()).await.is_ok(),
            verify(&verifier, WEAK_RS256, midnight()).await.is_ok(),
        ];
        assert_eq!(accepts, [rs256, ps256, false], "{alg:?}");
    }
    let set =
        json!({"keys": [{"kty": "EC", "crv": "P-384", "x": P384_X, "y": P384_Y, "kid": "rsa"}]}).to_string();
    let issuer = Issuer::from_keys("i", "a", KeySet::parse(set).unwrap()).with_algorithms([Algorithm::Es384]);
    assert!(verify(&JwtVerifier::new(issuer), ES384, midnight()).await.is_ok());
}

#[tokio::test]
async fn verifies_by_ed25519_under_both_names() {
    let setup = Setup::new().await;
    let kid = setup.authority.publish_ed25519_key();
    setup.authority.sign_with(&kid);
    for name in ["EdDSA", "Ed25519"] {
        let token = setup.authority.mint_with_header(json!({"alg": name}), user());
        assert!(setup.verify(&token).await.is_ok(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_first_requests_share_one_fetch() {
    let setup = Arc::new(Setup::new().await);
    let requests = (0..50).map(|number| {
        let setup = Arc::clone(&setup);
        tokio::spawn(async move {
            setup.verify(&setup.authority.mint(json!({"sub": number.to_string()}))).await.is_ok()
        })
    });
    assert!(join_all(requests).await.into_iter().all(|admitted| admitted.unwrap()));
    assert_eq!(setup.authority.requests(), 1);
}

/// Keys are rotated again and again while many requests are in flight: announced, at once, and withdrawn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_load_loses_no_valid_request() {
    let setup = Arc::new(Setup::new().await);
    let (verified, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (setup, verified, stop) = (Arc::clone(&setup), Arc::clone(&verified), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut kept = None;
                while stop.load(Ordering::SeqCst) == 0 {
                    let number = verified.fetch_add(1, Ordering::SeqCst);
                    let token = setup.authority.mint(json!({"sub": format!("{client}-{number}")}));
                    setup.verify(&token).await.expect("a valid token");
                    // A token that is cached and whose key is still published.
                    let kept = kept.get_or_insert(token);
                    setup.verify(kept).await.expect("a valid token that was seen before");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 0..12 {
        let before = verified.load(Ordering::SeqCst);
        eventually(|| verified.load(Ordering::SeqCst) > before + 20).await;
        if round % 2 == 0 {
            setup.authority.rotate();
        } else {
            // Published first, and used when every verifier has had time to fetch it.
            let kid = setup.authority.publish_key();
            setup.clock.advance(seconds(5 * 60));
            setup.authority.sign_with(&kid);
        }
        // In small steps, which no cool-down fits in.
        for _ in 0..31 {
            setup.clock.advance(seconds(1));
            tokio::task::yield_now().await;
        }
    }
    stop.store(1, Ordering::SeqCst);
    for client in join_all(clients).await {
        client.unwrap();
    }
}

#[tokio::test]
async fn a_flood_of_unknown_keys_causes_one_fetch_and_evicts_nothing() {
    let setup = Setup::new().await;
    let good = setup.authority.mint(user());
    setup.verify(&good).await.unwrap();
    for round in 0..3 {
        for number in 0..100 {
            let token = setup.authority.mint_with_header(json!({"kid": format!("{round}-{number}")}), user());
            assert_eq!(setup.refusal(&token).await.0, DenialKind::TokenInvalid);
            let fresh = setup.authority.mint(json!({"sub": format!("{round}-{number}")}));
            assert!(setup.verify(&fresh).await.is_ok());
        }
        assert_eq!(setup.authority.requests(), 2 + round, "one fetch at first, and one in each 30 seconds");
        setup.clock.advance(seconds(30));
    }
}

#[tokio::test]
async fn a_host_that_hangs_costs_a_request_at_most_the_deadline() {
    let (authority, _) = crate::support::authority().await;
    let deadline = Duration::from_millis(100);
    let verifier = JwtVerifier::new(issuer(&authority).with_key_deadline(deadline));
    authority.answer_with(KeySetAnswer::Hang);
    let token = authority.mint(user());
    let began = Instant::now();
    let denial = verify(&verifier, &token, midnight()).await.unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "far more than the deadline: the default one is 5 seconds"
    );
    assert!(denial.kind() == DenialKind::Unavailable && denial.status() == 503, "{denial}");
    // Within two seconds of a failure, the host is not asked again.
    assert_eq!(verify(&verifier, &token, midnight()).await.unwrap_err().kind(), DenialKind::Unavailable);
    assert_eq!(authority.requests(), 1);

    authority.answer_with(KeySetAnswer::Keys);
    let now = midnight() + seconds(3);
    assert!(verify(&verifier, &token, now).await.is_ok(), "it has recovered");
    // Known keys: one request waits when they are due, and the next ones do not.
    authority.answer_with(KeySetAnswer::Hang);
    let due = now + seconds(301);
    for _ in 0..3 {
        assert!(verify(&verifier, &authority.mint(json!({"sub": "other"})), due).await.is_ok());
    }
    assert_eq!(authority.requests(), 3);
}

#[tokio::test]
async fn a_host_that_answers_garbage_changes_nothing() {
    for answer in [
        KeySetAnswer::Text("<html>".to_owned()),
        KeySetAnswer::Text("{}".to_owned()),
        KeySetAnswer::Text(r#"{"keys":[]}"#.to_owned()),
        KeySetAnswer::Text(r#"{"keys":{}}"#.to_owned()),
        KeySetAnswer::Text(r#"{"keys":[{"kty":"RSA"}]}"#.to_owned()),
        KeySetAnswer::Text(" ".repeat(10_000_000)),
        KeySetAnswer::Status(500),
        KeySetAnswer::Status(204),
    ] {
        let setup = Setup::new().await;
        setup.authority.answer_with(answer.clone());
        let (kind, _) = setup.refusal(&setup.authority.mint(user())).await;
        assert_eq!(kind, DenialKind::Unavailable, "no keys yet");
        setup.authority.answer_with(KeySetAnswer::Keys);
        setup.clock.advance(seconds(3));
        let seen = setup.authority.mint(user());
        setup.verify(&seen).await.unwrap();

        setup.authority.answer_with(answer);
        let fetches = setup.authority.requests();
        for age in [299, 301, 3_599] {
            let now = midnight() + seconds(3 + age);
            let token = setup.authority.mint(json!({"sub": age.to_string(), "exp": 2_000_173_600}));
            assert!(verify(&setup.verifier, &token, now).await.is_ok(), "keys of {age} seconds");
        }
        assert!(setup.authority.requests() > fetches, "it was asked");
        let now = midnight() + seconds(3 + 3_600);
        let denial =
            verify(&setup.verifier, &setup.authority.mint(json!({"sub": "late", "exp": 2_000_173_600})), now)
                .await
                .unwrap_err();
        assert_eq!(denial.kind(), DenialKind::Unavailable, "the bound of stale keys is one hour");
    }
}

#[tokio::test]
async fn follows_no_redirect() {
    let (setup, other) = (Setup::new().await, TestAuthority::start().await);
    setup.authority.answer_with(KeySetAnswer::Redirect(other.jwks_url()));
    let error = setup.verifier.connect().await.unwrap_err().to_string();
    assert!(error.contains("302"), "{error}");
    assert_eq!(other.requests(), 0);
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_cancel_the_fetch() {
    let setup = Setup::new().await;
    let token = setup.authority.mint(user());
    let answer = setup.verify(&token);
    // Polled once, and dropped.
    assert!(answer.now_or_never().is_none());
    eventually(|| setup.authority.requests() == 1).await;
    assert!(setup.verify(&setup.authority.mint(user())).await.is_ok());
    assert_eq!(setup.authority.requests(), 1, "the first fetch was used");
}

#[tokio::test]
async fn a_source_that_panics_is_unavailable_and_can_recover() {
    let (authority, clock) = crate::support::authority().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let (counted, keys) = (Arc::clone(&calls), authority.clone());
    let source = fetch_keys_fn(move || {
        let (call, keys) = (counted.fetch_add(1, Ordering::SeqCst), keys.clone());
        async move {
            assert!(call > 0, "the first call fails");
            Ok::<_, Unavailable>(keys.jwks())
        }
    });
    let verifier = JwtVerifier::new(Issuer::from_source(authority.issuer(), authority.audience(), source));
    let token = authority.mint(user());
    assert_eq!(verify(&verifier, &token, clock.now()).await.unwrap_err().kind(), DenialKind::Unavailable);
    assert!(verify(&verifier, &token, clock.now()).await.is_ok());
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}
