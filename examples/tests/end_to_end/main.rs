//! The examples as their users meet them: the built programs, over real sockets.
#![cfg(test)]

mod client;
mod quickstart;
mod service;
mod stratalerts;
mod stratalerts_socket;
