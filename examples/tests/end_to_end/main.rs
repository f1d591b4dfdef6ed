//! The examples as users run them: the built programs, over real sockets.
#![cfg(test)]

mod client;
mod fleet;
mod migration;
mod oplive;
mod oplive_credits;
mod oplive_dashboard;
mod oplive_limits;
mod quickstart;
mod scanr;
mod scanr_account;
mod scanr_limits;
mod service;
mod skannr;
mod skannr_limits;
mod skannr_mfa;
mod skannr_sessions;
mod sly;
mod sly_credits;
mod sly_environments;
mod sly_limits;
mod sly_request_ids;
mod sly_rotation;
mod stratalerts;
mod stratalerts_socket;
