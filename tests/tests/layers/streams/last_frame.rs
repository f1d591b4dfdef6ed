//! What the last frame of a stream says: the refusal of the caller's next request.

use http::{HeaderName, header::ACCEPT};
use tollgate::{
    KeyFormat, KeyVerifier, MemoryKeys,
    respond::Respond as _,
    verify::{Branch, Dispatch},
};

use super::*;

const WEB: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

#[tokio::test]
async fn the_last_data_is_written_as_the_open_response_and_says_what_the_next_refusal_says() {
    for answered in [WEB, TEXT] {
        for sent in [WEB, TEXT] {
            for accepted in [None, Some(WEB), Some(TEXT), Some("*/*")] {
                let (signal, backend) = (EndSignal::new(), Backend::answering(answered));
                let service = ending(&signal).build().unwrap().layer(backend.handler.clone());
                let request = |accepted: Option<&'static str>| {
                    let mut request = call(sent);
                    request
                        .headers_mut()
                        .extend(accepted.map(|accepted| (ACCEPT, HeaderValue::from_static(accepted))));
                    request
                };
                let response = service.clone().oneshot(request(accepted)).await.unwrap();
                let mut stream: Stream = Box::pin(response.into_body());
                signal.end(EndReason::Revoked);
                let Next::Data(last) = next(&mut stream) else { unreachable!("no data") };
                let refusal = service.oneshot(request(Some(answered))).await.unwrap();
                assert_eq!(refusal.headers()[CONTENT_TYPE], answered);
                let refusal = refusal.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(last, refusal, "{answered} to {sent}, {accepted:?}");
                assert!(web_status(&last, answered == TEXT).starts_with("grpc-status: 16\r\ngrpc-message: "));
            }
        }
    }
}

#[tokio::test]
async fn a_responder_that_does_not_know_grpc_still_ends_a_stream_with_a_status() {
    // A request that Grpc does not recognize, either: the open response alone says that it is gRPC.
    let unknown = |content_type| {
        let mut request = call(content_type);
        *request.version_mut() = Version::HTTP_11;
        *request.method_mut() = http::Method::GET;
        request
    };
    for knows_grpc in [false, true] {
        for make in [call as fn(&'static str) -> Request<String>, unknown] {
            for answered in ["application/grpc", WEB, TEXT] {
                let (signal, backend) = (EndSignal::new(), Backend::answering(answered));
                let tollgate = ending(&signal);
                let tollgate = if knows_grpc { tollgate } else { tollgate.responder(Problem::new()) };
                let mut stream = open(tollgate, &backend, make("application/grpc")).await;
                signal.end(EndReason::TenantSuspended);
                match next(&mut stream) {
                    Next::Trailers(trailers) if answered == "application/grpc" => {
                        assert_eq!(trailers["grpc-status"], "7");
                        assert!(!trailers.contains_key(CONTENT_TYPE));
                    }
                    Next::Data(data) => {
                        assert!(web_status(&data, answered == TEXT).starts_with("grpc-status: 7\r\n"));
                    }
                    other => unreachable!("{other:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn trailers_keep_the_fields_of_grpc_and_nothing_else() {
    let (signal, backend) = (EndSignal::new(), Backend::answering("application/grpc"));
    let responder = respond_fn(|denial: &Denial, head: &mut request::Parts| {
        assert_eq!(head.version, Version::HTTP_2);
        assert!(tollgate::RequestContext::of(&head.extensions).unwrap().credential().is_none());
        let mut response = Grpc::new().respond(denial, head);
        for name in
            ["x-own", "set-cookie", "www-authenticate", "retry-after", "cache-control", "content-length"]
        {
            response.headers_mut().insert(name, HeaderValue::from_static("1"));
        }
        response
    });
    let mut stream = open(ending(&signal).responder(responder), &backend, call("application/grpc")).await;
    signal.end(EndReason::Revoked);
    let Next::Trailers(trailers) = next(&mut stream) else { unreachable!("no trailers") };
    let mut names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["grpc-message", "grpc-status"]);
}

#[tokio::test]
async fn details_and_the_words_of_the_verifier_are_in_the_trailers() {
    let format = KeyFormat::new("sk").unwrap();
    let keys = MemoryKeys::new();
    let issued = keys.issue(&format, tollgate::Environment::Live, Principal::new("ada")).unwrap();
    let branch =
        Branch::new(KeyVerifier::new(format, keys.clone())).with_refusal_text("no_key", "Ask for a new key");
    let verifier = Dispatch::new().with_prefix("sk_", branch).unwrap();
    let details = |denial: &Denial| Some(Bytes::copy_from_slice(denial.code().as_bytes()));
    let tollgate = Tollgate::builder()
        .verify(verifier)
        .stream_end(StreamEndLayer::new())
        .responder(Grpc::new().with_details(details));
    let backend = Backend::answering("application/grpc");
    let mut request = call("application/grpc");
    request.headers_mut().remove("authorization");
    request.headers_mut().insert("x-api-key", issued.expose_secret().parse().unwrap());
    let mut stream = open(tollgate, &backend, request).await;
    assert!(keys.revoke("ada"));
    let Next::Trailers(trailers) = next(&mut stream) else { unreachable!("no trailers") };
    assert_eq!(trailers["grpc-status"], "16");
    assert_eq!(trailers["grpc-message"], "Ask for a new key");
    assert_eq!(trailers["grpc-status-details-bin"], "bm9fa2V5", "no_key");
}
