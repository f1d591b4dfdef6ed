//! Assertions on responses.

use http::Response;
use tollgate::{Denial, DenialKind};

/// Asserts that a response is a refusal for this reason, and returns the denial for further assertions.
///
/// The denial is in the response's extensions, which a response has in the process that refused the request, and not after it was
/// sent over a socket.
///
/// ```
/// use tollgate::{Denial, DenialKind};
/// use tollgate_testing::assert_denied;
///
/// let mut response = http::Response::new(()); // of a service behind Tollgate
/// response.extensions_mut().insert(Denial::scope_missing("write"));
///
/// let denial = assert_denied(&response, DenialKind::ScopeMissing);
/// assert_eq!(denial.scope(), Some("write"));
/// ```
///
/// # Panics
/// If the response is not a refusal, or is one for another reason.
#[track_caller]
pub fn assert_denied<B>(response: &Response<B>, expected: DenialKind) -> &Denial {
    match response.extensions().get::<Denial>() {
        Some(denial) if denial.kind() == expected => denial,
        Some(denial) => {
            panic!("expected a refusal with `{}`, but it was refused with `{denial}`", expected.reason())
        }
        None => panic!(
            "expected a refusal with `{}`, but no layer of Tollgate refused it: the status is {}",
            expected.reason(),
            response.status()
        ),
    }
}

/// Asserts that no layer of Tollgate refused the request of this response, whatever its status is.
///
/// # Panics
/// If the response is a refusal.
#[track_caller]
pub fn assert_allowed<B>(response: &Response<B>) {
    if let Some(denial) = response.extensions().get::<Denial>() {
        panic!("expected that the request is allowed, but it was refused with `{denial}`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Response<()> {
        let mut response = Response::new(());
        response.extensions_mut().insert(Denial::new(DenialKind::KeyRevoked).with_log_detail("by ada"));
        response
    }

    #[test]
    fn the_expected_reason_passes() {
        assert_eq!(assert_denied(&refused(), DenialKind::KeyRevoked).log_detail(), "by ada");
        assert_allowed(&Response::new(()));
    }

    #[test]
    #[should_panic(
        expected = "expected a refusal with `key_unknown`, but it was refused with `key_revoked: by ada`"
    )]
    fn another_reason_fails() {
        assert_denied(&refused(), DenialKind::KeyUnknown);
    }

    #[test]
    #[should_panic(expected = "no layer of Tollgate refused it: the status is 200 OK")]
    fn a_response_that_is_not_refused_fails() {
        assert_denied(&Response::new(()), DenialKind::KeyUnknown);
    }

    #[test]
    #[should_panic(expected = "it was refused with `key_revoked: by ada`")]
    fn a_refusal_is_not_allowed() {
        assert_allowed(&refused());
    }
}
