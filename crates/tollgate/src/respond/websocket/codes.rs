//! The codes with which WebSockets are closed.

use std::{borrow::Cow, fmt, sync::Arc};

use tollgate_core::denial::{Denial, DenialKind};

use super::close::{MAX_REASON, POLICY_VIOLATION, cut, is_sendable};

/// The codes with which WebSockets are closed, by the denial. For closing a WebSocket of any library as [`WebSocketClose`] does.
///
/// The default codes are in the table of [`WebSocketClose`].
///
/// ```
/// use tollgate::{Denial, DenialKind, respond::CloseCodes};
///
/// let (code, reason) = CloseCodes::default().of(&Denial::new(DenialKind::KeyRevoked));
/// assert_eq!((code, &*reason), (4401, "invalid_credential"));
///
/// let own = CloseCodes::new(|denial| (4000, denial.kind().reason().into()));
/// assert_eq!(own.of(&Denial::new(DenialKind::KeyRevoked)).1, "key_revoked");
/// ```
///
/// [`WebSocketClose`]: super::WebSocketClose
#[derive(Clone, Default)]
pub struct CloseCodes(Option<Arc<CodeOf>>);

type CodeOf = dyn Fn(&Denial) -> (u16, Cow<'static, str>) + Send + Sync;

impl CloseCodes {
    /// Codes and reasons of your own. The range 4000 to 4999 is for private use (RFC 6455 section 7.4.2).
    pub fn new(code: impl Fn(&Denial) -> (u16, Cow<'static, str>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(code)))
    }

    /// The code and the reason for a denial. A code that must not be sent is replaced by 1008, and a reason longer than 123 bytes is
    /// truncated.
    pub fn of(&self, denial: &Denial) -> (u16, Cow<'static, str>) {
        let (code, reason) = match &self.0 {
            Some(code) => code(denial),
            None => default_code(denial),
        };
        let reason =
            if reason.len() > MAX_REASON { cut(&reason, MAX_REASON).to_owned().into() } else { reason };
        (if is_sendable(code) { code } else { POLICY_VIOLATION }, reason)
    }
}

/// The table in the documentation of [`WebSocketClose`](super::WebSocketClose).
fn default_code(denial: &Denial) -> (u16, Cow<'static, str>) {
    let code = match (denial.status().as_u16(), denial.kind()) {
        (400, DenialKind::CredentialRepeated | DenialKind::CredentialConflicting) => 4401,
        (status @ 400..=499, _) => 4000 + status,
        (503, _) => 1013,
        (500..=599, _) => 1011,
        _ => POLICY_VIOLATION,
    };
    (code, Cow::Owned(denial.code().to_owned()))
}

impl fmt::Debug for CloseCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "CloseCodes(own)" } else { "CloseCodes(default)" })
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn each_denial_has_its_code() {
        for (denial, code) in [
            (Denial::new(DenialKind::CredentialMissing), 4401),
            (Denial::new(DenialKind::KeyRevoked), 4401),
            (Denial::new(DenialKind::CredentialRepeated), 4401),
            (Denial::new(DenialKind::CredentialConflicting), 4401),
            (Denial::new(DenialKind::Forbidden).with_status(StatusCode::BAD_REQUEST), 4400),
            (Denial::new(DenialKind::CreditsExhausted), 4402),
            (Denial::scope_missing("jobs:read"), 4403),
            (Denial::new(DenialKind::RateLimited), 4429),
            (Denial::unavailable("the database is down"), 1013),
            (Denial::misconfigured("no layer"), 1011),
        ] {
            assert_eq!(
                CloseCodes::default().of(&denial),
                (code, Cow::Owned(denial.code().to_owned())),
                "{denial:?}"
            );
        }
    }

    #[test]
    fn replaces_what_must_not_be_sent() {
        let codes = CloseCodes::new(|denial| (1006, format!("{}{}", denial.code(), "é".repeat(100)).into()));
        let (code, reason) = codes.of(&Denial::new(DenialKind::Forbidden));
        assert_eq!(code, 1008);
        assert_eq!(reason, format!("forbidden{}", "é".repeat(57)));
    }
}
