//! The layers, called within the test: a request goes in, a response comes out. Only a few of these tests open a socket.
//!
//! | module | tests |
//! |---|---|
//! | `every_layer` | the properties of every layer and of the built stack |
//! | `cached_verifier` | the cache in front of a verifier that answers later |
//! | `credentials` | reading credentials from a request |
//! | `credits` | charging requests in credits, and backends of credits that fail |
//! | `dispatch` | several verifiers, of which one is asked |
//! | `environments` | live and test keys, routes and routers |
//! | `guards` | checks of the application's own |
//! | `in_flight` | limits of requests in flight, and their backends |
//! | `legacy_keys` | keys that are known by the hash of an older system |
//! | `memory_keys` | the key store in memory, through a verifier |
//! | `messages` | charging the messages of streams one by one |
//! | `networks` | keys that may be used from some networks only |
//! | `plans` | plans of tenants, and plans that are looked up before limits |
//! | `public_routes` | routes that need no credential |
//! | `refusals` | the responses to refused requests |
//! | `request_id` | the request ID |
//! | `streams` | streams that end with the key of their caller |
//! | `bodies` | bodies of every kind, and other tower layers |
//! | `attacks` | attacks that once succeeded or could succeed |
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod attacks;
mod bodies;
mod cached_verifier;
mod credentials;
mod credits;
mod dispatch;
mod environments;
mod every_layer;
mod guards;
mod in_flight;
mod legacy_keys;
mod memory_keys;
mod messages;
mod networks;
mod plans;
mod public_routes;
mod refusals;
mod request_id;
mod stacked_limits;
mod streams;
