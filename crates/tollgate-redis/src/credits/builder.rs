//! The settings of credits.

use std::{fmt, time::Duration};

use tollgate_core::credits::CreditLoans;

use super::{Clock, Loans, RedisCredits};
use crate::Redis;

/// The settings of [`RedisCredits`].
///
/// ```no_run
/// use std::time::Duration;
/// use tollgate::credits::MemoryCredits;
/// use tollgate_redis::{Loans, Redis, RedisCredits};
///
/// # async fn example() -> Result<(), tollgate_redis::ConnectError> {
/// let redis = Redis::connect("redis://127.0.0.1:6379").await?;
/// let credits = RedisCredits::builder(redis, MemoryCredits::new())
///     .with_loans(Loans::Auto)
///     .with_longest_reservation(Duration::from_secs(120))
///     .build();
/// # let _ = credits;
/// # Ok(())
/// # }
/// ```
#[must_use = "it reserves nothing yet: call `build`"]
pub struct RedisCreditsBuilder<L> {
    redis: Redis,
    ledger: L,
    loans: Loans,
    longest: Duration,
    clock: Clock,
}

impl<L> RedisCreditsBuilder<L> {
    /// The longest reservation that is lent, unless [`with_longest_reservation`](Self::with_longest_reservation) changes it: 10 minutes.
    pub const DEFAULT_LONGEST_RESERVATION: Duration = Duration::from_secs(600);

    pub(super) fn new(redis: Redis, ledger: L) -> Self {
        let (loans, longest) = (Loans::default(), Self::DEFAULT_LONGEST_RESERVATION);
        Self { redis, ledger, loans, longest, clock: Clock::System }
    }

    /// Which accounts borrow: [`Loans::Auto`] by default.
    pub fn with_loans(mut self, loans: Loans) -> Self {
        self.loans = loans;
        self
    }

    /// The longest reservation that is lent, from one second to one day. Longer ones are made in the ledger. A loan expires 11 minutes
    /// after this time: until then, the credits of a loan are missing that Redis has lost.
    pub fn with_longest_reservation(mut self, longest: Duration) -> Self {
        self.longest = longest.clamp(Duration::from_secs(1), Duration::from_secs(86_400));
        self
    }

    /// Loans end by the instants of the requests, not by this machine's clock. For tests with a `ManualClock`: in production, loans of
    /// a process without requests would not be closed.
    pub fn with_request_time(mut self) -> Self {
        self.clock = Clock::requests();
        self
    }
}

impl<L: CreditLoans> RedisCreditsBuilder<L> {
    /// The credits.
    pub fn build(self) -> RedisCredits<L> {
        RedisCredits::start(self.redis, self.ledger, self.loans, self.longest, self.clock)
    }
}

impl<L> fmt::Debug for RedisCreditsBuilder<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCreditsBuilder")
            .field("redis", &self.redis)
            .field("loans", &self.loans)
            .field("longest", &self.longest)
            .finish_non_exhaustive()
    }
}
