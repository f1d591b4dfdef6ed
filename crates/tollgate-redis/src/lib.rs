#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod connect;
mod credits;
mod error;
mod events;
mod leases;
mod limiter;
mod limits;
mod places;
mod redis_connection;
mod settings;
#[cfg(test)]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "all numbers are far below 2^52"
)]
mod simulation;

pub use credits::{Loans, RedisCredits, RedisCreditsBuilder};
pub use error::ConnectError;
pub use events::{RedisEvents, RedisEventsBuilder};
pub use leases::Leases;
pub use limiter::{Outage, RedisLimiter, RedisLimiterBuilder};
pub use limits::{CounterState, LimitQuery, LimitReset, RedisLimits};
pub use places::{RedisPlaces, RedisPlacesBuilder};
pub use redis_connection::Redis;
pub use settings::RedisSettings;
