//! The request ID: on every response, in the request, and in the log.

use http::{HeaderValue, Request, Response, StatusCode};
use tests::suite::{Case, Inner, Log, World, erase, get, send, with_key};
use tollgate::{CredentialLayer, DenialKind, RequestContext, RequestIdLayer, Tollgate};
use tower::{Layer as _, ServiceBuilder, service_fn};

use crate::refusals::Refuse;

#[tokio::test]
async fn keeps_a_well_formed_id_and_replaces_any_other() {
    let long = "x".repeat(129);
    for (sent, is_kept) in [
        (vec!["abc-123_X.y"], true),
        (vec![&long[..128]], true),
        (vec![&long], false),
        (vec![""], false),
        (vec!["two words"], false),
        (vec!["a,b"], false),
        (vec!["<script>"], false),
        (vec!["%0d%0aset-cookie:x"], false),
        (vec!["one", "two"], false),
        (vec!["same", "same"], false),
        (vec![], false),
    ] {
        let headers: Vec<_> = sent.iter().map(|value| ("x-request-id", *value)).collect();
        let inner = Inner::new();
        let reply = send(&mut erase(RequestIdLayer::new().layer(inner.clone())), get("/", &headers)).await;
        let id = reply.header("x-request-id");
        assert_eq!(id == sent.join(" | "), is_kept, "{sent:?} became {id}");
        assert!(is_kept || is_uuid_7(&id), "{sent:?} became {id}");

        let inside = inner.take_last();
        let context = RequestContext::of(inside.extensions()).unwrap();
        assert_eq!(context.request_id().map(ToString::to_string), Some(id));
        assert_eq!(inside.headers().contains_key("x-request-id"), is_kept, "a malformed ID is not logged");
    }
}

#[tokio::test]
async fn replaces_an_id_that_is_not_text() {
    let mut request = get("/", &[]);
    request.headers_mut().insert("x-request-id", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    let reply = send(&mut erase(RequestIdLayer::new().layer(Inner::new())), request).await;
    assert!(is_uuid_7(&reply.header("x-request-id")));
}

#[tokio::test]
async fn propagates_the_id_in_another_header() {
    let layer = RequestIdLayer::new()
        .with_header("x-correlation-id".parse().unwrap())
        .with_uuids_only()
        .with_propagation();
    let uuid = "0192a3b4-c5d6-4e8f-9012-3456789abcde";
    for (sent, is_kept) in [(uuid, true), ("abc", false)] {
        let inner = Inner::new();
        let request = get("/", &[("x-correlation-id", sent), ("x-request-id", "other")]);
        let reply = send(&mut erase(layer.layer(inner.clone())), request).await;
        let id = reply.header("x-correlation-id");
        assert_eq!(id == sent, is_kept);
        let inside = inner.take_last();
        assert_eq!(inside.headers()["x-correlation-id"], id);
        assert_eq!(
            (reply.header("x-request-id"), &inside.headers()["x-request-id"]),
            (String::new(), &HeaderValue::from_static("other"))
        );
    }
}

#[tokio::test]
async fn every_refusal_has_the_id() {
    for case in
        [Case::CREDENTIAL, Case::VERIFY, Case::RATE_LIMIT, Case::ENTITLEMENT, Case::SCOPE, Case::TOLLGATE]
    {
        let mut request = (case.refusal.unwrap().request)();
        request.headers_mut().insert("x-request-id", HeaderValue::from_static("mine"));
        let reply = send(&mut case.build(&World::new(), &Inner::new(), 1), request).await;
        assert_eq!(reply.header("x-request-id"), "mine");
        assert_eq!(reply.json()["request_id"], "mine");
    }
}

#[tokio::test]
async fn the_id_replaces_the_header_of_a_handler() {
    let inner = Inner::answering(|_| {
        let builder = Response::builder().status(StatusCode::NOT_FOUND).header("x-request-id", "upstream's");
        Ok(builder.body(String::new()).unwrap())
    });
    let reply =
        send(&mut erase(RequestIdLayer::new().layer(inner)), get("/", &[("x-request-id", "mine")])).await;
    assert_eq!((reply.status(), &*reply.header("x-request-id")), (StatusCode::NOT_FOUND, "mine"));
}

#[tokio::test]
async fn inner_logs_are_in_a_span_with_the_id() {
    let handle = async |_: Request<String>| {
        tracing::info!("before");
        tokio::task::yield_now().await;
        tracing::info!("after");
        Ok(Response::new(String::new()))
    };
    let called = move |request: Request<String>| {
        tracing::info!("called");
        handle(request)
    };
    let log = Log::start();
    let mut stack = erase(RequestIdLayer::new().layer(service_fn(called)));
    send(&mut stack, get("/", &[("x-request-id", "mine")])).await;
    tracing::info!("outside");

    for message in ["called", "before", "after"] {
        let entries = log.entries();
        let entry = entries.iter().find(|entry| entry.field("message") == Some(message)).unwrap();
        let spans: Vec<_> =
            entry.spans.iter().map(|span| (&*span.target, &*span.name, span.field("request_id"))).collect();
        assert_eq!(spans, [("tollgate", "request", Some("mine"))], "{message}");
    }
    let entries = log.entries();
    let outside = entries.iter().find(|entry| entry.field("message") == Some("outside")).unwrap();
    assert!(outside.spans.is_empty());
}

#[tokio::test]
async fn a_request_has_one_id_in_nested_stacks() {
    // The built stack creates IDs, and an application can have an outer layer that does, too.
    let tollgate = Tollgate::builder().verify(Refuse(DenialKind::KeyUnknown.into())).build().unwrap();
    let nested = ServiceBuilder::new().layer(RequestIdLayer::new()).layer(tollgate).service(Inner::new());
    let log = Log::start();
    for sent in [None, Some("mine"), Some("<script>")] {
        let mut request = with_key("tok");
        if let Some(sent) = sent {
            request.headers_mut().insert("x-request-id", HeaderValue::from_static(sent));
        }
        let reply = send(&mut erase(nested.clone()), request).await;
        let id = reply.header("x-request-id");
        assert_eq!(reply.json()["request_id"], *id, "the body has the ID of the header");
        assert_eq!(
            log.refusals().last().and_then(|entry| entry.field("request_id").map(str::to_owned)),
            Some(id)
        );
    }
}

#[tokio::test]
async fn there_is_no_id_without_the_layer() {
    let reply =
        send(&mut erase(CredentialLayer::new().layer(Inner::new())), get("/", &[("x-request-id", "mine")]))
            .await;
    assert_eq!(reply.header("x-request-id"), "");
    assert_eq!(reply.json().get("request_id"), None);
}

fn is_uuid_7(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
    lengths == [8, 4, 4, 4, 12]
        && parts.get(2).is_some_and(|version| version.starts_with('7'))
        && text.chars().all(|c| matches!(c, '-' | '0'..='9' | 'a'..='f'))
}
