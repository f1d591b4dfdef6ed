//! Which headers pages of other origins ought to be shown.

use http::HeaderName;

/// The headers of Tollgate's that a browser's scripts can read across origins only where a CORS layer exposes them.
///
/// Headers that bear names of a service's own are not among them: those of [windows](crate::RateLimitHeaders::with_each_window)
/// other than the second, the minute, the hour and the day, and a request's identifier in another header than `x-request-id`.
///
/// ```
/// use tollgate::EXPOSED_HEADERS;
/// use tower_http::cors::CorsLayer;
///
/// let cors = CorsLayer::new().expose_headers(EXPOSED_HEADERS);
/// ```
pub const EXPOSED_HEADERS: [HeaderName; 20] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
    HeaderName::from_static("x-ratelimit-limit-second"),
    HeaderName::from_static("x-ratelimit-remaining-second"),
    HeaderName::from_static("x-ratelimit-reset-second"),
    HeaderName::from_static("x-ratelimit-limit-minute"),
    HeaderName::from_static("x-ratelimit-remaining-minute"),
    HeaderName::from_static("x-ratelimit-reset-minute"),
    HeaderName::from_static("x-ratelimit-limit-hour"),
    HeaderName::from_static("x-ratelimit-remaining-hour"),
    HeaderName::from_static("x-ratelimit-reset-hour"),
    HeaderName::from_static("x-ratelimit-limit-day"),
    HeaderName::from_static("x-ratelimit-remaining-day"),
    HeaderName::from_static("x-ratelimit-reset-day"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("retry-after"),
    HeaderName::from_static("www-authenticate"),
];
