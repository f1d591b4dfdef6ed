//! Policies of RPCs: who may call them, and what a call costs, written where the RPC is written.
//!
//! # In the proto
//!
//! ```text
//! import "tollgate/policy.proto";
//!
//! service Market {
//!   // For the methods that have no policy of their own.
//!   option (tollgate.service_policy) = { scopes: "prices:read" };
//!
//!   rpc GetPrice(GetPriceRequest) returns (Price);
//!
//!   rpc UploadCandles(stream Candle) returns (UploadSummary) {
//!     option (tollgate.policy) = { scopes: "candles:write", cost: 10, credits: 5 };
//!   }
//! }
//! ```
//!
//! | field | meaning | default |
//! |---|---|---|
//! | `scopes` | the principal needs all of these | none |
//! | `any_scopes` | the principal also needs one of these | none |
//! | `cost` | how much a call takes from quotas | 1 |
//! | `credits` | how many credits a call is estimated to cost | 0 |
//! | `public` | open to everyone, past all guards and limits | `false` |
//! | `anonymous` | also open to callers without a credential, if the stack accepts them | `false` |
//!
//! An empty policy, `{}`, requires a principal, whatever its scopes. A method's policy replaces that of its service as a whole; no
//! field is inherited.
//!
//! # In the build script
//!
//! Copy the file `tollgate/policy.proto` of this crate, whose content is [`PROTO`], into your own folder of protos. If it is not the one of
//! the version that runs, the start-up fails where it matters: with an option of another type or number, or a field that is not known.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{env, fs, path::PathBuf};
//!
//! let out = PathBuf::from(env::var("OUT_DIR")?);
//! // proto/market.proto and proto/tollgate/policy.proto
//! let mut compiler = protox::Compiler::new(["proto"])?;
//! compiler.include_imports(true).open_file("market.proto")?;
//! // With the options, which `compiler.file_descriptor_set()` has lost.
//! fs::write(out.join("market.bin"), compiler.encode_file_descriptor_set())?;
//! // Then: tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
//! # Ok(())
//! # }
//! ```
//!
//! Or let the build script write the file, by [`write_proto`], and include the path that it returns: `["proto".into(), path]`. That needs
//! `tollgate-tonic` with the feature `policy` among the build-dependencies too, so cargo builds it a second time. `prost-build` with
//! `protoc` finds the file in either place.
//!
//! # In the server
//!
//! ```
//! use http::Method;
//! use tollgate::{KeyVerifier, PerWindow, Policy, RateLimitLayer, Tollgate, respond::Grpc};
//! use tollgate_tonic::policy::{RpcPolicies, Services};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let compiled = |proto: &str| -> Result<Vec<u8>, Box<dyn std::error::Error>> {
//! #     let dir = tempfile::tempdir()?;
//! #     std::fs::write(dir.path().join("market.proto"), proto)?;
//! #     let policies = tollgate_tonic::policy::write_proto(dir.path().join("out"))?;
//! #     let mut compiler = protox::Compiler::new([dir.path(), policies.as_path()])?;
//! #     compiler.include_imports(true).open_file("market.proto")?;
//! #     Ok(compiler.encode_file_descriptor_set())
//! # };
//! # let descriptors = compiled(r#"
//! #     syntax = "proto3";
//! #     package market.v1;
//! #     import "tollgate/policy.proto";
//! #     message Empty {}
//! #     service Market { rpc GetPrice(Empty) returns (Empty) { option (tollgate.policy) = { scopes: "prices:read" }; } }
//! # "#)?;
//! # let verifier = KeyVerifier::new(tollgate::KeyFormat::new("sk")?, tollgate::MemoryKeys::new());
//! # let (_, health) = tonic_health::server::health_reporter();
//! // let descriptors = include_bytes!(concat!(env!("OUT_DIR"), "/market.bin"));
//! let table = RpcPolicies::from_descriptor_set(&descriptors)?
//!     .with_public_health()
//!     .with_known_scopes(["prices:read", "candles:write"])
//!     .with_http_route(Method::GET, "/v1/prices/{symbol}", "market.v1.Market/GetPrice")
//!     .build()?;
//!
//! let builder = Tollgate::builder()
//!     .responder(Grpc::new())
//!     .verify(verifier)
//!     .rate_limit(RateLimitLayer::from_policies([
//!         Policy::new("key", 600.per_minute()).with_cost(table.costs().otherwise(1)?),
//!     ])?);
//! // Its public routes, and its map of scopes.
//! let stack = table.guard(builder).build()?;
//!
//! let routes = Services::new().add_service(health).routes(&table)?;
//! // tonic::transport::Server::builder().layer(stack).add_routes(routes)
//! # let _ = (stack, routes);
//! # Ok(())
//! # }
//! ```
//!
//! # What stops the start-up
//!
//! An RPC without a policy; a policy in code for an RPC, a service or a package that the descriptor sets do not have, for example
//! because it was renamed; a scope that is invalid or that no key can have; a policy that is written twice, contradicts itself, or requires
//! nothing without saying so; two versions of a service in two descriptor sets; and a service that is served without a policy. The error names it.
//!
//! # Security
//!
//! A stack needs both parts of the table, which [`PolicyTable::guard`] gives it: without the map of scopes every key may call every RPC.
//!
//! Fails closed. Only `POST` to the exact path of an RPC has its policy; every other request is denied by the
//! [`ScopeMap`](tollgate::scope::ScopeMap). A policy with a field that this version does not know is an error, because it may be a
//! restriction. Nothing is read from descriptors after the start.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

mod nearest;
mod options;
mod resolve;
mod rpc_policies;
mod rpc_policy;
mod services;
mod table;

pub use rpc_policies::RpcPolicies;
pub use rpc_policy::RpcPolicy;
pub use services::Services;
pub use table::PolicyTable;

/// The content of `tollgate/policy.proto`, which defines the options. Copy it into your own protos, or let [`write_proto`] write it.
pub const PROTO: &str = include_str!("../proto/tollgate/policy.proto");

/// Writes `tollgate/policy.proto` for a compiler of protos into `directory`, usually `OUT_DIR`. Returns the path to include.
///
/// # Errors
/// If the file cannot be written.
pub fn write_proto(directory: impl AsRef<Path>) -> io::Result<PathBuf> {
    let include = directory.as_ref().join("tollgate-proto");
    fs::create_dir_all(include.join("tollgate"))?;
    fs::write(include.join("tollgate").join("policy.proto"), PROTO)?;
    Ok(include)
}
