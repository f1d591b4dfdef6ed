//! `Idempotency-Key`: by what a request is recognized if its caller sends it again.

use http::header::HeaderName;
use tollgate_core::{
    bounds::MAX_IDEMPOTENCY_KEY_BYTES,
    denial::{Denial, DenialKind},
    key::{Digest, Environment},
    request::RequestHead,
};

use crate::engine::single;

/// What is done with a request whose `Idempotency-Key` was charged before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepeatedRequest {
    /// It is refused with 409.
    Refuse,
    /// It reaches the handler, and is not charged. The handler must look at [`CreditMeter::is_repeated`](super::CreditMeter::is_repeated)
    /// and answer with what it has stored: a handler that repeats the work gives it away.
    PassToHandler,
}

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The request's key, if it has one.
pub(super) fn key(head: RequestHead<'_>) -> Result<Option<&str>, Denial> {
    let invalid = || Denial::new(DenialKind::IdempotencyKeyInvalid);
    let Some(value) = single(head.headers, &IDEMPOTENCY_KEY).map_err(|_| invalid())? else { return Ok(None) };
    // `to_str` admits tabs, too.
    let key = value
        .to_str()
        .ok()
        .filter(|key| (1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&key.len()) && !key.contains('\t'));
    key.map(Some).ok_or_else(invalid)
}

/// What a key stands for: the method, the target, the estimated cost and the environment. None of them contains a space.
pub(super) fn fingerprint(head: RequestHead<'_>, estimate: u64, environment: Option<Environment>) -> Digest {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let environment = environment.map_or("", Environment::as_str);
    Digest::of(format!("{} {target} {estimate} {environment}", head.method))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    #[test]
    fn a_key_is_one_text_of_printable_ascii() {
        let long = "x".repeat(255);
        let too_long = "x".repeat(256);
        for (values, is_valid) in [
            (&["8e03978e-40d5-43dd-bc93-6894a57f9324"][..], true),
            (&["\"quoted\""], true),
            (&["two words"], true),
            (&[&long], true),
            (&[&too_long], false),
            (&[""], false),
            (&["tab\there"], false),
            (&["café"], false),
            (&["one", "one"], false),
        ] {
            let mut request = Request::new(());
            for value in values {
                request
                    .headers_mut()
                    .append(&IDEMPOTENCY_KEY, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            match key(RequestHead::of(&request)) {
                Ok(key) => assert_eq!((key, true), (Some(values[0]), is_valid), "{values:?}"),
                Err(denial) => {
                    assert_eq!((denial.kind(), false), (DenialKind::IdempotencyKeyInvalid, is_valid));
                }
            }
        }
        assert_eq!(key(RequestHead::of(&Request::new(()))).unwrap(), None);
    }

    #[test]
    fn the_fingerprint_depends_on_method_target_estimate_and_environment() {
        let of = |method: &str, uri: &str, estimate, environment| {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            fingerprint(RequestHead::of(&request), estimate, environment)
        };
        let fingerprint = |method: &str, uri: &str, estimate| of(method, uri, estimate, None);
        let first = fingerprint("POST", "/scan?depth=1", 5);
        assert_eq!(fingerprint("POST", "/scan?depth=1", 5), first);
        for other in [
            fingerprint("PUT", "/scan?depth=1", 5),
            fingerprint("POST", "/scan?depth=2", 5),
            fingerprint("POST", "/scan", 5),
            fingerprint("POST", "/scan?depth=1", 6),
            of("POST", "/scan?depth=1", 5, Some(Environment::Live)),
            of("POST", "/scan?depth=1", 5, Some(Environment::Test)),
        ] {
            assert_ne!(other, first);
        }
    }
}
