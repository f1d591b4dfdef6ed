//! The layers in axum, hyper and tonic, over real sockets.

mod axum_router;
mod credentials;
mod grpc;
mod hyper_server;
mod scope_maps;

use std::convert::Infallible;

use axum::{body::Body, extract::Request, response::IntoResponse, routing::Route};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tests::hosts::SixLayers;
use tollgate::{
    AttemptLimitLayer, CredentialLayer, EntitlementLayer, GuardLayer, InFlightLimitLayer, PlanLayer,
    RateLimitLayer, RequestIdLayer, ScopeLayer, Tollgate, VerifyLayer,
    layers::{Gated, ResponseFuture},
};
use tonic::service::Routes;
use tower::{BoxError, Layer, Service, service_fn};

/// The trait bounds that hosts put on a layer and its service, for each layer, the built stack and separate layers.
#[test]
fn layers_services_and_futures_fit_every_host() {
    fn fits_axum<L>()
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request, Response: IntoResponse + 'static, Error: Into<Infallible> + 'static>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
    }

    fn fits_tonic<L, B>()
    where
        L: Layer<Routes> + Clone + Send + Sync + 'static,
        L::Service:
            Service<http::Request<tonic::body::Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        <L::Service as Service<http::Request<tonic::body::Body>>>::Future: Send + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
    }

    /// Services of any kind, with bodies of any kind.
    fn fits_any<S, Q, B>(_: &S)
    where
        S: Service<http::Request<Q>, Response = Response<B>, Future: Send> + Clone + Send + Sync + 'static,
        Q: Send + 'static,
        B: http_body::Body<Data: From<Bytes>> + Send + Sync + Unpin,
    {
        fn is_service<S: Clone + Send + Sync + 'static>() {}
        fn is_future<F: Future + Send>() {}
        fn is_body<B: http_body::Body + Send + Sync + Unpin>() {}
        is_service::<Gated<S>>();
        is_future::<ResponseFuture<S, Q>>();
        is_body::<tollgate::layers::Body<B>>();
    }

    macro_rules! fit {
        ($($layer:ty),*) => {$(
            fits_axum::<$layer>();
            fits_tonic::<$layer, _>();
        )*};
    }
    fit!(
        RequestIdLayer,
        AttemptLimitLayer,
        CredentialLayer,
        VerifyLayer,
        PlanLayer,
        InFlightLimitLayer,
        RateLimitLayer,
        EntitlementLayer,
        ScopeLayer,
        GuardLayer,
        Tollgate,
        SixLayers
    );
    let service =
        service_fn(async |_: http::Request<Body>| Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())));
    fits_any(&service);
}
