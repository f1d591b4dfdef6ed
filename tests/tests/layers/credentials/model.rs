//! A naive model of reading credentials. It shares no code with the layer.

use http::{HeaderValue, StatusCode};
use proptest::prelude::*;
use tollgate::{CredentialLayer, Denial};

use super::{
    AUTHORIZATION, Conflicting, Empty, KEY, Malformed, Missing, Refused, Repeated, Verdict, judge, presents,
    request,
};

/// The expected result for `Authorization: Bearer` and `X-API-Key`, from the documented rules. With several errors at once, the
/// layer may report any of them.
fn model(authorization: &[Vec<u8>], keys: &[Vec<u8>]) -> Result<Option<Vec<u8>>, ()> {
    if authorization.len() > 1 || keys.len() > 1 {
        return Err(());
    }
    let mut found = Vec::new();
    if let Some(value) = authorization.first() {
        let text = String::from_utf8(value.clone()).map_err(|_| ())?;
        let (scheme, rest) = text.split_once(' ').ok_or(())?;
        let token = rest.trim_start_matches(' ');
        let is_token = token.chars().all(|c| "-._~+/=".contains(c) || c.is_ascii_alphanumeric());
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || !is_token {
            return Err(());
        }
        found.push(token.as_bytes().to_vec());
    }
    if let Some(key) = keys.first() {
        let is_key = key.iter().all(|byte| (0x21..=0x7e).contains(byte) && *byte != 0x2c);
        if key.is_empty() || !is_key {
            return Err(());
        }
        found.push(key.clone());
    }
    if found.iter().any(|one| one.len() > 64) {
        return Err(());
    }
    found.dedup();
    if found.len() > 1 { Err(()) } else { Ok(found.pop()) }
}

/// Values that resemble credentials, and arbitrary values.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let printable = "[Bb][Ee]arer {0,3}(tok|tik|[a-z,. ~+/=-]{0,8})( |,|, Bearer x|)";
    prop_oneof![
        printable.prop_map(String::into_bytes),
        "(tok|tik|to k|)".prop_map(String::into_bytes),
        "[ -~]{0,70}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_filter("a header value", |bytes| HeaderValue::from_bytes(bytes).is_ok()),
        "Bearer x{60,70}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_agrees_with_a_naive_model(
        authorization in prop::collection::vec(value(), 0..3),
        keys in prop::collection::vec(value(), 0..3),
        is_optional: bool,
    ) {
        let layer = CredentialLayer::new().with_max_length(64);
        let layer = if is_optional { layer.with_anonymous() } else { layer };
        let headers: Vec<_> = authorization
            .iter()
            .map(|value| (AUTHORIZATION, value.clone()))
            .chain(keys.iter().map(|value| (KEY, value.clone())))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (verdict, reply) = runtime.block_on(judge(&layer, request(&headers)));
        match model(&authorization, &keys) {
            Ok(Some(credential)) => prop_assert_eq!(verdict, presents(&String::from_utf8(credential).unwrap())),
            Ok(None) if is_optional => prop_assert_eq!(verdict, Verdict::Anonymous),
            Ok(None) => prop_assert_eq!(verdict, Refused(Missing)),
            Err(()) => {
                prop_assert!(matches!(verdict, Refused(Empty | Malformed | Repeated | Conflicting)), "{:?}", verdict);
                prop_assert!(matches!(reply.status(), StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST));
                prop_assert!(reply.denial().map(Denial::status) == Some(reply.status()));
            }
        }
    }
}
