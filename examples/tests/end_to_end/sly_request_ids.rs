//! `sly`: any UUID in `X-Request-ID` is echoed.

use http::Method;

use crate::{
    client::Answer,
    scanr::NOW,
    service::Service,
    sly::{BALANCE, Caller, ROTATE, SCAN},
};

#[tokio::test]
async fn echoes_any_uuid_on_every_response() {
    const UUIDS: [&str; 7] = [
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8", // version 1
        "a3bb189e-8bf9-3888-9912-ace4e6543002", // 3
        "9b2c7b1e-1d0a-4a53-8f5e-2d4c8e6a7f01", // 4
        "886313e1-3b8a-5372-9b90-0c9aee199e5d", // 5
        "018f4e2a-7b1c-7d3e-9f00-123456789abc", // 7
        "9B2C7B1E-1D0A-4A53-8F5E-2D4C8E6A7F01",
        "00000000-0000-0000-0000-000000000000",
    ];

    let service = Service::start_with("sly", &["--now", NOW]).await;
    let mut limited = Caller::connect(&service, "test").await;
    for _ in 0..60 {
        assert_eq!(limited.get(BALANCE).await.status, 200);
    }
    for (status, name, method, path) in [
        (200, "live", Method::GET, BALANCE),
        (400, "live", Method::POST, SCAN),
        (401, "revoked", Method::GET, BALANCE),
        (401, "jwt_forged", Method::GET, "/nowhere"),
        (402, "no_credits", Method::POST, SCAN),
        (403, "read_only", Method::POST, SCAN),
        (403, "suspended", Method::GET, BALANCE),
        (403, "jwt", Method::POST, ROTATE),
        (404, "live", Method::GET, "/nowhere"),
        (404, "live", Method::GET, "/v1/scanner/scans/unknown"),
        (405, "live", Method::DELETE, SCAN),
        (429, "test", Method::GET, BALANCE),
    ] {
        let mut caller = Caller::connect(&service, name).await;
        for uuid in UUIDS {
            let answer = caller.send_as(uuid, &method, path).await;
            assert_eq!(answer.status, status, "{name} at {path}: {answer:?}");
            assert_eq!(answer.header("x-request-id"), Some(uuid), "{name} at {path}");
        }
    }
    // Without a credential, too.
    let answer = limited.client.get(BALANCE, &[("x-request-id", UUIDS[0])]).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-request-id")), (401, Some(UUIDS[0])));
    service.end().await;
}

#[tokio::test]
async fn replaces_a_request_id_that_is_no_uuid() {
    let service = Service::start("sly").await;
    for (name, status) in [("live", 200), ("revoked", 401)] {
        let mut caller = Caller::connect(&service, name).await;
        for sent in [
            "",
            "42",
            "my-request",
            "9b2c7b1e1d0a4a538f5e2d4c8e6a7f01",
            "{9b2c7b1e-1d0a-4a53-8f5e-2d4c8e6a7f01}",
            "9b2c7b1e-1d0a-4a53-8f5e-2d4c8e6a7f0g",
        ] {
            let answer = caller.send_as(sent, &Method::GET, BALANCE).await;
            assert_eq!(answer.status, status);
            assert_new_request_id(&answer, sent);
        }
        assert_new_request_id(&caller.get(BALANCE).await, "");
    }
    service.end().await;
}

fn assert_new_request_id(answer: &Answer, sent: &str) {
    let id = answer.header("x-request-id").unwrap();
    assert_ne!(id, sent);
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7, "{id}");
}
