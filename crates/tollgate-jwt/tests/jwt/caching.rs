//! Tokens that were seen before.

use std::sync::Arc;

use serde_json::json;
use tollgate_core::denial::DenialKind;
use tollgate_jwt::JwtVerifier;
use tollgate_testing::{KeySetAnswer, midnight};

use crate::support::{Setup, eventually, issuer, seconds, verify};

#[tokio::test]
async fn a_token_seen_before_has_the_same_principal() {
    let setup = Setup::new().await;
    let token = setup.authority.mint(json!({"sub": "user_1"}));
    let first = setup.verify(&token).await.unwrap();
    assert!(Arc::ptr_eq(&first, &setup.verify(&token).await.unwrap()));
    let other = setup.authority.mint(json!({"sub": "user_2"}));
    assert_eq!(setup.verify(&other).await.unwrap().id(), "user_2");
    assert!(
        !Arc::ptr_eq(&first, &verify(&setup.verifier, &token, midnight() - seconds(1)).await.unwrap()),
        "the clock was set back"
    );
    setup.verifier.invalidate_all();
    assert!(!Arc::ptr_eq(&first, &setup.verify(&token).await.unwrap()));
}

#[tokio::test]
async fn every_byte_of_a_token_counts() {
    let setup = Setup::new().await;
    let token = setup.authority.mint(json!({"sub": "user_1"}));
    setup.verify(&token).await.unwrap();
    for at in 0..token.len() {
        let mut other = token.clone().into_bytes();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        let other = String::from_utf8(other).unwrap();
        assert!(setup.verify(&other).await.is_err(), "byte {at}");
    }
    assert!(setup.verify(&format!("{token}A")).await.is_err());
    assert!(setup.verify(&token[..token.len() - 1]).await.is_err());
}

#[tokio::test]
async fn a_cached_token_ends_with_its_expiry() {
    let setup = Setup::new().await;
    let token = setup.authority.mint(json!({"sub": "user_1", "exp": 2_000_073_610}));
    setup.verify(&token).await.unwrap();
    setup.clock.advance(seconds(14));
    assert!(setup.verify(&token).await.is_ok());
    setup.clock.advance(seconds(1));
    assert_eq!(setup.refusal(&token).await.0, DenialKind::KeyExpired);
}

#[tokio::test]
async fn a_cached_token_ends_with_the_key_that_signed_it() {
    let setup = Setup::new().await;
    let old = setup.authority.mint(json!({"sub": "user_1"}));
    setup.verify(&old).await.unwrap();
    setup.authority.rotate();
    setup.authority.withdraw_key("key-1");
    // A token of the new key makes the verifier fetch the set, which lacks the old key.
    let new = setup.authority.mint(json!({"sub": "user_2"}));
    let kept = setup.verify(&new).await.unwrap();
    assert_eq!(setup.refusal(&old).await.0, DenialKind::TokenInvalid);
    assert!(Arc::ptr_eq(&kept, &setup.verify(&new).await.unwrap()), "other keys are not affected");
}

/// No other token arrives: the set is fetched because it is due.
#[tokio::test]
async fn a_withdrawn_key_is_noticed_although_all_tokens_are_cached() {
    let setup = Setup::new().await;
    let token = setup.authority.mint(json!({"sub": "user_1"}));
    let first = setup.verify(&token).await.unwrap();
    setup.clock.advance(seconds(301));
    assert!(
        Arc::ptr_eq(&first, &setup.verify(&token).await.unwrap()),
        "confirmed, without a new signature check"
    );
    assert_eq!(setup.authority.requests(), 2);
    setup.authority.publish_ed25519_key();
    setup.authority.withdraw_key("key-1");
    setup.clock.advance(seconds(301));
    assert_eq!(setup.refusal(&token).await.0, DenialKind::TokenInvalid);
}

#[tokio::test]
async fn keys_that_are_due_soon_are_fetched_beside_the_requests() {
    let setup = Setup::new().await;
    let token = setup.authority.mint(json!({"sub": "user_1"}));
    setup.verify(&token).await.unwrap();
    setup.authority.answer_with(KeySetAnswer::Hang);
    setup.clock.advance(seconds(241));
    for _ in 0..10 {
        // Would wait for 5 seconds if it waited for the fetch.
        let verified = tokio::time::timeout(seconds(3), setup.verify(&token)).await;
        assert!(verified.expect("it does not wait").is_ok());
    }
    eventually(|| setup.authority.requests() == 2).await;
}

#[tokio::test]
async fn the_number_of_cached_tokens_is_bounded() {
    let (authority, _) = crate::support::authority().await;
    for capacity in [0, 10] {
        let verifier = JwtVerifier::new(issuer(&authority)).with_capacity(capacity);
        for number in 0..100 {
            let token = authority.mint(json!({"sub": number.to_string()}));
            assert!(verify(&verifier, &token, midnight()).await.is_ok());
        }
        let shown = format!("{verifier:?}");
        let cached: usize =
            shown.split("cached: ").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap();
        assert!(cached <= capacity && (cached > 0) == (capacity > 0), "{shown}");
    }
}
