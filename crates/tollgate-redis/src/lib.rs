#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod connect;
mod error;
mod leases;
mod limiter;
mod redis_connection;
mod settings;
#[cfg(test)]
mod simulation;

pub use error::ConnectError;
pub use leases::Leases;
pub use limiter::{Outage, RedisLimiter, RedisLimiterBuilder};
pub use redis_connection::Redis;
pub use settings::RedisSettings;
