//! What handlers and interceptors read, and how they refuse.

use std::error::Error as _;

use http::Extensions;
use tollgate::{Denial, DenialKind, PerWindow as _, Principal, RequestContext, Tollgate, respond::Grpc};
use tollgate_tonic::RequestExt;
use tonic::{
    Code, Request, Response, Status, metadata::MetadataMap, service::interceptor::InterceptedService,
    transport::Server,
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt as _;

use super::{Keys, call, connect, listen, serve, service, tollgate, within};

/// Does what the request names. The status of the response says how often a value was found.
pub(crate) fn handle(request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
    let what = request.get_ref().service.clone();
    let (metadata, extensions, message) = request.into_parts();
    match what.as_str() {
        "everything" => {
            assert_eq!(extensions.principal()?.tenant(), Some("acme"));
            let limit = extensions.decision().unwrap().tightest().unwrap().limit;
            let request = Request::from_parts(metadata, extensions, message);
            let mut response = Response::new(HealthCheckResponse { status: i32::try_from(limit).unwrap() });
            let id = request.request_id()?.as_str().parse().unwrap();
            response.metadata_mut().insert("seen", id);
            return Ok(response);
        }
        "refuse" => return Err(extensions.refuse(Denial::scope_missing("prices:write"))),
        "plan" => drop(extensions.plan()?),
        "credits" => drop(extensions.credits()?),
        _ => {}
    }
    Ok(Response::new(HealthCheckResponse { status: 1 }))
}

#[tokio::test]
async fn a_handler_reads_what_the_layers_know() {
    let mut client = connect(serve!(Server::builder().layer(tollgate(60)))).await;
    let mut request = call("good", "everything");
    request.metadata_mut().insert("x-request-id", "mine".parse().unwrap());
    let response = within(client.check(request)).await.unwrap();
    assert_eq!(response.metadata().get("seen").unwrap(), "mine");
    assert_eq!(response.into_inner().status, 60);
}

#[tokio::test]
async fn a_handler_refuses_as_the_layers_do() {
    let mut client = connect(serve!(Server::builder().layer(tollgate(60)))).await;
    let status = within(client.check(call("good", "refuse"))).await.unwrap_err();
    let by_layer = within(client.check(call("scopeless", ""))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (by_layer.code(), by_layer.message()));
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), info.metadata["scope"].as_str()),
        ("insufficient_scope", "prices:write")
    );
    assert_eq!(status.metadata().get("cache-control").unwrap(), "private, no-store");
    assert_eq!(status.metadata().get("x-ratelimit-remaining").unwrap(), "59", "added by the layers outside");
}

#[tokio::test]
async fn a_stream_refuses_after_its_request_is_consumed() {
    let mut client = connect(serve!(Server::builder().layer(tollgate(60)))).await;
    let mut stream = within(client.watch(call("good", ""))).await.unwrap().into_inner();
    assert_eq!(within(stream.message()).await.unwrap().unwrap().status, 1);
    let status = within(stream.message()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "Enough, key_1."));
    assert_eq!(status.get_details_error_info().unwrap().reason, "forbidden");
}

#[tokio::test]
async fn a_plan_is_required_and_a_missing_layer_is_an_internal_error() {
    let mut client = connect(serve!(Server::builder().layer(tollgate(60)))).await;
    let status = within(client.check(call("good", "plan"))).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "This needs an active subscription.")
    );
    let status = within(client.check(call("good", "credits"))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "The service is not set up correctly."));
}

#[tokio::test]
async fn an_interceptor_reads_the_context() {
    let check = |request: Request<()>| match request.principal()?.tenant() {
        Some("acme") => Err(request.refuse(Denial::new(DenialKind::Forbidden).with_detail("Not acme."))),
        _ => Ok(request),
    };
    let (incoming, address) = listen().await;
    let router = Server::builder().layer(tollgate(60)).add_service(InterceptedService::new(service(), check));
    tokio::spawn(router.serve_with_incoming(incoming));
    let status = within(connect(address).await.check(call("good", ""))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "Not acme."));
    assert_eq!(status.get_details_error_info().unwrap().reason, "forbidden");
}

fn denial_of(status: &Status) -> &Denial {
    status.source().unwrap().downcast_ref().unwrap()
}

#[test]
fn without_any_layer_the_log_names_the_one_that_is_missing() {
    let extensions = Extensions::new();
    let missing = [
        (extensions.principal().unwrap_err(), "VerifyLayer"),
        (extensions.optional_principal().unwrap_err(), "VerifyLayer"),
        (extensions.plan().unwrap_err(), "VerifyLayer"),
        (extensions.request_id().unwrap_err(), "RequestIdLayer"),
        (extensions.credits().unwrap_err(), "CreditsLayer"),
        (extensions.messages().unwrap_err(), "MessageLayer"),
    ];
    assert!(extensions.decision().is_none() && extensions.ended().is_none());
    for (status, layer) in missing {
        assert_eq!(
            (status.code(), status.message()),
            (Code::Internal, "The service is not set up correctly.")
        );
        assert!(denial_of(&status).log_detail().contains(layer), "{}", denial_of(&status));
    }
}

/// The extensions of a request that an anonymous caller has sent.
async fn anonymous() -> Extensions {
    let credential = tollgate::CredentialLayer::new().with_anonymous();
    let tollgate = Tollgate::builder().credential(credential).verify(Keys).build().unwrap();
    seen_by_handler(tollgate, http::Request::new(())).await
}

/// The extensions of a request as the handler sees them.
async fn seen_by_handler(tollgate: Tollgate, request: http::Request<()>) -> Extensions {
    let (sender, seen) = std::sync::mpsc::channel();
    let service =
        tower::ServiceBuilder::new().layer(tollgate).service_fn(move |request: http::Request<()>| {
            sender.send(request.into_parts().0.extensions).unwrap();
            std::future::ready(Ok::<_, std::convert::Infallible>(http::Response::new(String::new())))
        });
    tower::ServiceExt::oneshot(service, request).await.unwrap();
    seen.recv().unwrap()
}

#[tokio::test]
async fn an_anonymous_caller_has_no_principal() {
    let extensions = anonymous().await;
    assert!(extensions.optional_principal().unwrap().is_none() && extensions.ended().is_none());
    for status in [extensions.principal().unwrap_err(), extensions.plan().unwrap_err()] {
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(denial_of(&status).kind(), DenialKind::CredentialMissing);
    }
}

fn authenticated() -> Extensions {
    let mut extensions = Extensions::new();
    RequestContext::authenticate(&mut extensions, Principal::new("key_1").into());
    extensions
}

/// A call to a public RPC has neither a caller nor a limit, whatever key it has.
#[tokio::test]
async fn a_public_rpc_has_no_caller() {
    let public = tollgate::verify::PublicRoutes::new().get("/");
    let tollgate =
        Tollgate::builder().verify(Keys).rate_limit(60.per_minute()).public(public).build().unwrap();
    let request = http::Request::builder().header("x-api-key", "good").body(()).unwrap();
    let extensions = seen_by_handler(tollgate, request).await;
    assert!(extensions.decision().is_none() && extensions.ended().is_none());
    assert!(extensions.optional_principal().unwrap().is_none());
    assert_eq!(extensions.principal().unwrap_err().code(), Code::Unauthenticated);
}

#[test]
fn the_context_of_a_call_outlives_its_request() {
    let context = Request::from_parts(MetadataMap::default(), authenticated(), ()).call_context();
    let thread = std::thread::spawn(move || context.clone().principal().unwrap().id().to_owned());
    assert_eq!(thread.join().unwrap(), "key_1");
}

#[tokio::test]
async fn the_context_of_a_call_does_not_keep_the_credential() {
    let tollgate = Tollgate::builder().verify(Keys).rate_limit(60.per_minute()).build().unwrap();
    let request = http::Request::builder().header("x-api-key", "good").body(()).unwrap();
    let extensions = seen_by_handler(tollgate, request).await;
    assert!(RequestContext::of(&extensions).unwrap().credential().is_some());
    let kept = extensions.call_context();
    let context = RequestContext::of(kept.context_extensions()).unwrap();
    assert!(context.credential().is_none());
    assert_eq!(kept.principal().unwrap().id(), "key_1");
    assert_eq!(kept.request_id().unwrap(), extensions.request_id().unwrap());
    assert_eq!(kept.decision(), extensions.decision());
    assert!(kept.decision().is_some());
}

#[tokio::test]
async fn a_handler_waits_for_the_end_of_its_caller() {
    let principal = std::sync::Arc::new(Principal::new("key_1"));
    let mut extensions = Extensions::new();
    RequestContext::authenticate(&mut extensions, std::sync::Arc::clone(&principal));
    let ended = extensions.call_context().ended().unwrap();
    principal.end_signal().end(tollgate::store::EndReason::Revoked);
    assert_eq!(within(ended).await.kind(), DenialKind::KeyRevoked);
}

#[test]
fn a_stack_without_a_responder_for_grpc_still_refuses_with_a_status() {
    let status = authenticated().refuse(DenialKind::CreditsExhausted);
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "The credits are used up."));
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
    assert!(status.details().is_empty());
    assert_eq!(denial_of(&status).kind(), DenialKind::CreditsExhausted);
}

/// A responder of an application may write anything into the headers.
#[test]
fn a_responder_that_writes_nonsense_neither_panics_nor_admits() {
    for (code, details) in [("7", "not base64!"), ("0", ""), ("nonsense", "A")] {
        let mut extensions = authenticated();
        let responder = tollgate::respond::respond_fn(move |_: &Denial, _: &mut http::request::Parts| {
            let response = http::Response::builder().header("grpc-status", code);
            response.header("grpc-status-details-bin", details).body(bytes::Bytes::new()).unwrap()
        });
        RequestContext::set_responder(&mut extensions, std::sync::Arc::new(responder));
        let status = extensions.refuse(DenialKind::Forbidden);
        assert_ne!(status.code(), Code::Ok, "{code}");
        assert!(status.details().is_empty(), "{details}");
    }
}

#[test]
fn the_responder_of_the_stack_answers() {
    let mut extensions = authenticated();
    let details = |_: &Denial| Some(bytes::Bytes::from_static(b"its own"));
    RequestContext::set_responder(&mut extensions, std::sync::Arc::new(Grpc::new().with_details(details)));
    assert_eq!(extensions.refuse(DenialKind::Forbidden).details(), b"its own");
}

/// Where a subscriber writes its events.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_refusal_is_logged_like_those_of_the_layers() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let denial = Denial::new(DenialKind::Forbidden).with_log_detail("not in the pilot");
        authenticated().refuse(denial);
        authenticated().request_id().unwrap_err();
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let [refusal, missing] = log.lines().collect::<Vec<_>>()[..] else { panic!("two events: {log}") };
    for expected in
        ["INFO", "layer=\"handler\"", "reason=\"forbidden\"", "not in the pilot", "principal=\"key_1\""]
    {
        assert!(refusal.contains(expected), "{refusal}");
    }
    for expected in ["ERROR", "layer=\"RequestExt\"", "reason=\"misconfigured\"", "RequestIdLayer"] {
        assert!(missing.contains(expected), "{missing}");
    }
}
