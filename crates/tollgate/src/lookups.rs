//! The parts of the caches in front of a backend that answers later: tables of answers, lookups that concurrent requests share, a
//! circuit breaker, and a count of the events that make answers outdated.

mod circuit_breaker;
mod event_count;
mod single_flight;
mod table;

pub(crate) use circuit_breaker::CircuitBreaker;
pub(crate) use event_count::{AsOf, EventCount};
pub(crate) use single_flight::{SingleFlight, Waiter};
pub(crate) use table::{Cached, Digests, Entry, Hashes, Table};
