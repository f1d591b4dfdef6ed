//! The parts of the caches in front of a backend that answers later: tables of answers, lookups that concurrent requests share, a
//! circuit breaker, and a count of the events that make answers outdated.

mod circuit_breaker;
mod event_count;
mod shared_lookups;
mod single_flight;
mod table;

pub(crate) use event_count::{AsOf, EventCount};
pub(crate) use shared_lookups::SharedLookups;
pub(crate) use single_flight::Waiter;
pub(crate) use table::{Cached, Digests, Entry, Hashes, Table};
