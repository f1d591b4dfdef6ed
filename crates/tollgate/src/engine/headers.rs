//! Reading and setting headers.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Keeps a response out of all caches.
pub(super) const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");

/// A header has several lines, but only one is allowed.
pub(crate) struct Repeated;

/// The only line of a header, if it has one.
#[inline]
pub(crate) fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h HeaderValue>, Repeated> {
    check_single(headers, name)?;
    Ok(headers.get(name))
}

/// The only line of a header, if it has one, to change it.
#[inline]
pub(crate) fn single_mut<'h>(
    headers: &'h mut HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h mut HeaderValue>, Repeated> {
    check_single(headers, name)?;
    Ok(headers.get_mut(name))
}

#[inline]
fn check_single(headers: &HeaderMap, name: &HeaderName) -> Result<(), Repeated> {
    // In most requests no header has several lines, which two counters show without a lookup.
    let is_any_repeated = headers.len() > headers.keys_len();
    if is_any_repeated && headers.get_all(name).iter().nth(1).is_some() { Err(Repeated) } else { Ok(()) }
}

/// Sets a header and replaces its former values. `HeaderMap::insert` panics if a map is full, at 24,576 headers, which only
/// an inner service can bring about; such a response goes without.
#[inline(never)]
pub(crate) fn set_header(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    let _ = headers.try_insert(name.clone(), value);
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
