//! Tollgate for tonic: refusals with details that programs can read, and the results of the layers in handlers.
//!
//! The layers are [`tollgate`]'s. They are Tower layers, which tonic accepts unchanged.
//!
//! ```no_run
//! use tollgate::{KeyFormat, KeyVerifier, MemoryKeys, PerWindow, Tollgate, respond::Grpc};
//! use tollgate_tonic::{Details, RequestExt};
//! use tonic::{Request, Response, Status};
//! # use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server::{Health, HealthServer}};
//!
//! struct Service;
//!
//! # #[tonic::async_trait]
//! # impl Health for Service {
//! # type WatchStream = tonic::codegen::BoxStream<HealthCheckResponse>;
//! # async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
//! #     Err(request.refuse(tollgate::DenialKind::Forbidden))
//! # }
//! // In the implementation of a service:
//! async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
//!     println!("{} asks (request {})", request.principal()?.id(), request.request_id()?);
//!     Ok(Response::new(HealthCheckResponse::default()))
//! }
//! # }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tollgate = Tollgate::builder()
//!     .verify(KeyVerifier::new(KeyFormat::new("sk")?, MemoryKeys::new()))
//!     .rate_limit(60.per_minute())
//!     .responder(Grpc::new().with_details(Details::new("market.example.com")))
//!     .build()?;
//!
//! tonic::transport::Server::builder()
//!     .layer(tollgate)
//!     .add_service(HealthServer::new(Service))
//!     .serve("127.0.0.1:50051".parse()?)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Refusals
//!
//! [`Grpc`](tollgate::respond::Grpc) refuses with a gRPC status, and [`Details`] adds `grpc-status-details-bin` to it: an `ErrorInfo` always,
//! and a `RetryInfo`, `QuotaFailure`, `PreconditionFailure` or `BadRequest` where it applies.
//!
//! # In handlers
//!
//! [`RequestExt`] is implemented for [`tonic::Request`], in handlers and interceptors, for its extensions, and for a [`CallContext`]:
//!
//! | method | requires | returns |
//! |---|---|---|
//! | [`principal`](RequestExt::principal) | `VerifyLayer` | the [`Principal`](tollgate::Principal); `UNAUTHENTICATED` for anonymous requests and public RPCs |
//! | [`optional_principal`](RequestExt::optional_principal) | `VerifyLayer` | the same; `None` for anonymous requests and public RPCs |
//! | [`plan`](RequestExt::plan) | `VerifyLayer` | the caller's active [`Plan`](tollgate::Plan); `PERMISSION_DENIED` without one |
//! | [`request_id`](RequestExt::request_id) | `RequestIdLayer` | the request's identifier |
//! | [`decision`](RequestExt::decision) | | the state of the caller's limits, if a `RateLimitLayer` counts the request |
//! | [`ended`](RequestExt::ended) | | a future that waits for the [end](tollgate::Ended) of the caller, if there is one |
//! | [`credits`](RequestExt::credits) | `CreditsLayer` | the [`CreditMeter`](tollgate::credits::CreditMeter), to which the handler reports what the request has cost |
//! | [`messages`](RequestExt::messages) | `MessageLayer` | the [`MessageMeter`](tollgate::MessageMeter), by which the handler charges the messages of a stream |
//! | [`refuse`](RequestExt::refuse) | | a [`Status`](tonic::Status) that refuses as the layers do |
//! | [`call_context`](RequestExt::call_context) | | a [`CallContext`], which has these methods after the request is consumed |
//!
//! If the layer is missing, the status is `INTERNAL` and the log names the layer: a configuration error must not look like an anonymous
//! request.
//!
//! # gRPC-Web
//!
//! The responder `Grpc` refuses gRPC-Web requests, too. tonic-web's `GrpcWebLayer` works on either side of the stack:
//!
//! | order, outermost first | use it |
//! |---|---|
//! | `GrpcWebLayer`, stack, services | for a server that has only gRPC and gRPC-Web. The layers see each status: a `CreditsLayer` does not charge failed requests. `GrpcWebLayer` answers plain requests over HTTP/1 with 400 |
//! | stack, `GrpcWebLayer`, services | if the stack also guards HTTP routes. A `CreditsLayer` charges failed gRPC-Web requests, because their status is in the body |
//!
//! Put a CORS layer outside both: it answers preflights, which carry no key. Let it expose the
//! [headers](tollgate::limit::exposed_headers) of the layers.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod details;
#[cfg(feature = "policy")]
pub mod policy;
mod request_ext;
mod status;

pub use details::Details;
pub use request_ext::{CallContext, RequestExt};
