//! The credential that a caller sent.

use std::fmt;

use http::{
    HeaderName, HeaderValue,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
};

use crate::ascii;

/// The credential that a caller sent. It is not verified, and never printed.
///
/// It is a [`HeaderValue`] marked as sensitive: code that prints headers does not print it, HPACK does not index it, and a clone
/// copies no text.
#[derive(Clone)]
pub struct Credential {
    value: HeaderValue,
    // The offset of the secret in the value: after a scheme such as `Bearer `.
    start: usize,
    source: CredentialSource,
}

impl Credential {
    /// The credential in `value` from byte `start` on.
    #[inline]
    pub fn new(mut value: HeaderValue, start: usize, source: CredentialSource) -> Self {
        value.set_sensitive(true);
        Self { value, start, source }
    }

    /// The same secret, as if it had been found elsewhere.
    pub fn with_source(self, source: CredentialSource) -> Self {
        Self { source, ..self }
    }

    /// The secret text. Empty if the value is not UTF-8, which `CredentialLayer` refuses.
    pub fn expose_secret(&self) -> &str {
        std::str::from_utf8(self.expose_secret_bytes()).unwrap_or_default()
    }

    /// The secret's bytes as they were sent, for verifiers that hash them and need no text.
    #[inline]
    pub fn expose_secret_bytes(&self) -> &[u8] {
        self.value.as_bytes().get(self.start..).unwrap_or_default()
    }

    /// The length of the secret in bytes.
    #[inline]
    pub fn length(&self) -> usize {
        self.value.len().saturating_sub(self.start)
    }

    /// Whether a text is a `b64token`, the form of a bearer credential (RFC 6750 section 2.1): letters, digits and `-._~+/=`.
    #[inline]
    pub fn is_b64token(text: &[u8]) -> bool {
        // Most keys are words.
        ascii::is_word(text) || ascii::is_b64token(text)
    }

    /// Where in the request it was found.
    #[inline]
    pub fn source(&self) -> &CredentialSource {
        &self.source
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("source", &self.source).finish_non_exhaustive()
    }
}

/// A place in a request's head that may hold a credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialSource {
    /// `Authorization: Bearer <credential>` (RFC 6750 section 2.1). The scheme's case does not matter.
    Bearer,
    /// A header that holds only the credential, such as `X-API-Key`.
    Header(HeaderName),
    /// `Authorization: Basic <base64 of credential:>` (RFC 7617): the key is the user name, the password is empty.
    BasicUser,
    /// `Authorization: Basic <base64 of user:credential>` (RFC 7617): the key is the password.
    BasicPassword {
        /// The user name that callers must send. `None`: any, also an empty one. It is not a secret, and does not authenticate the
        /// caller.
        user: Option<&'static str>,
    },
    /// `Authorization: <scheme> <credential>`, for another scheme than `Bearer` and `Basic`, such as `Token` or `ApiKey`. The
    /// credential has the form of a bearer credential. The scheme's case does not matter.
    Scheme(&'static str),
    /// An offered WebSocket subprotocol that begins with this prefix, for browsers, which cannot set headers on a
    /// WebSocket: `new WebSocket(url, ["chat", "key." + credential])`.
    WebSocketProtocol(&'static str),
    /// A query parameter of this name. Dangerous: URLs are stored in access logs, browser histories, caches and `Referer`
    /// headers. For callers that cannot set a header, with keys that are short-lived and narrow in scope. Name and value may be
    /// percent-encoded. A `+` is a plus sign, since no credential contains a space.
    DangerousQuery(&'static str),
}

impl CredentialSource {
    /// The header that holds the credential, if it is in a header.
    #[inline]
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Bearer | Self::BasicUser | Self::BasicPassword { .. } | Self::Scheme(_) => {
                Some(&AUTHORIZATION)
            }
            Self::Header(name) => Some(name),
            Self::WebSocketProtocol(_) => Some(&SEC_WEBSOCKET_PROTOCOL),
            Self::DangerousQuery(_) => None,
        }
    }

    /// The authentication scheme (RFC 9110 section 11.1), if the credential is in `Authorization`.
    #[inline]
    pub fn scheme(&self) -> Option<&'static str> {
        match self {
            Self::Bearer => Some("Bearer"),
            Self::BasicUser | Self::BasicPassword { .. } => Some("Basic"),
            Self::Scheme(name) => Some(name),
            Self::Header(_) | Self::WebSocketProtocol(_) | Self::DangerousQuery(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_secret() {
        let credential =
            Credential::new(HeaderValue::from_static("Bearer s3cret"), 7, CredentialSource::Bearer);
        assert_eq!(credential.expose_secret(), "s3cret");
        assert_eq!(credential.expose_secret_bytes(), b"s3cret");
        assert!(!format!("{credential:?}").contains("s3cret"));
    }

    #[test]
    fn a_start_past_the_end_exposes_nothing() {
        let credential = Credential::new(HeaderValue::from_static("x"), 9, CredentialSource::Bearer);
        assert_eq!(credential.expose_secret(), "");
        assert_eq!(credential.expose_secret_bytes(), b"");
    }

    #[test]
    fn a_value_that_is_not_utf_8_has_bytes_and_no_text() {
        let value = HeaderValue::from_bytes(b"Bearer s3cret\xff").unwrap();
        let credential = Credential::new(value, 7, CredentialSource::Bearer);
        assert_eq!(credential.expose_secret(), "");
        assert_eq!(credential.expose_secret_bytes(), b"s3cret\xff");
    }
}
