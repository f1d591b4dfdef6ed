//! The environment of a request, from a header.

use http::HeaderName;
use serde_json::json;
use tollgate_core::{denial::DenialKind, key::Environment, network::Networks};
use tollgate_testing::midnight;

use crate::support::{Setup, verify_with};

const NAME: &str = "x-environment";

async fn setup() -> Setup {
    Setup::with(|verifier| verifier.with_environment_header(HeaderName::from_static(NAME), Environment::Live))
        .await
}

#[tokio::test]
async fn a_token_acts_in_the_environment_that_its_request_names() {
    let setup = setup().await;
    let token = setup.authority.mint(json!({"sub": "user_1"}));
    // Twice, so that the second round is answered from the cache.
    for _ in 0..2 {
        for (headers, expected) in [
            (&[][..], Environment::Live),
            (&[(NAME, "test")], Environment::Test),
            (&[(NAME, "live")], Environment::Live),
        ] {
            let principal = verify_with(&setup.verifier, &token, headers, midnight()).await.unwrap();
            assert_eq!(principal.environment(), Some(expected), "{headers:?}");
        }
    }
}

#[tokio::test]
async fn refuses_every_other_value_of_a_caller_whose_token_is_valid() {
    let setup = setup().await;
    let token = setup.authority.mint(json!({"sub": "user_1"}));
    for headers in [
        &[(NAME, "LIVE")][..],
        &[(NAME, "")],
        &[(NAME, "production")],
        &[(NAME, "live,test")],
        &[(NAME, "live"), (NAME, "live")],
        &[(NAME, "live"), (NAME, "test")],
    ] {
        let denial = verify_with(&setup.verifier, &token, headers, midnight()).await.unwrap_err();
        assert_eq!(
            (denial.kind(), denial.status().as_u16()),
            (DenialKind::EnvironmentInvalid, 400),
            "{headers:?}"
        );
        let denial = verify_with(&setup.verifier, "eyJ.a.b", headers, midnight()).await.unwrap_err();
        assert_eq!(denial.kind(), DenialKind::TokenInvalid, "{headers:?}");
    }
}

#[tokio::test]
async fn without_the_setting_the_application_decides() {
    let setup = Setup::with(|verifier| {
        verifier.with_principal(|claims| Ok(claims.to_principal()?.with_environment(Environment::Test)))
    })
    .await;
    let token = setup.authority.mint(json!({"sub": "user_1"}));
    let principal = verify_with(&setup.verifier, &token, &[(NAME, "live")], midnight()).await.unwrap();
    assert_eq!(principal.environment(), Some(Environment::Test));
}

#[tokio::test]
async fn a_header_does_not_replace_the_environment_of_a_principal() {
    let setup = Setup::with(|verifier| {
        verifier
            .with_principal(|claims| Ok(claims.to_principal()?.with_environment(Environment::Test)))
            .with_environment_header(HeaderName::from_static(NAME), Environment::Live)
    })
    .await;
    let token = setup.authority.mint(json!({"sub": "user_1"}));
    let principal = verify_with(&setup.verifier, &token, &[(NAME, "test")], midnight()).await.unwrap();
    assert_eq!(principal.environment(), Some(Environment::Test));
    for headers in [&[(NAME, "live")][..], &[]] {
        let denial = verify_with(&setup.verifier, &token, headers, midnight()).await.unwrap_err();
        assert_eq!((denial.kind(), denial.status().as_u16()), (DenialKind::WrongEnvironment, 401));
    }
}

/// The caller may be outside the networks, and must not learn that the token is valid there.
#[tokio::test]
async fn an_invalid_header_of_a_principal_with_networks_looks_like_an_unknown_token() {
    let setup = Setup::with(|verifier| {
        verifier
            .with_principal(|claims| {
                let networks = Networks::new(["10.0.0.0/8"]).unwrap();
                Ok(claims.to_principal()?.with_allowed_networks(networks))
            })
            .with_environment_header(HeaderName::from_static(NAME), Environment::Live)
    })
    .await;
    let token = setup.authority.mint(json!({"sub": "user_1"}));
    assert!(verify_with(&setup.verifier, &token, &[(NAME, "live")], midnight()).await.is_ok());
    let denial = verify_with(&setup.verifier, &token, &[(NAME, "LIVE")], midnight()).await.unwrap_err();
    let unknown = verify_with(&setup.verifier, "eyJ.a.b", &[(NAME, "LIVE")], midnight()).await.unwrap_err();
    assert_eq!(denial.kind(), DenialKind::TokenInvalid);
    assert_eq!((denial.code(), denial.detail()), (unknown.code(), unknown.detail()));
}
