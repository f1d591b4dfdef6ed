//! What caches may do with a response.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue,
    header::{CACHE_CONTROL, VARY},
};

use super::headers::{PRIVATE, set_header};

/// What caches may do with a response, by where its request's credential stood.
#[derive(Debug, Default)]
pub(crate) enum Caching {
    /// Nobody has asked for a credential.
    #[default]
    Free,
    /// In `Authorization`: shared caches keep no response to it (RFC 9111 section 3.5), unless it says that they may.
    Authorized,
    /// Elsewhere, of which shared caches know nothing. Named is the header, if it was one; many caches do not look at `Vary`.
    Private(Option<Arc<HeaderValue>>),
    /// Nowhere: what a stranger gets must not be served to somebody with a key. Named are the headers that may hold one.
    Stranger(Option<Arc<HeaderValue>>),
}

const ON_AUTHORIZATION: HeaderValue = HeaderValue::from_static("authorization");

impl Caching {
    /// On what a response varies that keeps itself out of all caches, as refusals do.
    pub(super) fn vary_of_private(&self) -> Option<HeaderValue> {
        match self {
            Self::Free => None,
            Self::Authorized => Some(ON_AUTHORIZATION),
            Self::Private(headers) | Self::Stranger(headers) => headers.as_deref().cloned(),
        }
    }

    pub(super) fn apply(self, headers: &mut HeaderMap) {
        let vary = match self {
            Self::Free => return,
            Self::Authorized if !headers.contains_key(CACHE_CONTROL) => return,
            Self::Authorized => Some(ON_AUTHORIZATION),
            Self::Private(header) => {
                if !is_private(headers) {
                    set_header(headers, CACHE_CONTROL, PRIVATE);
                }
                header.map(Arc::unwrap_or_clone)
            }
            Self::Stranger(headers) => headers.map(Arc::unwrap_or_clone),
        };
        if let Some(vary) = vary {
            // A full map has no place for it, and is no response that a cache would keep.
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
