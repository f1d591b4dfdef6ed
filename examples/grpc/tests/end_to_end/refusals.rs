//! What a client with grpcio sees of each refusal: status, message, details and metadata, on a unary RPC and on each kind of stream.

use serde_json::{Value, json};
use tollgate::{Environment, KeyFormat};

use crate::{
    CHAT, EVERY_KIND, GET_PRICE, UPLOAD_CANDLES, WATCH_PRICES,
    python::{Client, End},
    service::Service,
};

const MISSING: (&str, &str) = ("UNAUTHENTICATED", "This request needs a credential.");
const INVALID: (&str, &str) = ("UNAUTHENTICATED", "The credential is not valid.");
const EXHAUSTED: (&str, &str) = ("RESOURCE_EXHAUSTED", "The limit is used up. Retry later.");

/// The `ErrorInfo` of a refusal without metadata of its own.
fn error_info(reason: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "market.example.com",
    })
}

#[tokio::test]
async fn a_call_without_a_valid_key_is_unauthenticated() {
    let service = Service::start().await;
    let mut client = Client::start(service.address());
    let unknown = KeyFormat::new("demo").unwrap().generate(Environment::Live).unwrap();
    let (full, revoked) = (service.key("full"), service.key("revoked"));
    let other = format!("Bearer {revoked}");
    for rpc in EVERY_KIND {
        for (metadata, status, reason) in [
            (&[][..], MISSING, "missing_credential"),
            (&[("x-api-key", "")], MISSING, "missing_credential"),
            (&[("x-api-key", "not a key")], INVALID, "invalid_credential"),
            (&[("authorization", "Basic dXNlcjpwYXNzd29yZA==")], INVALID, "invalid_credential"),
            (&[("x-api-key", unknown.expose_secret())], INVALID, "invalid_credential"),
            (&[("x-api-key", revoked)], INVALID, "invalid_credential"),
            (
                &[("x-api-key", full), ("authorization", &other)],
                ("UNAUTHENTICATED", "Send one credential, once."),
                "invalid_request",
            ),
        ] {
            let end = client.call(rpc, metadata).await;
            assert_eq!(end.status(), status, "{rpc} {metadata:?}");
            assert_eq!(end.details(), ["ErrorInfo"], "{rpc} {metadata:?}");
            assert_eq!(*end.detail("ErrorInfo"), error_info(reason));
            assert_has_no_limits_and_no_retry(&end);
        }
    }
    service.end().await;
}

#[tokio::test]
async fn a_lapsed_subscription_is_a_failed_precondition() {
    let service = Service::start().await;
    let mut client = Client::start(service.address());
    for rpc in EVERY_KIND {
        let end = client.call(rpc, &[("x-api-key", service.key("lapsed"))]).await;
        assert_eq!(end.status(), ("PERMISSION_DENIED", "This needs an active subscription."), "{rpc}");
        assert_eq!(end.details(), ["ErrorInfo", "PreconditionFailure"]);
        assert_eq!(*end.detail("ErrorInfo"), error_info("inactive_entitlement"));
        assert_eq!(
            end.detail("PreconditionFailure")["violations"],
            json!([{
                "type": "subscription",
                "subject": "active",
                "description": "This needs an active subscription.",
            }])
        );
        assert_eq!(end.trailing("x-ratelimit-limit"), Some("10000"), "the caller is known");
    }
    service.end().await;
}

#[tokio::test]
async fn a_missing_scope_is_named() {
    let service = Service::start().await;
    let mut client = Client::start(service.address());
    for (rpc, key, scope) in [
        (GET_PRICE, "admin", "prices:read"),
        (WATCH_PRICES, "admin", "prices:read"),
        (UPLOAD_CANDLES, "prices_only", "candles:write"),
        (CHAT, "prices_only", "alerts:read"),
    ] {
        let end = client.call(rpc, &[("x-api-key", service.key(key))]).await;
        assert_eq!(end.status(), ("PERMISSION_DENIED", "The credential lacks a required scope."), "{rpc}");
        assert_eq!(end.details(), ["ErrorInfo"]);
        let mut expected = error_info("insufficient_scope");
        expected["metadata"] = json!({ "scope": scope });
        assert_eq!(*end.detail("ErrorInfo"), expected);
        assert_eq!(end.trailing("x-ratelimit-limit"), Some("10000"), "the caller is known");
    }
    service.end().await;
}

#[tokio::test]
async fn a_used_up_limit_says_how_long_to_wait() {
    let service = Service::start().await;
    let mut client = Client::start(service.address());
    for rpc in EVERY_KIND {
        let end = exhausted(&mut client, rpc, service.key("tiny")).await;
        assert_used_up(&end);
        assert_eq!(end.trailing("x-ratelimit-limit"), Some("5"));
        assert_eq!(end.trailing("x-ratelimit-remaining"), Some("0"));
        let shown = &end.detail("ErrorInfo")["metadata"];
        assert_eq!(shown["reset"].as_str(), end.trailing("x-ratelimit-reset"));
        let pushback = end.trailing("grpc-retry-pushback-ms").unwrap();
        assert_eq!(
            format!("{}s", pushback.strip_suffix("000").unwrap()),
            end.detail("RetryInfo")["retryDelay"]
        );
        assert!(end.trailing("x-request-id").is_some());
    }
    service.end().await;
}

#[tokio::test]
async fn an_rpc_that_does_not_exist_is_unimplemented_for_those_who_have_a_key() {
    let service = Service::start().await;
    let mut client = Client::start(service.address());
    for rpc in ["tollgate.demo.v1.Market/Nothing", "tollgate.demo.v1.Nothing/GetPrice", "Nothing/Nothing"] {
        let end = client.call(rpc, &[("x-api-key", service.key("full"))]).await;
        assert_eq!(end.status(), ("UNIMPLEMENTED", "This path does not exist."), "{rpc}");
        assert_eq!(*end.detail("ErrorInfo"), error_info("not_found"));
        assert_eq!(client.call(rpc, &[]).await.status(), MISSING, "a stranger does not learn it");
    }
    service.end().await;
}

#[tokio::test]
async fn each_message_of_a_chat_is_charged() {
    let service = Service::start().await;
    let mut client = Client::start(service.address());
    let chat = client.open(CHAT, &[("x-api-key", service.key("tiny"))], json!({})).await;
    // More than two minutes admit.
    for _ in 0..10 {
        client.send(chat, json!({ "symbol": "MSFT" })).await;
    }
    let end = client.end(chat).await;
    assert_used_up(&end);
    // The call takes one of 5, and each message another one. If a new minute begins in between, it has 5 again.
    let is_one_minute =
        end.initial_metadata()["x-ratelimit-reset"] == end.detail("ErrorInfo")["metadata"]["reset"];
    let expected = if is_one_minute { 4..=4 } else { 5..=9 };
    assert!(expected.contains(&end.messages().len()), "{end:?}");
    assert!(end.messages().iter().all(|message| message["alert"] == "MSFT is below its high."));
    assert_eq!(end.initial_metadata()["x-ratelimit-limit"], "5");
    service.end().await;
}

/// Calls until the limit is used up. It can take several calls, also if a new minute has begun.
async fn exhausted(client: &mut Client, rpc: &str, key: &str) -> End {
    for _ in 0..11 {
        let call = client.open(rpc, &[("x-api-key", key)], json!({})).await;
        client.half_close(call).await;
        let is_open = rpc == WATCH_PRICES && client.receive(call).await.is_some();
        if is_open {
            client.cancel(call).await;
        }
        let end = client.end(call).await;
        if !is_open && end.code() != "OK" {
            return end;
        }
    }
    panic!("{rpc} is never refused");
}

fn assert_used_up(end: &End) {
    assert_eq!(end.status(), EXHAUSTED);
    assert_eq!(end.details(), ["ErrorInfo", "QuotaFailure", "RetryInfo"]);
    let info = end.detail("ErrorInfo");
    assert_eq!((&info["reason"], &info["domain"]), (&json!("rate_limited"), &json!("market.example.com")));
    let shown = &info["metadata"];
    assert_eq!((&shown["limit"], &shown["remaining"]), (&json!("5"), &json!("0")));
    let wait = end.detail("RetryInfo")["retryDelay"].as_str().unwrap().strip_suffix('s').unwrap();
    assert!((1..=60).contains(&wait.parse::<u64>().unwrap()), "{wait}");
    let violation = &end.detail("QuotaFailure")["violations"][0];
    assert_eq!(violation["subject"], "default", "the policy: {violation}");
    assert_eq!(violation["quotaValue"], "5", "{violation}");
}

/// A stranger sees no numbers, and no reason to call again.
fn assert_has_no_limits_and_no_retry(end: &End) {
    assert!(end.trailing("x-request-id").is_some());
    assert_eq!(end.trailing("x-ratelimit-limit"), None);
    assert_eq!(end.trailing("grpc-retry-pushback-ms"), None);
}
