//! Headers that the layers set.

use http::{HeaderMap, HeaderName, HeaderValue};

/// What keeps a response out of shared caches, and out of all others, too.
pub(crate) const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");

/// Sets a header, and replaces what is there. `HeaderMap::insert` panics where a map is full, at 24,576 headers, which
/// only an inner service can bring about; such a response goes without.
pub(crate) fn set_header(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    let _ = headers.try_insert(name, value);
}

/// Sets a header that is not there yet.
pub(super) fn set_header_default(
    headers: &mut HeaderMap,
    name: &HeaderName,
    value: impl FnOnce() -> HeaderValue,
) {
    if !headers.contains_key(name) {
        set_header(headers, name, value());
    }
}
