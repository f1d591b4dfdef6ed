//! The headers that most responses have in common, kept by each thread: to copy them costs less than to insert them one by one.
//!
//! docs/performance.md has the measurement.

use std::{cell::RefCell, mem};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    headers::set_header, number_text::number_text, rate_limit_headers::RateLimitValues,
    response_parts::X_REQUEST_ID,
};

static X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The headers of one window. Those that differ by response, `X-RateLimit-Remaining` and `X-Request-Id`, have no value yet.
struct Template {
    limit: u64,
    reset: u64,
    headers: HeaderMap,
}

impl Template {
    fn new(limit: u64, reset: u64) -> Self {
        let no_value = HeaderValue::from_static("");
        let headers = [
            (X_RATELIMIT_LIMIT.clone(), number_text(limit)),
            (X_RATELIMIT_REMAINING.clone(), no_value.clone()),
            (X_RATELIMIT_RESET.clone(), number_text(reset)),
            (X_REQUEST_ID.clone(), no_value),
        ];
        Self { limit, reset, headers: headers.into_iter().collect() }
    }

    fn is_of(&self, limit: u64, reset: u64) -> bool {
        self.limit == limit && self.reset == reset
    }
}

/// How many templates a thread keeps: about 500 bytes each.
const TEMPLATES: usize = 8;

thread_local! {
    static CACHE: RefCell<[Option<Template>; TEMPLATES]> = const { RefCell::new([const { None }; TEMPLATES]) };
}

/// Whether `X-RateLimit-*` are there already.
pub(super) fn are_in(headers: &HeaderMap) -> bool {
    headers.contains_key(&X_RATELIMIT_REMAINING)
}

/// Writes these headers, of which `headers` holds none or others.
#[inline]
pub(super) fn write(values: RateLimitValues, request_id: Option<HeaderValue>, headers: &mut HeaderMap) {
    let mut remaining = number_text(values.remaining);
    with_template(values.limit, values.reset, |template| match request_id {
        Some(mut request_id) if headers.is_empty() => {
            headers.clone_from(template);
            for (name, value) in headers {
                if *name == X_RATELIMIT_REMAINING {
                    mem::swap(value, &mut remaining);
                } else if *name == X_REQUEST_ID {
                    mem::swap(value, &mut request_id);
                }
            }
        }
        request_id => insert_all(template, remaining, request_id, headers),
    });
}

/// Inserts the headers one by one among others.
#[inline(never)]
fn insert_all(
    template: &HeaderMap,
    remaining: HeaderValue,
    request_id: Option<HeaderValue>,
    headers: &mut HeaderMap,
) {
    for name in [&X_RATELIMIT_LIMIT, &X_RATELIMIT_RESET] {
        if let Some(value) = template.get(name) {
            set_header(headers, name.clone(), value.clone());
        }
    }
    set_header(headers, X_RATELIMIT_REMAINING.clone(), remaining);
    if let Some(request_id) = request_id {
        set_header(headers, X_REQUEST_ID.clone(), request_id);
    }
}

#[inline]
fn with_template(limit: u64, reset: u64, write: impl FnOnce(&HeaderMap)) {
    CACHE.with_borrow_mut(|cache| {
        // Fibonacci hashing: limits and resets are round numbers, which a remainder would not spread.
        let hash = (limit ^ reset).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = usize::try_from(hash >> (u64::BITS - TEMPLATES.ilog2())).unwrap_or_default();
        match cache.get_mut(place) {
            Some(Some(template)) if template.is_of(limit, reset) => write(&template.headers),
            Some(other) => write(&other.insert(Template::new(limit, reset)).headers),
            None => {} // never: the place is below TEMPLATES
        }
    });
}
