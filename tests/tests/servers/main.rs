//! The layers in real servers, over real sockets and databases.
//!
//! | module | tests |
//! |---|---|
//! | `credits` | requests that are charged in credits, with callers that hang up |
//! | `hosts` | axum, hyper and tonic with the layers |
//! | `fleet` | several processes that share one database |
//! | `hang_ups` | callers that hang up, while a key store is slow, down and back |
//! | `in_flight` | limits of requests in flight, with callers that hang up |
//! | `oauth` | what a client of an MCP server does |
//! | `streams` | streams whose callers' keys end |
//! | `harness` | the database server and the network relay of the other tests |
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod credits;
mod fleet;
mod hang_ups;
mod harness;
mod hosts;
mod in_flight;
mod oauth;
mod streams;
