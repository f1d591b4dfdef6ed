//! The layer in the clients that it is made for, over real sockets.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

mod hyper_client;
mod reqwest_client;
mod secrets;
mod server;
mod tollgate_grpc;
mod tonic_channel;

/// The key of all tests, so that each can look for it where it must not be.
const KEY: &str = "sk_live_a1B2c3D4e5F6";
