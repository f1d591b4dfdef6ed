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
    /// In another place, which shared caches do not know. Holds the header's name, if the place was a header; many shared caches
    /// ignore `Vary`.
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
                if let Some(value) = made_private(headers, header.is_some()) {
                    set_header(headers, &CACHE_CONTROL, value);
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

/// The `Cache-Control` that keeps a response out of shared caches; `None` if it keeps itself out.
///
/// A response with `max-age` or `no-cache` becomes `private`: the caller's own cache may keep it (RFC 9111 section 5.2.2.7), and
/// `Vary` names the header with the key. All other responses get `no-store`. So does every response to a key in the query, because a
/// cache would store the URL with it.
fn made_private(headers: &HeaderMap, is_in_header: bool) -> Option<HeaderValue> {
    if !headers.contains_key(CACHE_CONTROL) {
        return Some(PRIVATE);
    }
    let lines: Option<Vec<&str>> =
        headers.get_all(CACHE_CONTROL).iter().map(|line| line.to_str().ok()).collect();
    let directives = lines.and_then(|lines| directives(&lines)).unwrap_or_default();
    let has = |names: &[&str]| {
        directives.iter().any(|directive| directive.is_any_of(names) && !directive.is_qualified)
    };
    if has(&["private", "no-store"]) {
        return None;
    }
    if !is_in_header || !has(&["max-age", "no-cache"]) {
        return Some(PRIVATE);
    }
    let kept = directives.iter().filter(|directive| !directive.is_any_of(&["public", "private", "s-maxage"]));
    let mut value = String::from("private");
    for directive in kept {
        value.push_str(", ");
        value.push_str(directive.text);
    }
    Some(HeaderValue::try_from(value).unwrap_or(PRIVATE))
}

/// A directive of `Cache-Control` (RFC 9111 section 5.2).
struct Directive<'h> {
    text: &'h str,
    name: &'h str,
    // Whether it holds only for the fields that it names: `private="set-cookie"`.
    is_qualified: bool,
}

impl Directive<'_> {
    fn is_any_of(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.name.eq_ignore_ascii_case(name))
    }
}

/// The directives of all lines. `None` if a line ends within quotes: caches may read such a line in different ways.
fn directives<'h>(lines: &[&'h str]) -> Option<Vec<Directive<'h>>> {
    let mut found = Vec::new();
    for line in lines {
        let (mut is_quoted, mut is_escaped) = (false, false);
        let elements = line.split(|character| {
            let is_end = character == ',' && !is_quoted;
            match character {
                _ if is_escaped => is_escaped = false,
                '\\' if is_quoted => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                _ => {}
            }
            is_end
        });
        for text in elements.map(str::trim_ascii).filter(|text| !text.is_empty()) {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            found.push(Directive {
                text,
                name: name.trim_ascii(),
                is_qualified: value.trim_ascii().starts_with('"'),
            });
        }
        if is_quoted {
            return None;
        }
    }
    Some(found)
}
