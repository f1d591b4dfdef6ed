//! Verifiers with several issuers.

use serde_json::json;
use tollgate_core::denial::DenialKind;
use tollgate_jwt::{Issuer, JwtVerifier};
use tollgate_testing::{hs256_token, midnight};

use crate::support::{authority, issuer, verify};

const SECRET: &[u8] = b"a secret of 32 bytes for a test..";

/// A Supabase project in transition: tokens that are signed with the secret live on beside those of the new key.
#[tokio::test]
async fn a_secret_and_key_pairs_of_one_issuer_work_side_by_side() {
    let (authority, _) = authority().await;
    let secret = || Issuer::hs256(authority.issuer(), authority.audience(), SECRET).unwrap();
    let claims = json!({"iss": authority.issuer(), "aud": "test", "sub": "user_1", "exp": 2_000_077_200_u64});
    let old = hs256_token(SECRET, &json!({"alg": "HS256", "kid": "legacy"}), &claims);
    let new = authority.mint(json!({"sub": "user_1"}));
    for verifier in [
        JwtVerifier::new(issuer(&authority)).with_issuer(secret()).unwrap(),
        JwtVerifier::new(secret()).with_issuer(issuer(&authority)).unwrap(),
    ] {
        for token in [&old, &new] {
            let principal = verify(&verifier, token, midnight()).await.unwrap();
            assert_eq!(principal.id(), "user_1", "it is one issuer");
        }
        // The public keys are no secret, and other algorithms stay refused.
        let forged = hs256_token(authority.jwks().as_bytes(), &json!({"alg": "HS256"}), &claims);
        let other = authority.mint_with_header(json!({"alg": "ES384"}), json!({"sub": "user_1"}));
        for token in [forged, other] {
            let denial = verify(&verifier, &token, midnight()).await.unwrap_err();
            assert_eq!(denial.kind(), DenialKind::TokenInvalid);
        }
        for again in [secret(), issuer(&authority)] {
            let error = verifier.clone().with_issuer(again).unwrap_err().to_string();
            assert!(error.contains(&authority.issuer()) && error.contains("with_audience"), "{error}");
        }
    }
}
