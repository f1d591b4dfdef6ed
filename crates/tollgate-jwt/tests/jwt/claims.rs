//! Claims that are required, and their types.

use serde_json::{Value, json};
use tollgate_core::denial::DenialKind;
use tollgate_jwt::{Claims, JwtVerifier};
use tollgate_testing::midnight;

use crate::support::{Setup, issuer, seconds, verify};

/// Seconds since 1970 at [`midnight`].
const NOW: u64 = 2_000_073_600;

async fn refusal(setup: &Setup, claims: Value) -> (DenialKind, String) {
    setup.refusal(&setup.authority.mint(claims)).await
}

#[tokio::test]
async fn refuses_a_wrong_issuer_or_audience() {
    let setup = Setup::new().await;
    for claims in [
        json!({"sub": "u", "iss": "https://other.example.com"}),
        json!({"sub": "u", "iss": format!("{}/", setup.authority.issuer())}),
        json!({"sub": "u", "iss": null}),
        json!({"sub": "u", "iss": [setup.authority.issuer()]}),
    ] {
        let (kind, detail) = refusal(&setup, claims).await;
        assert!(kind == DenialKind::TokenInvalid && detail.contains("`iss`"), "{detail}");
    }
    for aud in [
        json!(null),
        json!("other"),
        json!(["other"]),
        json!([]),
        json!(["test", 1]),
        json!({"test": 1}),
        json!(true),
        json!("Test"),
    ] {
        let (kind, detail) = refusal(&setup, json!({"sub": "u", "aud": aud})).await;
        assert!(kind == DenialKind::TokenInvalid && detail.contains("`aud`"), "{aud}: {detail}");
    }
    for aud in [json!("test"), json!(["other", "test"])] {
        assert!(setup.verify(&setup.authority.mint(json!({"sub": "u", "aud": aud}))).await.is_ok());
    }
}

/// In a verifier that ignored claims of the wrong type, a text as `exp` made a token that never expires (CVE-2026-25537).
#[tokio::test]
async fn refuses_a_missing_exp_and_one_that_is_no_number() {
    let setup = Setup::new().await;
    for (exp, expected) in [
        (json!(null), "no `exp`"),
        (json!("2000077200"), "`exp`"),
        (json!("never"), "`exp`"),
        (json!([2_000_077_200_u64]), "`exp`"),
        (json!({"a": 1}), "`exp`"),
        (json!(true), "`exp`"),
        (json!(-1), "`exp`"),
        (json!(1e300), "`exp`"),
        (json!(u64::MAX), "`exp`"),
        (json!(2_000_077_200_000_u64), "`exp`"), // milliseconds
    ] {
        let (kind, detail) = refusal(&setup, json!({"sub": "u", "exp": exp})).await;
        assert!(kind == DenialKind::TokenInvalid && detail.contains(expected), "{exp}: {detail}");
    }
    for nbf in [json!("1"), json!([]), json!(-5)] {
        let (kind, detail) = refusal(&setup, json!({"sub": "u", "nbf": nbf})).await;
        assert!(kind == DenialKind::TokenInvalid && detail.contains("`nbf`"), "{nbf}: {detail}");
    }
    assert!(setup.verify(&setup.authority.mint(json!({"sub": "u", "exp": 2_000_077_200.5}))).await.is_ok());
}

#[tokio::test]
async fn dates_are_compared_with_the_request_and_the_leeway() {
    let setup = Setup::new().await;
    let lenient = JwtVerifier::new(issuer(&setup.authority).with_leeway(seconds(3_600)));
    let strict = JwtVerifier::new(issuer(&setup.authority).with_leeway(seconds(0)));
    for (leeway, verifier) in [(0, &strict), (5, &setup.verifier), (60, &lenient)] {
        let ends = |exp: u64| setup.authority.mint(json!({"sub": "u", "exp": exp}));
        let denial = verify(verifier, &ends(NOW - leeway), midnight()).await.unwrap_err();
        assert_eq!((denial.kind(), leeway), (DenialKind::KeyExpired, leeway));
        let principal = verify(verifier, &ends(NOW - leeway + 1), midnight()).await.unwrap();
        assert_eq!(principal.expires_at(), Some(midnight() + seconds(1)), "the leeway is 60 seconds at most");
        let begins = |nbf: u64| setup.authority.mint(json!({"sub": "u", "nbf": nbf}));
        let denial = verify(verifier, &begins(NOW + leeway + 1), midnight()).await.unwrap_err();
        assert!(denial.log_detail().contains("not valid yet"), "{denial}");
        assert!(verify(verifier, &begins(NOW + leeway), midnight()).await.is_ok());
    }
}

#[tokio::test]
async fn refuses_a_token_that_is_bound_to_a_key_of_its_sender() {
    let setup = Setup::new().await;
    let (kind, detail) = refusal(&setup, json!({"sub": "u", "cnf": {"jkt": "abc"}})).await;
    assert!(kind == DenialKind::TokenInvalid && detail.contains("`cnf`"), "{detail}");
}

#[tokio::test]
async fn refuses_a_token_without_a_subject_unless_the_application_names_the_principal() {
    let setup = Setup::new().await;
    for sub in [json!(null), json!(""), json!(7), json!("s".repeat(257))] {
        let (kind, detail) = refusal(&setup, json!({"sub": sub})).await;
        assert!(kind == DenialKind::TokenInvalid && detail.contains("`sub`"), "{sub}: {detail}");
    }
    let own = setup.verifier.clone().with_principal(|claims: &Claims| {
        #[derive(serde::Deserialize)]
        struct Own {
            org_id: String,
        }
        let own: Own = claims.parse()?;
        Ok(tollgate_core::verify::Principal::new(own.org_id.clone()).with_tenant(own.org_id))
    });
    let principal = verify(&own, &setup.authority.mint(json!({"org_id": "acme"})), midnight()).await.unwrap();
    assert_eq!((principal.id(), principal.tenant()), ("acme", Some("acme")));
    assert!(principal.expires_at().is_some(), "the token's expiry holds for every principal");
    let denial = verify(&own, &setup.authority.mint(json!({"org_id": 7})), midnight()).await.unwrap_err();
    assert_eq!(denial.kind(), DenialKind::TokenInvalid);
}

#[tokio::test]
async fn neither_the_caller_nor_the_log_sees_the_claims() {
    let setup = Setup::new().await;
    let hidden = "s3cr3t-value";
    let token = setup.authority.mint(json!({"sub": hidden, "aud": hidden, "exp": "x"}));
    let denial = setup.verify(&token).await.unwrap_err();
    assert_eq!((denial.status().as_u16(), denial.code()), (401, "invalid_credential"));
    let shown = format!("{denial} {denial:?} {} {:?}", denial.detail(), setup.verifier);
    assert!(!shown.contains(hidden) && !shown.contains(&token));
    let seen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let log = std::sync::Arc::clone(&seen);
    let verifier = setup.verifier.clone().with_principal(move |claims: &Claims| {
        *log.lock().unwrap() = format!("{claims:?}");
        claims.to_principal()
    });
    verify(&verifier, &setup.authority.mint(json!({"sub": hidden})), midnight()).await.unwrap();
    let seen = seen.lock().unwrap().clone();
    assert!(seen.contains("sub") && !seen.contains(hidden), "{seen}");
}
