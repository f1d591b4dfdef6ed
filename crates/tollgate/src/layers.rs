//! The layers, one file each, in the order of a request. Each is the engine with one gate.

pub mod credential;
pub mod entitlement;
pub mod rate_limit;
pub mod request_id;
pub mod scope;
pub mod verify;
