//! Which headers pages of other origins ought to be shown.

use http::HeaderName;

/// The headers of Tollgate's that a browser's scripts can read across origins only where a CORS layer exposes them.
///
/// Those of a gRPC status are among them: clients of gRPC-Web find a status there if a translating layer, such as tonic-web's, is
/// outside the stack.
///
/// Headers that bear names of a service's own are not among them: those of [windows](crate::limit::RateLimitHeaders::with_each_window)
/// other than the second, the minute, the hour and the day, and a request's identifier in another header than `x-request-id`.
///
/// ```
/// use tollgate::limit::exposed_headers;
/// use tower_http::cors::CorsLayer;
///
/// let cors = CorsLayer::new().expose_headers(exposed_headers());
/// ```
pub fn exposed_headers() -> Vec<HeaderName> {
    NAMES.into_iter().map(HeaderName::from_static).collect()
}

const NAMES: [&str; 25] = [
    "x-request-id",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-limit-second",
    "x-ratelimit-remaining-second",
    "x-ratelimit-reset-second",
    "x-ratelimit-limit-minute",
    "x-ratelimit-remaining-minute",
    "x-ratelimit-reset-minute",
    "x-ratelimit-limit-hour",
    "x-ratelimit-remaining-hour",
    "x-ratelimit-reset-hour",
    "x-ratelimit-limit-day",
    "x-ratelimit-remaining-day",
    "x-ratelimit-reset-day",
    "ratelimit-policy",
    "ratelimit",
    "x-credits-remaining",
    "retry-after",
    "www-authenticate",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-retry-pushback-ms",
];
