//! One table: every kind of denial, its reason in the log, and what the caller sees.

use http::StatusCode;

/// What is to blame for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The caller was refused.
    Denied,
    /// A backend is down, and the decision needs it.
    Unavailable,
    /// The service is configured wrongly.
    Misconfigured,
}

/// The precise reason for a denial.
///
/// | kind | HTTP | gRPC | code that the caller sees |
/// |---|---|---|---|
/// | `CredentialMissing`, `CredentialEmpty` | 401 | 16 | `missing_credential` |
/// | `CredentialMalformed` | 401 | 16 | `invalid_credential` |
/// | `CredentialRepeated`, `CredentialConflicting` | 400 | 16 | `invalid_request` |
/// | `KeyUnknown`, `KeyRevoked`, `KeyExpired`, `TokenInvalid`, `WrongEnvironment`, `NetworkNotAllowed` | 401 | 16 | `invalid_credential` |
/// | `EnvironmentInvalid` | 400 | 3 | `invalid_environment` |
/// | `TenantSuspended` | 403 | 7 | `tenant_suspended` |
/// | `RateLimited` | 429 | 8 | `rate_limited` |
/// | `TooManyInFlight` | 429 | 8 | `too_many_concurrent_requests` |
/// | `EntitlementInactive` | 403 | 7 | `inactive_entitlement` |
/// | `TierTooLow` | 403 | 7 | `tier_too_low` |
/// | `ScopeMissing` | 403 | 7 | `insufficient_scope` |
/// | `RouteUnlisted` | 404 | 12 | `not_found` |
/// | `CreditsExhausted` | 402 | 8 | `insufficient_credits` |
/// | `IdempotencyKeyInvalid` | 400 | 3 | `invalid_idempotency_key` |
/// | `IdempotencyKeyReused` | 422 | 3 | `idempotency_key_reused` |
/// | `RequestInProgress` | 409 | 10 | `request_in_progress` |
/// | `RequestRepeated` | 409 | 6 | `request_repeated` |
/// | `Forbidden` | 403 | 7 | `forbidden` |
/// | `Unavailable` | 503 | 14 | `unavailable` |
/// | `Misconfigured` | 500 | 13 | `internal` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DenialKind {
    /// No credential where one is required.
    CredentialMissing,
    /// The credential is empty.
    CredentialEmpty,
    /// The value cannot be a credential: another scheme, too long, not ASCII, or malformed.
    CredentialMalformed,
    /// The same header twice, or values joined by a comma.
    CredentialRepeated,
    /// Two different credentials in two places.
    CredentialConflicting,
    /// No such key.
    KeyUnknown,
    /// The key was revoked.
    KeyRevoked,
    /// The key has expired.
    KeyExpired,
    /// The token is not valid: its form, its signature or one of its claims. An expired token is `KeyExpired`.
    TokenInvalid,
    /// A test key where live keys are required, or the other way round.
    WrongEnvironment,
    /// The request names an environment that does not exist.
    EnvironmentInvalid,
    /// The key may not be used from the client's address.
    NetworkNotAllowed,
    /// The key is valid, but its tenant is suspended.
    TenantSuspended,
    /// A rate limit is used up.
    RateLimited,
    /// Too many requests of the caller are in flight.
    TooManyInFlight,
    /// The subscription has lapsed, or there is none.
    EntitlementInactive,
    /// The subscription does not cover this.
    TierTooLow,
    /// The key lacks a scope.
    ScopeMissing,
    /// The scope map does not list this route, and unlisted routes are denied. A path that is listed for other methods has a
    /// denial of its own: [`Denial::method_not_allowed`](super::Denial::method_not_allowed).
    RouteUnlisted,
    /// The credits are used up.
    CreditsExhausted,
    /// The idempotency key is empty, too long, not printable ASCII, or repeated.
    IdempotencyKeyInvalid,
    /// The idempotency key was used for another request.
    IdempotencyKeyReused,
    /// A request with the same idempotency key has not ended yet.
    RequestInProgress,
    /// A request with the same idempotency key was charged before.
    RequestRepeated,
    /// Refused for a reason of the application's own.
    Forbidden,
    /// A backend that the decision needs did not answer.
    Unavailable,
    /// The service is configured wrongly.
    Misconfigured,
}

/// One row of the table.
struct Row {
    reason: &'static str,
    status: StatusCode,
    grpc_code: u8,
    code: &'static str,
    detail: &'static str,
    challenge_error: Option<&'static str>,
}

const INVALID_ARGUMENT: u8 = 3;
const ALREADY_EXISTS: u8 = 6;
const ABORTED: u8 = 10;
const UNAUTHENTICATED: u8 = 16;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const UNAVAILABLE: u8 = 14;
const INTERNAL: u8 = 13;

impl DenialKind {
    /// The table. Kinds that a caller must not be able to distinguish share one row, except for the reason.
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn row(self) -> Row {
        let missing = |reason| Row {
            reason,
            status: StatusCode::UNAUTHORIZED,
            grpc_code: UNAUTHENTICATED,
            code: "missing_credential",
            detail: "This request needs a credential.",
            challenge_error: None, // RFC 6750 section 3.1: no error code where no credential was presented
        };
        let invalid = |reason| Row {
            reason,
            status: StatusCode::UNAUTHORIZED,
            grpc_code: UNAUTHENTICATED,
            code: "invalid_credential",
            detail: "The credential is not valid.",
            challenge_error: Some("invalid_token"),
        };
        let ambiguous = |reason| Row {
            reason,
            status: StatusCode::BAD_REQUEST, // RFC 6750 section 3.1, invalid_request
            grpc_code: UNAUTHENTICATED,
            code: "invalid_request",
            detail: "Send one credential, once.",
            challenge_error: Some("invalid_request"),
        };
        match self {
            Self::CredentialMissing => missing("credential_missing"),
            Self::CredentialEmpty => missing("credential_empty"),
            Self::CredentialMalformed => invalid("credential_malformed"),
            Self::CredentialRepeated => ambiguous("credential_repeated"),
            Self::CredentialConflicting => ambiguous("credential_conflicting"),
            Self::KeyUnknown => invalid("key_unknown"),
            Self::KeyRevoked => invalid("key_revoked"),
            Self::KeyExpired => invalid("key_expired"),
            Self::TokenInvalid => invalid("token_invalid"),
            Self::WrongEnvironment => invalid("wrong_environment"),
            Self::EnvironmentInvalid => rejected(
                "environment_invalid",
                StatusCode::BAD_REQUEST,
                INVALID_ARGUMENT,
                "invalid_environment",
                "The environment is `live` or `test`.",
            ),
            Self::NetworkNotAllowed => invalid("network_not_allowed"),
            Self::TenantSuspended => {
                forbidden("tenant_suspended", "tenant_suspended", "The organization is suspended.")
            }
            Self::RateLimited => exhausted(
                "rate_limited",
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "The limit is used up. Retry later.",
            ),
            Self::TooManyInFlight => exhausted(
                "too_many_in_flight",
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_concurrent_requests",
                "Too many requests at the same time. Retry when one of them has ended.",
            ),
            Self::EntitlementInactive => forbidden(
                "entitlement_inactive",
                "inactive_entitlement",
                "This needs an active subscription.",
            ),
            Self::TierTooLow => {
                forbidden("tier_too_low", "tier_too_low", "The subscription does not include this.")
            }
            Self::ScopeMissing => Row {
                challenge_error: Some("insufficient_scope"),
                ..forbidden("scope_missing", "insufficient_scope", "The credential lacks a required scope.")
            },
            // For a caller, a route that is not listed does not exist. gRPC has one code for an unknown service or method.
            Self::RouteUnlisted => Row {
                reason: "route_unlisted",
                status: StatusCode::NOT_FOUND,
                grpc_code: UNIMPLEMENTED,
                code: "not_found",
                detail: "This path does not exist.",
                challenge_error: None,
            },
            Self::CreditsExhausted => exhausted(
                "credits_exhausted",
                StatusCode::PAYMENT_REQUIRED,
                "insufficient_credits",
                "The credits are used up.",
            ),
            Self::IdempotencyKeyInvalid => rejected(
                "idempotency_key_invalid",
                StatusCode::BAD_REQUEST,
                INVALID_ARGUMENT,
                "invalid_idempotency_key",
                "Send one Idempotency-Key of 1 to 255 printable ASCII characters.",
            ),
            Self::IdempotencyKeyReused => rejected(
                "idempotency_key_reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                INVALID_ARGUMENT,
                "idempotency_key_reused",
                "The Idempotency-Key was used for another request. Send a new one.",
            ),
            Self::RequestInProgress => rejected(
                "request_in_progress",
                StatusCode::CONFLICT,
                ABORTED,
                "request_in_progress",
                "A request with this Idempotency-Key has not ended yet. Retry later.",
            ),
            Self::RequestRepeated => rejected(
                "request_repeated",
                StatusCode::CONFLICT,
                ALREADY_EXISTS,
                "request_repeated",
                "A request with this Idempotency-Key has succeeded before. For another request, send a new key.",
            ),
            Self::Forbidden => forbidden("forbidden", "forbidden", "This is not allowed."),
            Self::Unavailable => Row {
                reason: "unavailable",
                status: StatusCode::SERVICE_UNAVAILABLE,
                grpc_code: UNAVAILABLE,
                code: "unavailable",
                detail: "The service cannot answer at the moment. Retry later.",
                challenge_error: None,
            },
            Self::Misconfigured => Row {
                reason: "misconfigured",
                status: StatusCode::INTERNAL_SERVER_ERROR,
                grpc_code: INTERNAL,
                code: "internal",
                detail: "The service is not set up correctly.",
                challenge_error: None,
            },
        }
    }

    /// A stable word for the log, different for each kind.
    pub fn reason(self) -> &'static str {
        self.row().reason
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        self.row().status
    }

    /// The gRPC status code.
    pub fn grpc_code(self) -> u8 {
        self.row().grpc_code
    }

    /// A stable word for the caller, the same for kinds that the caller must not distinguish.
    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// A sentence for the caller, the same wherever the code is the same.
    pub fn detail(self) -> &'static str {
        self.row().detail
    }

    /// The `error` of a challenge (RFC 6750 section 3.1); `None` where no credential was presented, or where a challenge
    /// would not help.
    pub fn challenge_error(self) -> Option<&'static str> {
        self.row().challenge_error
    }

    /// What is to blame.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Unavailable => Outcome::Unavailable,
            Self::Misconfigured => Outcome::Misconfigured,
            _ => Outcome::Denied,
        }
    }
}

fn forbidden(reason: &'static str, code: &'static str, detail: &'static str) -> Row {
    Row {
        reason,
        status: StatusCode::FORBIDDEN,
        grpc_code: PERMISSION_DENIED,
        code,
        detail,
        challenge_error: None,
    }
}

fn rejected(
    reason: &'static str,
    status: StatusCode,
    grpc_code: u8,
    code: &'static str,
    detail: &'static str,
) -> Row {
    Row { reason, status, grpc_code, code, detail, challenge_error: None }
}

fn exhausted(reason: &'static str, status: StatusCode, code: &'static str, detail: &'static str) -> Row {
    Row { reason, status, grpc_code: RESOURCE_EXHAUSTED, code, detail, challenge_error: None }
}
