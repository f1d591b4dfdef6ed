//! The words with which a credential is refused.

use std::borrow::Cow;

use http::StatusCode;

use crate::denial::Denial;

/// The code and the sentence that a caller sees where its credential is refused with 401, in place of the default ones. They are the
/// same for every reason: an unknown key is refused in the same words as an expired one.
///
/// ```
/// use tollgate_core::{
///     denial::{Denial, DenialKind},
///     verify::RefusalText,
/// };
///
/// let text = RefusalText::new("invalid_api_key", "Invalid API key");
/// let refused = text.apply(Denial::new(DenialKind::KeyRevoked));
/// assert_eq!((refused.code(), refused.detail()), ("invalid_api_key", "Invalid API key"));
///
/// let suspended = text.apply(Denial::new(DenialKind::TenantSuspended)); // a 403
/// assert_eq!(suspended.code(), "tenant_suspended");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalText {
    code: Cow<'static, str>,
    detail: Cow<'static, str>,
}

impl RefusalText {
    /// A stable word for programs, and a sentence for people.
    pub fn new(code: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), detail: detail.into() }
    }

    /// The same denial in these words, if it refuses a credential with 401; any other denial unchanged.
    pub fn apply(&self, denial: Denial) -> Denial {
        // The kinds that a caller must not be able to distinguish are those with this error.
        let refuses_credential = denial.kind().challenge_error() == Some("invalid_token");
        if refuses_credential && denial.status() == StatusCode::UNAUTHORIZED {
            denial.with_code(self.code.clone()).with_detail(self.detail.clone())
        } else {
            denial
        }
    }
}
