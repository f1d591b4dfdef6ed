//! The refusals of the routes.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use tollgate::{Denial, DenialKind, manage::KeyAdminError};

/// A refusal of a route.
#[derive(Clone, Debug)]
pub(super) struct Refused(pub(super) Denial);

impl Refused {
    pub(super) fn no_such_path() -> Self {
        Self::because(StatusCode::NOT_FOUND, "not_found", "This path does not exist.")
    }

    pub(super) fn no_such_method() -> Self {
        let detail = "The path does not support this method: see the Allow header.";
        Self::because(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    pub(super) fn cross_origin() -> Self {
        Self::because(
            StatusCode::FORBIDDEN,
            "cross_origin",
            "Changes from pages of other sites are not accepted.",
        )
    }

    pub(super) fn too_large() -> Self {
        Self::because(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is longer than 64 KiB.")
    }

    pub(super) fn not_json() -> Self {
        let detail = "The body must be JSON, with the Content-Type application/json.";
        Self::because(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    pub(super) fn invalid(reason: impl AsRef<str>) -> Self {
        Self::because(StatusCode::BAD_REQUEST, "invalid_request", reason)
    }

    fn because(status: StatusCode, code: &'static str, reason: impl AsRef<str>) -> Self {
        let denial = Denial::new(DenialKind::Forbidden).with_status(status).with_code(code);
        Self(denial.with_detail(sentence(reason.as_ref())))
    }
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self(denial)
    }
}

impl From<KeyAdminError> for Refused {
    fn from(error: KeyAdminError) -> Self {
        let (status, code) = match &error {
            KeyAdminError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            KeyAdminError::InvalidCursor => (StatusCode::BAD_REQUEST, "invalid_cursor"),
            KeyAdminError::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            KeyAdminError::NameTaken => (StatusCode::CONFLICT, "name_taken"),
            KeyAdminError::KeyTaken => (StatusCode::CONFLICT, "key_taken"),
            KeyAdminError::Revoked => (StatusCode::CONFLICT, "revoked"),
            KeyAdminError::NotPermitted => (StatusCode::FORBIDDEN, "forbidden"),
            // `Unavailable`, and errors that stores may add later: details go only to the log.
            _ => return Self(Denial::unavailable(error.to_string())),
        };
        Self::because(status, code, error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        crate::Refused(self.0).into_response()
    }
}

/// Formats a reason as a sentence, like the details of other denials.
fn sentence(reason: &str) -> String {
    let mut letters = reason.chars();
    let mut sentence: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    sentence.push_str(letters.as_str());
    if !sentence.ends_with('.') {
        sentence.push('.');
    }
    sentence
}
