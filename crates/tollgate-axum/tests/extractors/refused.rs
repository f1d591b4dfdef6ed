//! Handlers that refuse, with a layer that knows the request and without one.

use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
    routing::get as on_get,
};
use http::{HeaderMap, StatusCode};
use tollgate::{
    Denial, DenialKind, RequestContext, Tollgate,
    denial::Unavailable,
    respond::{Json, refuse},
};
use tollgate_axum::{Authenticated, RefusalLayer, Refused, Rejection};
use tower::ServiceExt as _;

use crate::{Log, common::verifier};

async fn spend(caller: Authenticated) -> Result<String, Refused> {
    let tenant = caller.tenant().ok_or(DenialKind::Forbidden)?;
    check(tenant)?;
    Ok("spent".to_owned())
}

fn check(tenant: &str) -> Result<(), Denial> {
    match tenant {
        "globex" => Ok(()),
        _ => Err(Denial::new(DenialKind::CreditsExhausted).with_detail("A job costs 10 credits.")),
    }
}

async fn ask_database() -> Result<(), Refused> {
    Err(Unavailable::new("the database does not answer"))?;
    Ok(())
}

async fn reject(caller: Result<Option<Authenticated>, Rejection>) -> Result<(), Refused> {
    caller?;
    Ok(())
}

fn routes() -> Router {
    Router::new()
        .route("/", on_get(spend))
        .route("/database", on_get(ask_database))
        .route("/reject", on_get(reject))
        .route(
            "/later",
            on_get(async || {
                tokio::task::yield_now().await;
                Refused(Denial::new(DenialKind::Forbidden).with_code("later")).into_response()
            }),
        )
}

/// A stack whose responder shows the request's identifier, and a key.
fn stack() -> (Tollgate, String) {
    let (verifier, key) = verifier();
    let json = Json::with_context(|denial, context| {
        let request = context.request_id().map(tollgate::request::RequestId::as_str);
        serde_json::json!({ "error": denial.code(), "request": request })
    });
    (Tollgate::builder().verify(verifier).responder(json).realm("jobs").build().unwrap(), key)
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

async fn send(app: Router, path: &str, key: &str, id: &str) -> Reply {
    let request = http::Request::get(path).header("x-api-key", key).header("x-request-id", id);
    let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 10_000).await.unwrap();
    Reply { status: head.status, headers: head.headers, body: String::from_utf8(body.into()).unwrap() }
}

#[tokio::test]
async fn a_handler_refuses_with_the_responder_of_the_layers_and_is_logged_like_them() {
    let (tollgate, key) = stack();
    for (path, status, code, reason) in [
        ("/", 402, "insufficient_credits", "credits_exhausted"),
        ("/database", 503, "unavailable", "unavailable"),
        ("/later", 403, "later", "forbidden"),
    ] {
        let log = Log::default();
        let _guard = log.capture();
        let app = routes().layer(RefusalLayer::new()).layer(tollgate.clone());
        let reply = send(app, path, &key, "r-1").await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.headers["cache-control"], "private, no-store");
        assert_eq!(reply.body, format!(r#"{{"error":"{code}","request":"r-1"}}"#));

        let log = log.text();
        assert_eq!(log.matches("refused").count(), 1, "{log}");
        for field in
            [&*format!("reason=\"{reason}\""), "layer=\"handler\"", "request_id=r-1", "principal=\"key_1\""]
        {
            assert!(log.contains(field), "{field} is not in {log}");
        }
        assert!(!log.contains(&key), "{log}");
    }
}

#[tokio::test]
async fn without_the_layer_the_default_responder_answers_with_the_right_status() {
    let (tollgate, key) = stack();
    let log = Log::default();
    let _guard = log.capture();
    let reply = send(routes().layer(tollgate), "/", &key, "r-1").await;
    assert_eq!(reply.status, 402);
    assert_eq!(reply.headers["content-type"], "application/problem+json");
    assert_eq!(reply.headers["cache-control"], "private, no-store");
    assert!(reply.body.contains("A job costs 10 credits."), "{}", reply.body);
    assert_eq!(log.text().matches("refused").count(), 1);
}

#[tokio::test]
async fn a_rejection_becomes_a_refusal() {
    let app = routes().layer(RefusalLayer::new().with_name("jobs"));
    let log = Log::default();
    let _guard = log.capture();
    assert_eq!(send(app, "/reject", "any", "r-1").await.status, 500);
    assert!(log.text().contains("layer=\"jobs\""), "{}", log.text());
}

#[tokio::test]
async fn requests_that_run_at_the_same_time_on_one_thread_do_not_mix() {
    let (tollgate, key) = stack();
    let app = routes().layer(RefusalLayer::new()).layer(tollgate);
    let requests = (0..20).map(|number| {
        let (app, key) = (app.clone(), key.clone());
        tokio::spawn(async move {
            let id = format!("r-{number}");
            let reply = send(app, "/later", &key, &id).await;
            assert_eq!(reply.body, format!(r#"{{"error":"later","request":"{id}"}}"#));
        })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap();
    }
}

#[tokio::test]
async fn the_innermost_layer_names_the_refusal_and_the_outer_request_is_restored() {
    async fn around(request: Request, next: Next) -> Response {
        let response = next.run(request).await;
        // After the inner layer: the outer request is the current one again.
        let is_outer = Refused(Denial::new(DenialKind::Forbidden)).into_response();
        assert_eq!(is_outer.status(), StatusCode::FORBIDDEN);
        response
    }
    let log = Log::default();
    let _guard = log.capture();
    let app = routes()
        .layer(RefusalLayer::new().with_name("inner"))
        .layer(from_fn(around))
        .layer(RefusalLayer::new().with_name("outer"));
    assert_eq!(send(app, "/database", "any", "r-1").await.status, 503);
    let log = log.text();
    let (inner, outer) = (log.find("layer=\"inner\""), log.find("layer=\"outer\""));
    assert!(inner.is_some() && outer.is_some() && inner < outer, "{log}");
}

#[tokio::test]
async fn a_middleware_returns_what_refuse_returns() {
    async fn closed(request: Request, _next: Next) -> Response {
        let (mut head, _body) = request.into_parts();
        assert!(RequestContext::of(&head.extensions).is_some());
        refuse("closed", Denial::new(DenialKind::Forbidden), &mut head)
    }
    let (tollgate, key) = stack();
    let reply = send(routes().layer(from_fn(closed)).layer(tollgate), "/", &key, "r-1").await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (403, r#"{"error":"forbidden","request":"r-1"}"#));
}
