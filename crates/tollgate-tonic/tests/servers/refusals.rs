//! What a client of tonic sees of a refusal, and of a response.

use std::time::Duration;

use tonic::{Code, transport::Server};
use tonic_types::StatusExt as _;

use super::{DOMAIN, call, connect, serve, tollgate, within};

#[tokio::test]
async fn a_client_sees_status_message_details_and_metadata() {
    let mut client = connect(serve!(Server::builder().layer(tollgate(2)))).await;
    for (key, code, message, reason) in [
        ("", Code::Unauthenticated, "This request needs a credential.", "missing_credential"),
        ("invented", Code::Unauthenticated, "The credential is not valid.", "invalid_credential"),
        ("slow", Code::Unauthenticated, "The credential is not valid.", "invalid_credential"),
        ("scopeless", Code::PermissionDenied, "The credential lacks a required scope.", "insufficient_scope"),
    ] {
        let mut request = call(key, "");
        request.metadata_mut().insert("x-request-id", "mine".parse().unwrap());
        let status = within(client.check(request)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, DOMAIN));
        assert_eq!(status.metadata().get("x-request-id").unwrap(), "mine");
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms"), None);

        let status = within(client.watch(call(key, ""))).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message), "a stream");
        assert_eq!(status.get_details_error_info().unwrap().reason, reason);
    }

    for remaining in ["1", "0"] {
        let response = within(client.check(call("good", ""))).await.unwrap();
        assert_eq!(response.metadata().get("x-ratelimit-remaining").unwrap(), remaining);
        assert!(response.metadata().get("x-request-id").is_some());
    }

    let status = within(client.check(call("good", ""))).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::ResourceExhausted, "The limit is used up. Retry later.")
    );
    assert_eq!(status.metadata().get("x-ratelimit-remaining").unwrap(), "0");
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "10000");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["limit"], "2");
    assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(10)));
    assert_eq!(details.quota_failure().unwrap().violations[0].description, "2 per minute");
}
