//! What a response will carry: known before the inner service is called.

use std::sync::LazyLock;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Response};

use super::{
    Caching,
    headers::set_header,
    numbers::{passing, recurring},
};

/// What a response will carry of the gates that its request has passed. Small, since futures hold it.
#[derive(Default)]
pub(crate) struct Stamp {
    /// The request's identifier, and the header for it.
    pub(crate) request_id: Option<HeaderValue>,
    /// The header for it, where it is not `x-request-id`.
    pub(crate) other_header: Option<HeaderName>,
    /// Where the caller's limits stand.
    pub(crate) numbers: Option<Numbers>,
    /// What caches may do with it.
    pub(crate) caching: Caching,
}

/// Where limits stand: the three numbers of one window. Of stacked limits only the innermost writes them, for all.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    /// What the window admits.
    pub(crate) limit: u64,
    /// What it still admits.
    pub(crate) remaining: u64,
    /// The second at which it ends, counted from the Unix epoch.
    pub(crate) resets_at: u64,
    /// Whether they tell of limits further out, too.
    pub(crate) are_merged: bool,
}

/// The header of a request's identifier, unless another one was chosen.
pub(crate) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) static LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub(super) static REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub(super) static RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

impl Numbers {
    /// Limit, remaining and reset as the values of headers.
    #[inline]
    pub(super) fn text(self) -> [HeaderValue; 3] {
        let (limit, reset) = recurring(self.limit, self.resets_at);
        [limit, passing(self.remaining), reset]
    }
}

impl Stamp {
    /// Completes a response. What the inner service says of the same headers is replaced.
    #[inline]
    pub(super) fn apply<B>(&mut self, response: &mut Response<B>) {
        std::mem::take(&mut self.caching).apply(response.headers_mut());
        let are_written = NumbersWritten::is_in(response.extensions());
        let numbers = self.numbers.filter(|_| !are_written);
        self.write(response.headers_mut(), numbers);
        if numbers.is_some_and(|numbers| numbers.are_merged) {
            response.extensions_mut().insert(NumbersWritten);
        }
    }

    fn write(&mut self, headers: &mut HeaderMap, numbers: Option<Numbers>) {
        let (request_id, other_header) = (self.request_id.take(), self.other_header.take());
        match (request_id, numbers, &*ALL) {
            // The usual stack, before a service that leaves the headers to others.
            (Some(request_id), Some(numbers), Some(all)) if headers.is_empty() && other_header.is_none() => {
                let [limit, remaining, reset] = numbers.text();
                *headers = fill(all.clone(), [limit, remaining, reset, request_id]);
            }
            (request_id, numbers, _) => {
                if let Some(numbers) = numbers {
                    let [limit, remaining, reset] = numbers.text();
                    set_header(headers, LIMIT.clone(), limit);
                    set_header(headers, REMAINING.clone(), remaining);
                    set_header(headers, RESET.clone(), reset);
                }
                if let Some(request_id) = request_id {
                    set_header(headers, other_header.unwrap_or_else(|| X_REQUEST_ID.clone()), request_id);
                }
            }
        }
    }
}

/// In a response's extensions: a limit further in has written the numbers of all.
#[derive(Clone)]
struct NumbersWritten;

impl NumbersWritten {
    fn is_in(extensions: &Extensions) -> bool {
        !extensions.is_empty() && extensions.get::<Self>().is_some()
    }
}

static ALL: LazyLock<Option<HeaderMap>> =
    LazyLock::new(|| names([&LIMIT, &REMAINING, &RESET, &X_REQUEST_ID]));

/// Names without values yet: to copy such a map costs less than to insert the names one by one. `None` if the map lists them in
/// another order, which it is free to do, but does not.
pub(super) fn names<'n>(names: impl IntoIterator<Item = &'n HeaderName> + Clone) -> Option<HeaderMap> {
    let empty = HeaderValue::from_static("");
    let map: HeaderMap = names.clone().into_iter().map(|name| (name.clone(), empty.clone())).collect();
    map.keys().eq(names).then_some(map)
}

/// Puts values where there are only names, in their order.
pub(super) fn fill(mut names: HeaderMap, values: impl IntoIterator<Item = HeaderValue>) -> HeaderMap {
    for (place, value) in names.values_mut().zip(values) {
        // What stood there owns nothing, and dropping it would be a call by pointer.
        std::mem::forget(std::mem::replace(place, value));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing but speed hangs on it.
    #[test]
    fn a_map_lists_its_names_in_the_order_of_their_insertion() {
        assert!(ALL.is_some());
    }
}
