//! `scanr`: its published contract row by row. What each token may do, and how refusals look. `scanr_limits` tests the limits.

use http::Method;
use serde_json::{Map, Value, json};

use crate::{
    client::{Answer, Client},
    service::{Service, output},
};

pub(crate) const STATUS: &str = "/api/v2/misc/market-status";
const SCANS: &str = "/api/v2/scans";
const SETTINGS: &str = "/api/v2/settings";
const TECHNICALS: &str = "/api/v2/technicals/AAPL";
const CLOCK: &str = "/_demo/clock";

/// Shortly before the end of a minute, an hour and a day.
pub(crate) const NOW: &str = "2026-03-01T22:58:30Z";

/// Valid tokens, and the limit per minute that each one is shown.
const VERIFIED: [(&str, u64); 4] = [("basic", 60), ("basic_write", 60), ("pro", 600), ("tiny", 5)];
/// A request, and the status that each valid token gets.
const ROUTES: [(Method, &str, &str, [u16; 4]); 13] = [
    (Method::GET, STATUS, "", [200, 200, 200, 200]),
    (Method::HEAD, STATUS, "", [200, 200, 200, 200]),
    (Method::GET, SCANS, "", [200, 200, 200, 200]),
    (Method::POST, SCANS, r#"{"gap_percent":4}"#, [403, 201, 201, 403]),
    (Method::POST, SCANS, "[]", [403, 400, 400, 403]),
    (Method::DELETE, "/api/v2/scans/unknown", "", [403, 404, 404, 403]),
    (Method::PUT, SETTINGS, r#"{"theme":"dark"}"#, [403, 200, 200, 403]),
    (Method::GET, TECHNICALS, "", [403, 403, 200, 403]),
    (Method::HEAD, TECHNICALS, "", [403, 403, 200, 403]),
    (Method::PATCH, SCANS, "", [405, 405, 405, 405]),
    (Method::GET, SETTINGS, "", [405, 405, 405, 405]),
    (Method::POST, TECHNICALS, "{}", [405, 405, 405, 405]),
    (Method::GET, "/api/v2/nowhere", "", [404, 404, 404, 404]),
];

#[tokio::test]
async fn each_route_answers_each_token_by_its_scope_and_tier() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut client = Client::connect(&service).await;
    for (method, path, body, statuses) in ROUTES {
        // A new service for each route, so that `tiny` never uses up its day.
        advance(&mut client, 86_400).await;
        for ((token, limit), status) in VERIFIED.into_iter().zip(statuses) {
            let case = format!("{token}: {method} {path} {body}");
            let bearer = format!("Bearer {}", service.key(token));
            for header in [("authorization", &*bearer), ("x-api-key", service.key(token))] {
                let answer = client.send_body(method.clone(), path, &[header], body).await;
                assert_eq!(answer.status, status, "{case}: {answer:?}");
                assert_eq!(numbers(&answer).0, limit, "{case}");
                assert_eq!(answer.header("retry-after"), None, "{case}");
                assert_eq!(answer.header("allow").is_some(), status == 405, "{case}");
            }
        }
        let lapsed =
            client.send_body(method.clone(), path, &[("x-api-key", service.key("lapsed"))], body).await;
        assert_eq!(lapsed.status, 403, "{method} {path}");
        assert_eq!(numbers(&lapsed).0, 5, "a lapsed plan gets the smallest quota");
        for token in ["expired", "revoked"] {
            let header = ("x-api-key", service.key(token));
            assert_unauthorized(&client.send_body(method.clone(), path, &[header], body).await, token);
        }
        assert_unauthorized(&client.send_body(method, path, &[], body).await, "no token");
    }
    service.end().await;
}

#[tokio::test]
async fn answers_401_to_anything_but_one_valid_token() {
    let service = Service::start("scanr").await;
    let mut client = Client::connect(&service).await;
    let (basic, pro) = (service.key("basic"), service.key("pro"));
    let (bearer, other_bearer) = (format!("Bearer {basic}"), format!("Bearer {pro}"));
    let joined = format!("{basic}, {basic}");
    let other_scheme = format!("Basic {basic}");
    let test_key = basic.replace("sk_live_", "sk_test_");
    let cases: [(&str, &[(&str, &str)]); 11] = [
        ("missing", &[]),
        ("empty", &[("x-api-key", "")]),
        ("empty, as bearer", &[("authorization", "Bearer ")]),
        ("malformed", &[("x-api-key", "sk_live_your_token_here")]),
        ("malformed, as bearer", &[("authorization", "Bearer sk_live_your_token_here")]),
        ("of another scheme", &[("authorization", &other_scheme)]),
        ("a test key", &[("x-api-key", &test_key)]),
        ("repeated", &[("x-api-key", basic), ("x-api-key", basic)]),
        ("repeated, as bearer", &[("authorization", &bearer), ("authorization", &bearer)]),
        ("joined by a proxy", &[("x-api-key", &joined)]),
        ("conflicting", &[("x-api-key", basic), ("authorization", &other_bearer)]),
    ];
    for (case, headers) in cases {
        assert_unauthorized(&client.get(STATUS, headers).await, case);
        assert_unauthorized(&client.get("/nowhere", headers).await, case);
    }
    let twice_the_same = [("x-api-key", basic), ("authorization", &*bearer)];
    assert_eq!(client.get(STATUS, &twice_the_same).await.status, 200);
    service.end().await;
}

#[tokio::test]
async fn a_refusal_names_the_missing_scope_or_tier() {
    let service = Service::start("scanr").await;
    let mut client = Client::connect(&service).await;
    let challenge = r#"Bearer realm="scanr",error="insufficient_scope",scope="write""#;
    for (token, method, path, code, expected_challenge) in [
        ("basic", Method::POST, SCANS, "insufficient_scope", Some(challenge)),
        ("basic", Method::GET, TECHNICALS, "tier_too_low", None),
        ("lapsed", Method::GET, STATUS, "inactive_entitlement", None),
    ] {
        let answer = client.send(method, path, &[("x-api-key", service.key(token))]).await;
        assert_eq!(answer.status, 403, "{code}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("www-authenticate"), expected_challenge);
        assert_eq!(answer.json()["error"]["code"], code);
        assert!(answer.json()["error"]["message"].is_string());
    }
    service.end().await;
}

#[tokio::test]
async fn a_saved_scan_is_visible_to_its_account_until_it_is_deleted() {
    let service = Service::start("scanr").await;
    let mut client = Client::connect(&service).await;
    let basic = [("x-api-key", service.key("basic"))];
    let basic_write = [("x-api-key", service.key("basic_write"))];
    let pro = [("x-api-key", service.key("pro"))];

    let saved = client.send_body(Method::POST, SCANS, &basic_write, r#"{"gap_percent":4}"#).await;
    assert_eq!(saved.status, 201);
    assert_eq!(saved.json()["scan"], json!({ "gap_percent": 4 }));
    let path = format!("{SCANS}/{}", saved.json()["id"].as_str().unwrap());

    assert_eq!(client.get(SCANS, &basic).await.json(), json!({ "scans": [saved.json()] }));
    assert_eq!(client.get(SCANS, &pro).await.json(), json!({ "scans": [] }));
    assert_eq!(
        client.send(Method::DELETE, &path, &pro).await.status,
        404,
        "the scan belongs to another account"
    );
    assert_eq!(client.send(Method::DELETE, &path, &basic_write).await.status, 204);
    assert_eq!(client.send(Method::DELETE, &path, &basic_write).await.status, 404);
    assert_eq!(client.get(SCANS, &basic).await.json(), json!({ "scans": [] }));
    assert_eq!(client.send(Method::DELETE, "/api/v2/scans/%FF", &basic_write).await.status, 404);
    service.end().await;
}

#[tokio::test]
async fn accepts_only_json_objects() {
    let service = Service::start("scanr").await;
    let mut client = Client::connect(&service).await;
    let key = [("x-api-key", service.key("pro"))];
    for (method, path) in [(Method::POST, SCANS), (Method::PUT, SETTINGS)] {
        for body in ["", "nonsense", "[]", "7", "null", r#""{}""#, r#"{"a":1"#, r#"{"a":1} {}"#] {
            let answer = client.send_body(method.clone(), path, &key, body).await;
            assert_eq!(answer.status, 400, "{body}");
            assert_eq!(answer.json()["error"]["code"], "malformed_body");
            let message = answer.json()["error"]["message"].to_string();
            assert!(message.contains("must be a JSON object"), "{message}");
        }
        let long = json!({ "long": "x".repeat(100_000) }).to_string();
        let answer = client.send_body(method, path, &key, &long).await;
        assert_eq!(answer.status, 413);
        numbers(&answer);
    }
    let settings = client.send_body(Method::PUT, SETTINGS, &key, r#"{"theme":"dark"}"#).await;
    assert_eq!(settings.json(), json!({ "theme": "dark" }));
    service.end().await;
}

#[tokio::test]
async fn head_answers_like_get_without_a_body() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut client = Client::connect(&service).await;
    let key = [("x-api-key", service.key("pro"))];
    for path in [STATUS, SCANS, TECHNICALS] {
        let get = client.get(path, &key).await;
        let head = client.send(Method::HEAD, path, &key).await;
        assert_eq!(head.status, get.status);
        assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
        assert_eq!(head.body, "");
    }
    service.end().await;
}

#[tokio::test]
async fn moves_a_stopped_clock_by_whole_seconds() {
    let service = Service::start_with("scanr", &["--now", "2026-03-02T15:29:59.5+01:00"]).await;
    let mut client = Client::connect(&service).await;
    let key = [("x-api-key", service.key("basic"))];
    let status = async |client: &mut Client| client.get(STATUS, &key).await.json();

    let before = json!({ "market": "US", "status": "closed", "now": "2026-03-02T14:29:59.5Z" });
    assert_eq!(status(&mut client).await, before);
    assert_eq!(advance(&mut client, 1).await, "2026-03-02T14:30:00.5Z");
    assert_eq!(status(&mut client).await["status"], "open");
    assert_eq!(advance(&mut client, 0).await, "2026-03-02T14:30:00.5Z");
    assert_eq!(advance(&mut client, -1).await, "2026-03-02T14:29:59.5Z");
    assert_eq!(status(&mut client).await, before);

    for (body, hint) in [
        ("", "JSON object"),
        ("[60]", "JSON object"),
        ("60", "JSON object"),
        ("{}", "advance_s"),
        (r#"{"advance_s":"60"}"#, "advance_s"),
        (r#"{"advance_s":1.5}"#, "advance_s"),
        (r#"{"advance_s":9223372036854775808}"#, "advance_s"),
        (r#"{"advance_s":9223372036854775807}"#, "1970 to 9999"),
        (r#"{"advance_s":-9223372036854775808}"#, "1970 to 9999"),
        (r#"{"advance_s":-1772461800}"#, "1970 to 9999"),
    ] {
        let answer = client.send_body(Method::POST, CLOCK, &[], body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains(hint), "{answer:?}");
    }
    assert_eq!(status(&mut client).await, before, "the clock is unchanged");
    assert_eq!(advance(&mut client, -1_772_461_799).await, "1970-01-01T00:00:00.5Z");
    assert_eq!(client.get(CLOCK, &[]).await.status, 405);
    service.end().await;
}

#[tokio::test]
async fn a_token_expires_by_the_service_clock() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut client = Client::connect(&service).await;
    let key = [("x-api-key", service.key("expired"))];
    for (step, status) in [(0, 401), (-30 * 86_400, 401), (-1, 200), (1, 401)] {
        advance(&mut client, step).await;
        assert_eq!(client.get(STATUS, &key).await.status, status, "after a step of {step} s");
    }
    service.end().await;
}

#[tokio::test]
async fn refuses_to_move_the_system_clock() {
    let service = Service::start("scanr").await;
    let mut client = Client::connect(&service).await;
    for body in [r#"{"advance_s":60}"#, "nonsense", ""] {
        let answer = client.send_body(Method::POST, CLOCK, &[], body).await;
        assert_eq!(answer.status, 409);
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains("--now"), "{answer:?}");
    }
    service.end().await;
}

#[tokio::test]
async fn exits_with_a_message_on_an_invalid_instant() {
    for now in ["", "tomorrow", "2026-03-01", "2026-02-30T00:00:00Z", "1969-12-31T23:59:59Z"] {
        let output = output("scanr", &["--now", now]).await;
        assert_eq!(output.status.code(), Some(2), "{now}");
        assert!(output.stdout.is_empty(), "{now}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("--now") && message.contains("2026-03-01T22:58:30Z"), "{message}");
    }
}

#[tokio::test]
async fn help_lists_the_arguments() {
    let output = output("scanr", &["--help"]).await;
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("--listen") && help.contains("--now"), "{help}");
}

/// Moves the service's clock. Returns its new time.
pub(crate) async fn advance(client: &mut Client, seconds: i64) -> String {
    let body = json!({ "advance_s": seconds }).to_string();
    let answer = client.send_body(Method::POST, CLOCK, &[], &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let moved = answer.json();
    assert_eq!(moved.as_object().map(Map::len), Some(1), "{moved}");
    moved["now"].as_str().unwrap().to_owned()
}

/// Limit, remaining and reset: each response to a verified token has each of them once.
pub(crate) fn numbers(answer: &Answer) -> (u64, u64, u64) {
    let [limit, remaining, reset] = ["limit", "remaining", "reset"].map(|name| {
        let values: Vec<_> = answer.headers.get_all(format!("x-ratelimit-{name}")).iter().collect();
        assert_eq!(values.len(), 1, "{name}: {answer:?}");
        values[0].to_str().unwrap().parse().unwrap()
    });
    (limit, remaining, reset)
}

fn assert_unauthorized(answer: &Answer, case: &str) {
    assert_eq!(answer.status, 401, "{case}: {answer:?}");
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.starts_with(r#"Bearer realm="scanr""#), "{case}: {challenge}");
    let names = answer.headers.keys().map(http::HeaderName::as_str);
    assert!(
        !names.into_iter().any(|name| name.contains("ratelimit")),
        "no rate-limit headers without a valid token: {answer:?}"
    );
    if !answer.body.is_empty() {
        assert_ne!(answer.json()["error"]["code"], Value::Null, "{case}");
    }
}
