//! The process-wide crypto provider of `jsonwebtoken` is not used.
//!
//! It is missing if one crate of a program enables the backend `aws_lc_rs` and another one `rust_crypto`: then `jsonwebtoken::decode`
//! panics. This test installs one that always panics, which is the same for a caller.

use jsonwebtoken::crypto::{CryptoProvider, KeyUtils};
use serde_json::json;
use tollgate_jwt::{Issuer, JwtVerifier};
use tollgate_testing::{hs256_token, midnight};

use crate::support::{Setup, verify};

static PANICS: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| panic!("the process-wide provider was used"),
    verifier_factory: |_, _| panic!("the process-wide provider was used"),
    key_utils: KeyUtils::new_unimplemented(),
};

#[tokio::test]
async fn works_whatever_the_process_wide_provider_is() {
    // Fails if another provider is in use by now, which nothing in this program may cause.
    PANICS.install_default().expect("no provider was installed by the tests");
    let setup = Setup::new().await;
    setup.verifier.connect().await.unwrap();
    assert!(setup.verify(&setup.authority.mint(json!({"sub": "u"}))).await.is_ok());
    let kid = setup.authority.publish_ed25519_key();
    setup.authority.sign_with(&kid);
    assert!(setup.verify(&setup.authority.mint(json!({"sub": "u"}))).await.is_ok());

    let secret = [7; 32];
    let verifier = JwtVerifier::new(Issuer::hs256("i", "a", secret).unwrap());
    let claims = json!({"iss": "i", "aud": "a", "sub": "u", "exp": 2_000_077_200});
    let token = hs256_token(&secret, &json!({"alg": "HS256"}), &claims);
    assert!(verify(&verifier, &token, midnight()).await.is_ok());
    // It does panic: the test can fail.
    let key = jsonwebtoken::DecodingKey::from_secret(&secret).unwrap();
    let panics = std::panic::catch_unwind(|| {
        jsonwebtoken::crypto::verify("AAAA", b"", &key, jsonwebtoken::Algorithm::HS256)
    });
    assert!(panics.is_err());
}
