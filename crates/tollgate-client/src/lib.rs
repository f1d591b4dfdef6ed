#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod client_key;
mod configuration_error;
mod layer;
mod origin;
mod request_id;
mod retries;

pub use client::Client;
pub use client_key::ClientKey;
pub use configuration_error::ConfigurationError;
pub use layer::{ClientLayer, NoRetries};
pub use origin::Origin;
pub use retries::{ReplayBody, ResponseFuture, Retries};
