//! Tokens that must be refused (RFC 8725).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_core::denial::DenialKind;
use tollgate_jwt::{Algorithm, Issuer, JwtVerifier, KeySet};
use tollgate_testing::{TestAuthority, hs256_token, midnight};

use crate::support::{Setup, issuer, parts, seconds, verify, with_claims};

const INVALID: DenialKind = DenialKind::TokenInvalid;

/// A refused token, and a part of the sentence in the log.
async fn is_refused(setup: &Setup, token: &str, detail: &str) {
    let (kind, log_detail) = setup.refusal(token).await;
    assert!(kind == INVALID && log_detail.contains(detail), "{detail}: {kind:?} {log_detail}");
}

fn user() -> Value {
    json!({"sub": "user_1"})
}

#[tokio::test]
async fn accepts_a_good_token() {
    let setup = Setup::new().await;
    let token = setup
        .authority
        .mint(json!({"sub": "user_1", "scope": "jobs:read jobs:* *", "scp": ["a"], "permissions": ["b"]}));
    let principal = setup.verify(&token).await.unwrap();
    assert_eq!(principal.id(), "user_1");
    assert_eq!(principal.scopes().to_string(), "a b jobs:read", "wildcards are left out");
    assert_eq!(principal.expires_at(), Some(midnight() + seconds(3_605)));
}

#[tokio::test]
async fn refuses_alg_none() {
    let setup = Setup::new().await;
    for name in ["none", "None", "NONE", "nOnE", ""] {
        let signed = setup.authority.mint_with_header(json!({"alg": name}), user());
        let [header, claims, _] = parts(&signed);
        for token in [&signed, &format!("{header}.{claims}.")] {
            is_refused(&setup, token, "`alg` in the token's header is not supported").await;
        }
    }
    let without = setup.authority.mint_with_header(json!({"alg": null}), user());
    is_refused(&setup, &without, "`alg`").await;
}

/// The public key as the secret of an HMAC: a verifier that lets the token choose the algorithm accepts it (CVE-2015-9235).
#[tokio::test]
async fn refuses_hs256_signed_with_the_public_key() {
    let setup = Setup::new().await;
    let set: Value = serde_json::from_str(&setup.authority.jwks()).unwrap();
    let part = |name: &str| URL_SAFE_NO_PAD.decode(set["keys"][0][name].as_str().unwrap()).unwrap();
    let point = [&[4], &*part("x"), &*part("y")].concat();
    let claims =
        json!({"sub": "user_1", "iss": setup.authority.issuer(), "aud": "test", "exp": 3_000_000_000_u64});
    for secret in [point, setup.authority.jwks().into_bytes(), part("x")] {
        let token = hs256_token(&secret, &json!({"alg": "HS256", "kid": "key-1"}), &claims);
        is_refused(&setup, &token, "algorithm is not one of those that are allowed").await;
    }
    // Even if the header names the algorithm of the key.
    let token = hs256_token(&part("x"), &json!({"alg": "ES256", "kid": "key-1"}), &claims);
    is_refused(&setup, &token, "signature").await;
}

#[tokio::test]
async fn refuses_an_algorithm_that_does_not_fit_the_key() {
    let setup = Setup::new().await;
    for name in ["RS256", "EdDSA"] {
        is_refused(
            &setup,
            &setup.authority.mint_with_header(json!({"alg": name}), user()),
            "no key with this `kid`",
        )
        .await;
    }
    for name in ["ES384", "PS256", "ES512", "HS512"] {
        let (kind, _) = setup.refusal(&setup.authority.mint_with_header(json!({"alg": name}), user())).await;
        assert_eq!(kind, INVALID, "{name}");
    }
    let only_rsa = JwtVerifier::new(issuer(&setup.authority).with_algorithms([Algorithm::Rs256]));
    let denial = verify(&only_rsa, &setup.authority.mint(user()), midnight()).await.unwrap_err();
    assert!(denial.log_detail().contains("allowed"), "{denial}");
    assert!(only_rsa.connect().await.unwrap_err().to_string().contains("with_algorithms"));
}

#[tokio::test]
async fn refuses_a_wrong_kid_and_a_missing_one_where_several_keys_fit() {
    let setup = Setup::new().await;
    let minted = |header| setup.authority.mint_with_header(header, user());
    is_refused(&setup, &minted(json!({"kid": "other"})), "no key with this `kid`").await;
    is_refused(&setup, &minted(json!({"kid": 1})), "not a text").await;
    is_refused(&setup, &minted(json!({"kid": "k".repeat(257)})), "longer than 256 bytes").await;
    assert!(setup.verify(&minted(json!({"kid": null}))).await.is_ok(), "one key fits");

    let two = Setup::new().await;
    two.authority.publish_key();
    let token = two.authority.mint_with_header(json!({"kid": null}), user());
    is_refused(&two, &token, "several keys").await;
    // A key of another type does not fit.
    let mixed = Setup::new().await;
    mixed.authority.publish_ed25519_key();
    assert!(mixed.verify(&mixed.authority.mint_with_header(json!({"kid": null}), user())).await.is_ok());
}

#[tokio::test]
async fn refuses_a_forged_signature_and_changed_claims() {
    let setup = Setup::new().await;
    let stranger = TestAuthority::start().await;
    let claims = json!({"sub": "user_1", "iss": setup.authority.issuer(), "exp": 3_000_000_000_u64});
    is_refused(&setup, &stranger.mint(claims.clone()), "signature").await;
    let token = setup.authority.mint(user());
    is_refused(&setup, &with_claims(&token, &claims), "signature").await;
    let [header, claims, signature] = parts(&token);
    for signature in ["", "AAAA", &"A".repeat(86), &signature[..84]] {
        is_refused(&setup, &format!("{header}.{claims}.{signature}"), "signature").await;
    }
    // The last character of a base64url text has unused bits. A second text of one signature would be a second token.
    assert_eq!(signature.len(), 86);
    let last = if signature.ends_with('A') { "B" } else { "x" };
    is_refused(&setup, &format!("{header}.{claims}.{}{last}", &signature[..85]), "").await;
}

#[tokio::test]
async fn refuses_a_header_that_names_a_key_or_an_extension() {
    let setup = Setup::new().await;
    let stranger = TestAuthority::start().await;
    let key: Value = serde_json::from_str(&stranger.jwks()).unwrap();
    for (header, detail) in [
        (json!({"jku": stranger.jwks_url()}), "key of its own"),
        (json!({"jku": setup.authority.jwks_url()}), "key of its own"),
        (json!({"x5u": stranger.jwks_url()}), "key of its own"),
        (json!({"jwk": key["keys"][0]}), "key of its own"),
        (json!({"x5c": ["MIIB"]}), "key of its own"),
        (json!({"crit": ["exp"], "exp": 1}), "`crit`"),
        (json!({"crit": []}), "`crit`"),
        (json!({"b64": false}), "`b64`"),
        (json!({"enc": "A128GCM"}), "encrypted"),
        (json!({"typ": "logout+jwt"}), "`typ`"),
        (json!({"typ": "dpop+jwt"}), "`typ`"),
        (json!({"typ": 1}), "not a text"),
    ] {
        is_refused(&setup, &setup.authority.mint_with_header(header, user()), detail).await;
    }
    assert_eq!(stranger.requests(), 0, "a token cannot make the service ask a host");
}

#[tokio::test]
async fn accepts_access_tokens_only_if_they_are_required() {
    let setup = Setup::new().await;
    let strict = JwtVerifier::new(issuer(&setup.authority).with_access_tokens_only());
    for (name, is_access_token) in
        [("at+jwt", true), ("application/AT+JWT", true), ("JWT", false), ("jwt", false)]
    {
        let token = setup.authority.mint_with_header(json!({"typ": name}), user());
        assert!(setup.verify(&token).await.is_ok(), "{name}");
        assert_eq!(verify(&strict, &token, midnight()).await.is_ok(), is_access_token, "{name}");
    }
    let untyped = setup.authority.mint_with_header(json!({"typ": null}), user());
    assert!(setup.verify(&untyped).await.is_ok());
    assert!(verify(&strict, &untyped, midnight()).await.is_err());
}

#[tokio::test]
async fn refuses_tokens_of_other_forms() {
    let setup = Setup::new().await;
    let token = setup.authority.mint(user());
    let [header, claims, signature] = parts(&token);
    // A repeated member of the header, by hand.
    let twice = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","alg":"ES256","kid":"key-1"}"#);
    let claims_twice = URL_SAFE_NO_PAD.encode(r#"{"iss":"a","iss":"b"}"#);
    for (token, detail) in [
        (String::new(), "three parts"),
        ("eyJ".to_owned(), "three parts"),
        (format!("{header}.{claims}"), "three parts"),
        (format!("{token}.{signature}.{signature}"), "three parts"),
        (format!("{token}."), "three parts"),
        ("..".to_owned(), "not a JSON object"),
        (format!("{header}=.{claims}.{signature}"), "base64url"),
        (format!("{header}.{claims}.{signature}="), "base64url"),
        (format!("{header}.{claims}.sig+nature/"), "base64url"),
        (format!("{twice}.{claims}.{signature}"), "repeated"),
        (format!("{header}.{claims_twice}.{signature}"), "repeated"),
        (format!("{}.{claims}.{signature}", URL_SAFE_NO_PAD.encode("[1]")), "not a JSON object"),
    ] {
        is_refused(&setup, &token, detail).await;
    }
    assert_eq!(setup.authority.requests(), 0, "no key was asked for");
}

#[tokio::test]
async fn refuses_a_token_of_100_kb_before_it_is_read() {
    let setup = Setup::new().await;
    let long = setup.authority.mint(json!({"sub": "user_1", "more": "x".repeat(75_000)}));
    assert!(long.len() > 100_000);
    is_refused(&setup, &long, "longer").await;
    assert_eq!(setup.authority.requests(), 0);
    let limit = long.len();
    let verifier = JwtVerifier::new(issuer(&setup.authority)).with_max_token_bytes(limit);
    assert!(verify(&verifier, &long, midnight()).await.is_ok(), "the limit can be raised");
    let verifier = JwtVerifier::new(issuer(&setup.authority)).with_max_token_bytes(limit - 1);
    assert!(verify(&verifier, &long, midnight()).await.is_err());
}

#[tokio::test]
async fn refuses_a_secret_of_fewer_than_32_bytes() {
    let error = Issuer::hs256("https://a", "b", [7; 31]).unwrap_err();
    assert!(error.to_string().contains("32 bytes"));
    assert!(Issuer::hs256("https://a", "b", [7; 32]).is_ok());
}

#[tokio::test]
async fn verifies_hs256_by_a_secret_and_nothing_else() {
    let secret = b"a secret of 32 bytes for a test..";
    let issuer = Issuer::hs256("https://old.supabase.co/auth/v1", "authenticated", secret).unwrap();
    let verifier = JwtVerifier::new(issuer.with_algorithms([Algorithm::Es256]));
    let claims = json!({"sub": "u", "iss": "https://old.supabase.co/auth/v1", "aud": "authenticated", "exp": 3_000_000_000_u64});
    let minted =
        |secret: &[u8], algorithm| hs256_token(secret, &json!({"alg": algorithm, "typ": "JWT"}), &claims);
    assert_eq!(verify(&verifier, &minted(secret, "HS256"), midnight()).await.unwrap().id(), "u");
    // Supabase names its secret.
    let named = hs256_token(secret, &json!({"alg": "HS256", "kid": "any"}), &claims);
    assert!(verify(&verifier, &named, midnight()).await.is_ok());
    for (secret, algorithm) in
        [(&secret[..], "HS512"), (&secret[..], "none"), (&secret[..], "ES256"), (&[7; 32][..], "HS256")]
    {
        assert!(verify(&verifier, &minted(secret, algorithm), midnight()).await.is_err(), "{algorithm}");
    }
    assert!(!format!("{verifier:?}").contains("secret"));
    verifier.connect().await.unwrap();
}

/// RFC 8725 section 3.9, and an attack on verifiers that search one set of keys for all issuers.
#[tokio::test]
async fn keeps_issuers_apart_even_if_their_keys_have_one_name() {
    let (one, other) = (TestAuthority::start().await, TestAuthority::start().await);
    let verifier =
        JwtVerifier::new(issuer(&one)).with_issuer(issuer(&other).with_audience("only-here")).unwrap();
    let now = std::time::UNIX_EPOCH + seconds(1_000);
    let exp = json!(2_000);
    let minted = |authority: &TestAuthority, iss: &str, aud: &str| {
        authority.mint(json!({"sub": "user_1", "iss": iss, "aud": aud, "exp": exp}))
    };
    let (a, b) = (one.issuer(), other.issuer());
    let ids = [
        verify(&verifier, &minted(&one, &a, "test"), now).await.unwrap().id().to_owned(),
        verify(&verifier, &minted(&other, &b, "test"), now).await.unwrap().id().to_owned(),
    ];
    assert_eq!(ids, [format!("{a} user_1"), format!("{b} user_1")], "two callers");
    for (authority, iss, aud) in [
        (&one, &*b, "test"),
        (&other, &*a, "test"),
        (&one, &*a, "only-here"),
        (&one, "https://stranger", "test"),
        (&one, "", "test"),
    ] {
        assert!(verify(&verifier, &minted(authority, iss, aud), now).await.is_err(), "{iss} {aud}");
    }
    assert!(verify(&verifier, &minted(&other, &b, "only-here"), now).await.is_ok());
}

fn offline() -> JwtVerifier {
    let keys = KeySet::parse(
        r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    );
    JwtVerifier::new(Issuer::from_keys("i", "a", keys.unwrap()))
}

fn is_refused_at_once(verifier: &JwtVerifier, token: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(verify(verifier, token, midnight())).is_err()
}

proptest! {
    #[test]
    fn survives_any_text(token in "[ -~]{0,200}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,80}", 0..6)) {
        let verifier = offline();
        prop_assert!(is_refused_at_once(&verifier, &token));
        prop_assert!(is_refused_at_once(&verifier, &parts.join(".")));
    }

    #[test]
    fn survives_any_json(header in json_text(), claims in json_text(), signature in prop::collection::vec(any::<u8>(), 0..80)) {
        let token = [header.as_bytes(), claims.as_bytes(), &signature].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        prop_assert!(is_refused_at_once(&offline(), &token));
    }

    #[test]
    fn survives_any_key_set(set in json_text(), key in json_text(), parts in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = KeySet::parse(&set);
        let _ = KeySet::parse(format!(r#"{{"keys": [{key}]}}"#));
        let _ = KeySet::parse(&parts);
        let text = URL_SAFE_NO_PAD.encode(&parts);
        for (kty, crv) in [("RSA", ""), ("EC", "P-256"), ("EC", "P-384"), ("OKP", "Ed25519")] {
            let key = json!({"kty": kty, "crv": crv, "x": text, "y": text, "n": text, "e": "AQAB"});
            if let Ok(keys) = KeySet::parse(json!({"keys": [key]}).to_string()) {
                let algorithms = [Algorithm::Rs256, Algorithm::Ps512, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa];
                let verifier = JwtVerifier::new(Issuer::from_keys("i", "a", keys).with_algorithms(algorithms));
                for algorithm in ["RS256", "PS512", "ES256", "ES384", "EdDSA"] {
                    let token = hs256_token(&[1; 64], &json!({"alg": algorithm}), &json!({"iss": "i"}));
                    prop_assert!(is_refused_at_once(&verifier, &token));
                }
            }
        }
    }
}

/// Objects whose members are those that the verifier reads, with values of any type.
fn json_text() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "alg", "kid", "typ", "crit", "b64", "iss", "aud", "exp", "nbf", "sub", "cnf", "kty", "crv", "x", "y",
        "n", "e", "k", "use", "key_ops", "keys", "scope",
    ]);
    let value = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<f64>().prop_map(|value| json!(value)),
        prop::sample::select(vec![
            "i", "a", "EdDSA", "ES256", "RS256", "OKP", "Ed25519", "RSA", "EC", "P-256", "AQAB", ""
        ])
        .prop_map(|value| json!(value)),
        Just(json!(["a", 1])),
        Just(json!({"a": {}})),
    ];
    prop::collection::vec((name, value), 0..8).prop_map(|members| {
        let members: serde_json::Map<_, _> =
            members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Value::Object(members).to_string()
    })
}
