//! The callers: their keys, their rights and their requests.

use std::{sync::LazyLock, time::Duration};

use tollgate::{Environment, KeyFormat, PerWindow, Plan, Principal, Quota, Scopes, limit::Window};

use crate::tokens;

/// The scope that the service requires.
pub const SCOPE: &str = "jobs:read";

/// The number of callers that take turns: few enough to stay in the cache, and enough that no caller uses up a minute, since no
/// stack gets 160,000 requests in one. The remaining quota then has at most four digits, as for most real callers.
pub const CALLERS: usize = 16;

/// The limit of each caller per minute.
pub const PER_MINUTE: u32 = 9_999;
/// The limit of each caller per hour.
pub const PER_HOUR: u32 = 1_000_000;
/// The limit of each caller per day.
pub const PER_DAY: u32 = 10_000_000;

/// The format of all keys: 49 characters, one block of SHA-256.
pub fn format() -> KeyFormat {
    KeyFormat::new("exampleapi").unwrap()
}

/// The keys of the callers.
pub fn keys() -> &'static [String] {
    static KEYS: LazyLock<Vec<String>> = LazyLock::new(issue);
    &KEYS
}

/// Well-formed keys that were never issued.
pub fn unknown_keys() -> &'static [String] {
    static KEYS: LazyLock<Vec<String>> = LazyLock::new(issue);
    &KEYS
}

fn issue() -> Vec<String> {
    let generate = || format().generate(Environment::Live).unwrap().expose_secret().to_owned();
    (0..CALLERS).map(|_| generate()).collect()
}

/// The principal of the caller with this number.
pub fn principal(number: usize, scenario: Scenario) -> Principal {
    Principal::new(format!("key_{number}"))
        .with_tenant(tenant(number))
        .with_plan(Plan::active("pro"))
        .with_scopes(Scopes::new(scenario.scopes()).unwrap())
}

/// The tenant of the caller with this number.
pub fn tenant(number: usize) -> String {
    format!("tenant_{number}")
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scenario {
    /// It is allowed.
    Allowed,
    /// Its key is well formed but unknown: 401.
    UnknownKey,
    /// Its caller has used up a limit: 429.
    OverLimit,
    /// Its caller lacks the scope: 403.
    MissingScope,
    /// It is allowed, as one of millions of requests of the same caller.
    Flood,
    /// It is allowed. Its key is in a cache in front of a store that answers later.
    CachedKey,
    /// It is allowed. Its credential is a token that was verified before.
    CachedToken,
}

impl Scenario {
    /// The scenarios that are measured without a network. The callers take turns.
    pub const ALL: [Self; 6] = [
        Self::Allowed,
        Self::UnknownKey,
        Self::OverLimit,
        Self::MissingScope,
        Self::CachedKey,
        Self::CachedToken,
    ];

    /// Those of every stack that does the whole job.
    pub const WHOLE: [Self; 4] = [Self::Allowed, Self::UnknownKey, Self::OverLimit, Self::MissingScope];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::UnknownKey => "unknown-key",
            Self::OverLimit => "over-limit",
            Self::MissingScope => "missing-scope",
            Self::Flood => "flood",
            Self::CachedKey => "cached-key",
            Self::CachedToken => "cached-token",
        }
    }

    /// The expected status.
    pub fn status(self) -> http::StatusCode {
        match self {
            Self::Allowed | Self::Flood | Self::CachedKey | Self::CachedToken => http::StatusCode::OK,
            Self::UnknownKey => http::StatusCode::UNAUTHORIZED,
            Self::OverLimit => http::StatusCode::TOO_MANY_REQUESTS,
            Self::MissingScope => http::StatusCode::FORBIDDEN,
        }
    }

    /// Whether its requests are allowed.
    pub fn is_allowed(self) -> bool {
        self.status().is_success()
    }

    /// The credentials that its requests carry.
    pub fn presented(self) -> &'static [String] {
        match self {
            Self::UnknownKey => unknown_keys(),
            Self::CachedToken => tokens::all(),
            _ => keys(),
        }
    }

    /// The scopes that its callers hold.
    pub fn scopes(self) -> [&'static str; 2] {
        match self {
            Self::MissingScope => ["jobs:write", "results:read"],
            _ => ["results:read", SCOPE],
        }
    }

    /// The limits of one window, or of three: length in seconds, and number of requests. To put a caller over the limit, the longest
    /// window allows one request, and does not end during the measurement.
    pub fn limits(self, windows: usize) -> Vec<(u32, u32)> {
        const YEAR: u32 = 365 * 24 * 3_600;
        let mut limits = vec![(60, PER_MINUTE), (3_600, PER_HOUR), (24 * 3_600, PER_DAY)];
        if self == Self::Flood {
            // 1,000,000 per second: the shortest interval of tower_governor is a nanosecond.
            limits = vec![(60, 60_000_000), (3_600, 3_600_000_000), (24 * 3_600, u32::MAX)];
        }
        limits.truncate(windows);
        if let (Self::OverLimit, Some(longest)) = (self, limits.last_mut()) {
            *longest = (YEAR, 1);
        }
        limits
    }

    /// [`limits`](Self::limits), as a quota.
    pub fn quota(self, windows: usize) -> Quota {
        let limits = self.limits(windows).into_iter();
        let quotas = limits.map(|(seconds, limit)| {
            u64::from(limit).per(Window::lasting(Duration::from_secs(seconds.into())))
        });
        quotas.reduce(Quota::and).unwrap()
    }
}
