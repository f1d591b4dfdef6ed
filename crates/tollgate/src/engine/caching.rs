//! What caches may do with a response.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue,
    header::{CACHE_CONTROL, VARY},
};

use super::headers::{PRIVATE, set_header};

/// What caches may do with a response: it depends on where the request's credential was.
#[derive(Clone, Debug, Default)]
pub(crate) enum Caching {
    /// No layer has asked for a credential.
    #[default]
    Free,
    /// In `Authorization`: shared caches store no response to it (RFC 9111 section 3.5), unless the response permits it.
    Authorized,
    /// In another place, which shared caches do not know. Holds the header's name, if the place was a header; many caches ignore
    /// `Vary`.
    Private(Option<Arc<HeaderValue>>),
    /// The caller is anonymous: a caller with a key must not be served this response. Holds the names of the headers that may
    /// carry a credential.
    Anonymous(Option<Arc<HeaderValue>>),
}

const ON_AUTHORIZATION: HeaderValue = HeaderValue::from_static("authorization");

impl Caching {
    pub(super) fn apply(self, headers: &mut HeaderMap) {
        let vary = match self {
            Self::Free => return,
            Self::Authorized if !headers.contains_key(CACHE_CONTROL) => return,
            Self::Authorized => Some(ON_AUTHORIZATION),
            Self::Private(header) => {
                if !is_private(headers) {
                    set_header(headers, &CACHE_CONTROL, PRIVATE);
                }
                header.map(Arc::unwrap_or_clone)
            }
            Self::Anonymous(headers) => headers.map(Arc::unwrap_or_clone),
        };
        if let Some(vary) = vary {
            // A full map has no place for it.
            let _ = headers.try_append(VARY, vary);
        }
    }
}

/// Whether a response keeps itself out of shared caches (RFC 9111 sections 5.2.2.5 and 5.2.2.7).
fn is_private(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    let mut directives =
        lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    directives.any(|name| name.eq_ignore_ascii_case(b"private") || name.eq_ignore_ascii_case(b"no-store"))
}
