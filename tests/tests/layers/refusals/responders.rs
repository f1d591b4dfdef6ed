//! The exact output of each responder.

use std::sync::Arc;

use http::{HeaderValue, Request, StatusCode};
use serde_json::json;
use tests::suite::{Inner, Log, Reply, erase, get, send, with_key};
use tollgate::{
    CredentialLayer, Denial, DenialKind, RequestIdLayer,
    respond::{ByRequest, Grpc, Json, Problem, Respond, is_grpc},
};
use tower::{Layer as _, ServiceBuilder};

use super::{every_denial, refusing};

async fn reply(denial: Denial, responder: impl Respond) -> Reply {
    send(&mut refusing(denial, Some(Arc::new(responder))), with_key("tok")).await
}

fn grpc() -> Request<String> {
    let headers = [("content-type", "application/grpc"), ("authorization", "Bearer tok")];
    let mut request = get("/jobs.Jobs/List", &headers);
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    request
}

#[tokio::test]
async fn a_problem_has_the_members_of_rfc_9457() {
    let reply = reply(Denial::new(DenialKind::TierTooLow), Problem::new()).await;
    assert_eq!(reply.status(), StatusCode::FORBIDDEN);
    assert_eq!(reply.header("content-type"), "application/problem+json");
    assert_eq!(
        reply.body(),
        r#"{"code":"tier_too_low","detail":"The subscription does not include this.","status":403,"title":"Forbidden","type":"about:blank"}"#
    );
}

#[tokio::test]
async fn every_problem_has_all_members() {
    for denial in every_denial() {
        let expected = denial.clone();
        let problem = reply(denial.clone(), Problem::new()).await.json();
        assert_eq!(problem["status"], expected.status().as_u16());
        assert_eq!(problem["title"], expected.status().canonical_reason().unwrap());
        assert_eq!(
            (&problem["code"], &problem["detail"]),
            (&json!(expected.code()), &json!(expected.detail()))
        );
        let expected_type = match expected.kind() {
            DenialKind::RateLimited => "https://iana.org/assignments/http-problem-types#quota-exceeded",
            _ => "about:blank",
        };
        assert_eq!(problem["type"], expected_type);

        let based =
            reply(denial, Problem::new().with_type_base("https://docs.example.com/errors/")).await.json();
        assert_eq!(based["type"], format!("https://docs.example.com/errors/{}", expected.code()));
    }
}

#[tokio::test]
async fn a_problem_has_the_request_id() {
    let layers = ServiceBuilder::new().layer(RequestIdLayer::new()).layer(CredentialLayer::new());
    let reply = send(&mut erase(layers.service(Inner::new())), get("/", &[("x-request-id", "abc-1")])).await;
    assert_eq!(
        reply.body(),
        r#"{"code":"missing_credential","detail":"This request needs a credential.","request_id":"abc-1","status":401,"title":"Unauthorized","type":"about:blank"}"#
    );
}

#[tokio::test]
async fn a_problem_uses_the_status_code_and_detail_of_the_denial() {
    let denial = Denial::new(DenialKind::Forbidden)
        .with_status(StatusCode::IM_A_TEAPOT)
        .with_code("pilot_only")
        .with_detail("Ask us to \"join\".");
    let reply = reply(denial, Problem::new()).await;
    assert_eq!(reply.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(reply.json()["code"], "pilot_only");
    assert_eq!(reply.json()["detail"], "Ask us to \"join\".");
}

#[tokio::test]
async fn a_problem_under_a_status_without_a_name_has_no_title() {
    let denial = Denial::new(DenialKind::Forbidden).with_status(StatusCode::from_u16(499).unwrap());
    let problem = reply(denial, Problem::new()).await.json();
    // RFC 9457 section 3.1: a title is a string; a member of another type must be ignored.
    assert_eq!(problem.get("title"), None, "{problem}");
    assert_eq!(problem["status"], 499);
}

#[tokio::test]
async fn json_is_the_body_that_the_application_returns() {
    let shape =
        |denial: &Denial| json!({ "error": { "code": denial.code(), "kind": denial.kind().reason() } });
    for denial in every_denial() {
        let expected = denial.clone();
        let reply = reply(denial, Json::new(shape)).await;
        assert_eq!(reply.status(), expected.status());
        assert_eq!(reply.header("content-type"), "application/json");
        assert_eq!(reply.json(), shape(&expected));
    }
}

#[tokio::test]
async fn grpc_answers_with_trailers_only() {
    for denial in every_denial() {
        let expected = denial.clone();
        let mut stack = refusing(denial, Some(Arc::new(Grpc::new())));
        let reply = send(&mut stack, grpc()).await;
        let kind = expected.kind();
        assert_eq!(reply.status(), StatusCode::OK, "{kind:?}");
        assert_eq!(reply.header("content-type"), "application/grpc");
        assert_eq!(reply.header("grpc-status"), expected.grpc_code().to_string());
        assert_eq!(reply.header("grpc-message"), expected.detail());
        assert_eq!(reply.body(), "");
        for http_only in ["www-authenticate", "retry-after"] {
            assert_eq!(reply.header(http_only), "", "{kind:?}: {http_only} has no meaning here");
        }
        assert_eq!(reply.kind(), Some(kind), "the response carries the denial");
    }
}

#[tokio::test]
async fn only_the_grpc_message_is_percent_encoded() {
    for (detail, encoded) in [
        ("plain ~!\"#$&'()", "plain ~!\"#$&'()"),
        ("100 %", "100 %25"),
        ("caf\u{e9}", "caf%C3%A9"),
        ("two\r\nlines\u{7f}", "two%0D%0Alines%7F"),
        ("", ""),
    ] {
        let denial = Denial::new(DenialKind::Forbidden).with_detail(detail);
        let reply = send(&mut refusing(denial, Some(Arc::new(Grpc::new()))), grpc()).await;
        assert_eq!(reply.header("grpc-message"), encoded);
        assert!(reply.headers().values().all(|value| value.as_bytes().is_ascii()));
    }
}

#[tokio::test]
async fn only_grpc_requests_get_a_grpc_status_and_only_from_the_grpc_responder() {
    let word = || Json::new(|_| json!("otherwise"));
    for (content_type, by_grpc) in [
        ("application/grpc", Some("application/grpc")),
        ("application/grpc+proto", Some("application/grpc")),
        ("application/grpc; charset=utf-8", Some("application/grpc")),
        ("application/grpc-web", Some("application/grpc-web+proto")),
        ("application/grpcx", None),
        ("application/json", None),
        ("", None),
    ] {
        let responders: [(Option<Arc<dyn Respond>>, _, _); 4] = [
            (None, None, "application/problem+json"),
            (Some(Arc::new(Problem::new())), None, "application/problem+json"),
            (Some(Arc::new(Grpc::new())), by_grpc, "application/problem+json"),
            (Some(Arc::new(Grpc::otherwise(word()))), by_grpc, "application/json"),
        ];
        for (responder, by_grpc, otherwise) in responders {
            let mut request = grpc();
            request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
            let reply = send(&mut refusing(Denial::new(DenialKind::KeyUnknown), responder), request).await;
            let expected = by_grpc.map_or((401, otherwise), |content_type| (200, content_type));
            assert_eq!((reply.status().as_u16(), &*reply.header("content-type")), expected, "{content_type}");
            // gRPC-Web has its status in the body.
            let status = if by_grpc == Some("application/grpc") { "16" } else { "" };
            assert_eq!(reply.header("grpc-status"), status, "{content_type}");
        }
    }
}

/// The log had the status of the denial, also where the responder sent another one.
#[tokio::test]
async fn the_log_has_the_status_that_was_sent_and_the_method_and_path_without_the_query() {
    let json = Json::new(|_| json!({})).with_status(|_| StatusCode::UNAUTHORIZED);
    let responders: [(Arc<dyn Respond>, &str); 3] =
        [(Arc::new(Problem::new()), "400"), (Arc::new(json), "401"), (Arc::new(Grpc::new()), "200")];
    for (responder, status) in responders {
        let mut stack = refusing(Denial::new(DenialKind::CredentialRepeated), Some(responder));
        let mut request = grpc();
        *request.uri_mut() = "/jobs.Jobs/List?token=s3cr3t".parse().unwrap();
        let log = Log::start();
        let reply = send(&mut stack, request).await;
        let refusal = log.refusals().remove(0);
        assert_eq!((reply.status().as_str(), refusal.field("status")), (status, Some(status)));
        assert_eq!((refusal.field("method"), refusal.field("path")), (Some("POST"), Some("/jobs.Jobs/List")));
        assert!(!format!("{refusal:?}").contains("s3cr3t"), "{refusal:?}");
    }
}

#[tokio::test]
async fn by_request_uses_the_first_matching_responder() {
    let word = |word: &'static str| Json::new(move |_| json!(word));
    let responder = || {
        ByRequest::otherwise(word("otherwise"))
            .when(is_grpc, Grpc::new())
            .when(|request| request.uri.path().starts_with("/v1"), word("first"))
            .when(|request| request.uri.path().starts_with("/v1/jobs"), word("never"))
            .when(|request| request.uri.path().starts_with("/v2"), word("second"))
    };
    for (path, expected) in [("/v1/jobs", "\"first\""), ("/v2", "\"second\""), ("/v3", "\"otherwise\"")] {
        let mut stack = refusing(Denial::new(DenialKind::KeyUnknown), Some(Arc::new(responder())));
        assert_eq!(send(&mut stack, get(path, &[("x-api-key", "tok")])).await.body(), expected);
    }
    let mut stack = refusing(Denial::new(DenialKind::KeyUnknown), Some(Arc::new(responder())));
    assert_eq!(send(&mut stack, grpc()).await.header("grpc-status"), "16");
}

#[tokio::test]
async fn inner_layers_inherit_a_responder_until_one_sets_its_own() {
    let word = |word: &'static str| Json::new(move |_| json!(word));
    let outer = RequestIdLayer::new().with_responder(word("outer"));
    let inherits = (outer.clone(), CredentialLayer::new()).layer(Inner::new());
    assert_eq!(send(&mut erase(inherits), get("/", &[])).await.body(), "\"outer\"");
    let overrides = (outer, CredentialLayer::new().with_responder(word("inner"))).layer(Inner::new());
    assert_eq!(send(&mut erase(overrides), get("/", &[])).await.body(), "\"inner\"");
}
