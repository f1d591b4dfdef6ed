//! What a refusal says about waiting: a decision over the head of a response.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{DATE, RETRY_AFTER},
};

use super::retry_info::retry_delay;

/// How long the server says to wait before the request is sent again. `None` if it is not to be sent again.
pub(super) fn requested_wait(
    status: StatusCode,
    headers: &HeaderMap,
    is_idempotent: bool,
    now: impl Fn() -> SystemTime,
) -> Option<Duration> {
    let is_refusal = match headers.get("grpc-status") {
        // Only a response without messages has it in its headers.
        Some(code) => code == RESOURCE_EXHAUSTED,
        None => {
            status == StatusCode::TOO_MANY_REQUESTS
                || (status == StatusCode::SERVICE_UNAVAILABLE && is_idempotent)
        }
    };
    if !is_refusal {
        return None;
    }
    let pushback = match headers.get("grpc-retry-pushback-ms") {
        None => None,
        // Negative or not a number: the request is not to be sent again (gRPC proposal A6).
        Some(value) => Some(Duration::from_millis(digits(value)?)),
    };
    let retry_after =
        headers.get_all(RETRY_AFTER).iter().filter_map(|value| retry_after(value, headers, &now));
    pushback.into_iter().chain(retry_delay(headers)).chain(retry_after).max()
}

const RESOURCE_EXHAUSTED: &str = "8";

fn retry_after(value: &HeaderValue, headers: &HeaderMap, now: impl Fn() -> SystemTime) -> Option<Duration> {
    if let Some(seconds) = digits(value) {
        return Some(Duration::from_secs(seconds));
    }
    let date = date(value)?;
    // The server's own clock, if it says it: this machine's may differ.
    let now = headers.get(DATE).and_then(self::date).unwrap_or_else(now);
    Some(date.duration_since(now).unwrap_or_default())
}

fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// A number without a sign. One that is too large is the largest one.
fn digits(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
