//! What the caller sent to prove who they are.

use std::fmt;

use http::{
    HeaderName, HeaderValue,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
};

use crate::ascii;

/// What the caller sent: not yet verified, and never printed.
///
/// It is a [`HeaderValue`] marked as sensitive, so that nothing which prints headers prints it, HPACK never indexes it,
/// and carrying it costs no copy.
#[derive(Clone)]
pub struct Credential {
    value: HeaderValue,
    // Where the secret begins in the value: past a scheme such as `Bearer `.
    start: usize,
    source: CredentialSource,
}

impl Credential {
    /// The credential that `value` holds from byte `start` on.
    #[inline]
    pub fn new(mut value: HeaderValue, start: usize, source: CredentialSource) -> Self {
        value.set_sensitive(true);
        Self { value, start, source }
    }

    /// The secret text. Empty if the value is not UTF-8, which no source of Tollgate's own lets through.
    pub fn expose_secret(&self) -> &str {
        std::str::from_utf8(self.expose_secret_bytes()).unwrap_or_default()
    }

    /// The secret's bytes as they were sent, for a verifier that parses and hashes them and needs no text.
    #[inline]
    pub fn expose_secret_bytes(&self) -> &[u8] {
        self.value.as_bytes().get(self.start..).unwrap_or_default()
    }

    /// How many bytes the secret text has.
    #[inline]
    pub fn length(&self) -> usize {
        self.value.len().saturating_sub(self.start)
    }

    /// Whether a text is a `b64token` (RFC 6750 section 2.1), as `Authorization: Bearer` carries: letters, digits and
    /// `-._~+/=`.
    #[inline]
    pub fn is_b64token(text: &[u8]) -> bool {
        // Most keys are words.
        ascii::is_word(text) || is_any_b64token(text)
    }

    /// Where it came from.
    #[inline]
    pub fn source(&self) -> &CredentialSource {
        &self.source
    }
}

#[cold]
fn is_any_b64token(text: &[u8]) -> bool {
    text.iter().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
    })
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("source", &self.source).finish_non_exhaustive()
    }
}

/// A place in the request's head where a credential may stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialSource {
    /// `Authorization: Bearer <credential>` (RFC 6750 section 2.1). The scheme's case does not matter.
    Bearer,
    /// A header that holds nothing but the credential, such as `X-API-Key`.
    Header(HeaderName),
    /// `Authorization: Basic <base64 of credential:>` (RFC 7617): the key is the user name, the password is empty.
    BasicUser,
    /// An offered WebSocket subprotocol that begins with this prefix, for browsers, which cannot set headers on a
    /// WebSocket: `new WebSocket(url, ["chat", "key." + credential])`.
    WebSocketProtocol(&'static str),
    /// A query parameter of this name. Dangerous: URLs end up in access logs, browser histories, caches and `Referer`
    /// headers. For callers that can do nothing else, with keys that are short-lived and narrow in scope. Name and value are
    /// taken as they are sent, without decoding.
    DangerousQuery(&'static str),
}

impl CredentialSource {
    /// The header that carries it, if one does.
    #[inline]
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Bearer | Self::BasicUser => Some(&AUTHORIZATION),
            Self::Header(name) => Some(name),
            Self::WebSocketProtocol(_) => Some(&SEC_WEBSOCKET_PROTOCOL),
            Self::DangerousQuery(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_its_secret_only_when_asked() {
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
    fn what_is_no_text_has_bytes_all_the_same() {
        let value = HeaderValue::from_bytes(b"Bearer s3cret\xff").unwrap();
        let credential = Credential::new(value, 7, CredentialSource::Bearer);
        assert_eq!(credential.expose_secret(), "");
        assert_eq!(credential.expose_secret_bytes(), b"s3cret\xff");
    }
}
