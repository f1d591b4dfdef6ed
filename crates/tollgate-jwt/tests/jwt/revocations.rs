//! Tokens and sessions that are revoked before they expire.

use serde_json::json;
use tollgate_core::{denial::DenialKind, store::EndReason};
use tollgate_jwt::Revocations;
use tollgate_testing::midnight;

use crate::support::{Setup, seconds};

async fn setup() -> (Setup, Revocations) {
    let revocations = Revocations::new();
    (Setup::with(|verifier| verifier.with_revocations(&revocations)).await, revocations)
}

#[tokio::test]
async fn a_revocation_holds_at_once_and_ends_streams() {
    let (setup, revocations) = setup().await;
    let mint =
        |jti: &str, claim: &str, sid: &str| setup.authority.mint(json!({"sub": "u", "jti": jti, claim: sid}));
    let (one, two, three) = (mint("1", "sid", "a"), mint("2", "sid", "a"), mint("3", "session_id", "b"));
    let mut principals = Vec::new();
    for token in [&one, &two, &three] {
        principals.push(setup.verify(token).await.unwrap());
    }
    let stream = principals[0].wait_until_ended();
    let until = midnight() + seconds(4_000);
    revocations.revoke_token("1", until).unwrap();
    assert_eq!(stream.await, EndReason::Revoked);
    assert_eq!(setup.refusal(&one).await.0, DenialKind::KeyRevoked);
    assert!(setup.verify(&two).await.is_ok() && setup.verify(&three).await.is_ok());

    revocations.revoke_session("a", until).unwrap();
    assert_eq!(setup.refusal(&two).await.0, DenialKind::KeyRevoked);
    assert_eq!(
        setup.refusal(&mint("4", "sid", "a")).await.0,
        DenialKind::KeyRevoked,
        "a later token of the session"
    );
    assert!(setup.verify(&three).await.is_ok());
    revocations.revoke_session("b", until).unwrap();
    assert_eq!(setup.refusal(&three).await.0, DenialKind::KeyRevoked);
    // A session's name is no token's.
    assert!(setup.verify(&mint("a", "sid", "1")).await.is_ok());
    let ended: Vec<_> = principals.iter().map(|principal| principal.end_signal().reason()).collect();
    assert_eq!(ended, [Some(EndReason::Revoked); 3]);
}

#[tokio::test]
async fn a_stream_ends_although_its_token_is_not_cached_any_more() {
    let (setup, revocations) = setup().await;
    let principal = setup.verify(&setup.authority.mint(json!({"sub": "u", "jti": "1"}))).await.unwrap();
    setup.verifier.invalidate_all();
    let stream = principal.wait_until_ended();
    drop(principal);
    revocations.revoke_token("1", midnight() + seconds(4_000)).unwrap();
    assert_eq!(stream.await, EndReason::Revoked);
}

#[tokio::test]
async fn looks_like_an_unknown_token_to_the_caller() {
    let (setup, revocations) = setup().await;
    revocations.revoke_token("1", midnight() + seconds(4_000)).unwrap();
    let denial = setup.verify(&setup.authority.mint(json!({"sub": "u", "jti": "1"}))).await.unwrap_err();
    let unknown = setup.verify("eyJ.a.b").await.unwrap_err();
    assert_eq!(
        (denial.status(), denial.code(), denial.detail()),
        (unknown.status(), unknown.code(), unknown.detail())
    );
}
