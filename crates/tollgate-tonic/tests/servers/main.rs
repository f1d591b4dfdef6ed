//! tonic's server and client with a stack between them, over real sockets.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests, where a panic is the failure"
)]

mod handlers;
mod readiness;
mod refusals;
mod web;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tollgate::{
    Answer, Denial, DenialKind, PerWindow as _, Principal, Scopes, Tollgate,
    clock::ManualClock,
    respond::Grpc,
    scope,
    verify::{Verify, VerifyRequest},
};
use tollgate_tonic::{Details, RequestExt};
use tonic::{
    Request, Response, Status,
    codegen::{BoxStream, tokio_stream},
    transport::{Channel, Endpoint, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

const DOMAIN: &str = "market.example.com";

/// Fails a test that would hang.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("an answer within a minute")
}

/// Knows some keys by their names.
struct Keys;

impl Verify for Keys {
    fn verify(&self, presented: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        let principal = Principal::new("key_1").with_tenant("acme");
        match presented.credential.expose_secret() {
            "good" => Answer::Now(Ok(Arc::new(principal.with_scopes(Scopes::new(["prices:read"]).unwrap())))),
            "scopeless" => Answer::Now(Err(Denial::scope_missing("prices:read"))),
            "slow" => Answer::later(async {
                tokio::task::yield_now().await;
                Err(DenialKind::KeyUnknown.into())
            }),
            "stuck" => Answer::later(std::future::pending()),
            _ => Answer::Now(Err(DenialKind::KeyUnknown.into())),
        }
    }
}

/// A stack that admits `requests` a minute, by a clock that stands still.
fn tollgate(requests: u64) -> Tollgate {
    Tollgate::builder()
        .verify(Keys)
        .rate_limit(requests.per_minute())
        .scope(scope("prices:read"))
        .responder(Grpc::new().with_details(Details::new(DOMAIN)))
        .clock(ManualClock::at(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_010)))
        .build()
        .unwrap()
}

/// A service that does what the request names.
struct Service;

#[tonic::async_trait]
impl Health for Service {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        handlers::handle(request)
    }

    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let context = request.call_context();
        drop(request);
        let id = context.principal()?.id().to_owned();
        let refused =
            context.refuse(Denial::new(DenialKind::Forbidden).with_detail(format!("Enough, {id}.")));
        let items = tokio_stream::iter([Ok(HealthCheckResponse { status: 1 }), Err(refused)]);
        Ok(Response::new(Box::pin(items)))
    }
}

fn service() -> HealthServer<Service> {
    HealthServer::new(Service)
}

async fn listen() -> (TcpIncoming, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (TcpIncoming::from(listener), address)
}

/// Serves a server of tonic, whatever its layers are, and gives its address.
macro_rules! serve {
    ($server:expr) => {{
        let (incoming, address) = crate::listen().await;
        let mut server = $server;
        tokio::spawn(server.add_service(crate::service()).serve_with_incoming(incoming));
        address
    }};
}
pub(crate) use serve;

async fn connect(server: SocketAddr) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{server}")).unwrap();
    HealthClient::new(within(endpoint.connect()).await.unwrap())
}

/// A call with a key, which names what the handler does.
fn call(key: &str, what: &str) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest { service: what.to_owned() });
    if !key.is_empty() {
        request.metadata_mut().insert("x-api-key", key.parse().unwrap());
    }
    request
}
