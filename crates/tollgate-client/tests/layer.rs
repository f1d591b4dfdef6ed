//! The key and the request ID, and where they go. No sockets.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use tollgate_client::{Client, ClientKey, ClientLayer, ConfigurationError, NoRetries, Origin, Retries};
use tollgate_core::{
    clock::ManualClock,
    key::{Environment, KeyFormat},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;

const KEY: &str = "sk_live_a1B2c3D4e5F6";
const ORIGIN: &str = "https://api.example.com";
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

fn layer() -> ClientLayer {
    ClientLayer::new(KEY, ORIGIN).unwrap()
}

/// The request that the inner service gets.
async fn sent(layer: ClientLayer, request: Request<()>) -> Request<()> {
    let echo = tower::service_fn(|request: Request<()>| ready(Ok::<_, Infallible>(request)));
    layer.layer(echo).oneshot(request).await.unwrap()
}

fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

#[tokio::test]
async fn adds_the_key_and_a_request_id() {
    let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_millis(0x0192_3456_789a));
    let sent = sent(layer().with_clock(clock), get("https://api.example.com/jobs?full")).await;
    assert_eq!(sent.headers()[AUTHORIZATION], format!("Bearer {KEY}"));
    assert!(sent.headers()[AUTHORIZATION].is_sensitive());
    let id = sent.headers()["x-request-id"].to_str().unwrap();
    assert!(id.starts_with("01923456-789a-7"), "{id}");
    assert_eq!(sent.headers().len(), 2);
    assert_eq!(sent.uri(), "https://api.example.com/jobs?full");
}

#[tokio::test]
async fn each_request_has_an_id_of_its_own() {
    let ids = [sent(layer(), get(ORIGIN)).await, sent(layer(), get(ORIGIN)).await];
    assert_ne!(ids[0].headers()["x-request-id"], ids[1].headers()["x-request-id"]);
}

#[tokio::test]
async fn keeps_what_the_request_has() {
    let mut request = get(ORIGIN);
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer other"));
    request.headers_mut().insert("x-request-id", HeaderValue::from_static("from-the-caller"));
    let sent = sent(layer(), request).await;
    assert_eq!(sent.headers()[AUTHORIZATION], "Bearer other");
    assert_eq!(sent.headers()["x-request-id"], "from-the-caller");
    assert_eq!(sent.headers().len(), 2);
}

#[tokio::test]
async fn sends_the_key_as_asked() {
    let with_header = sent(layer().with_header(X_API_KEY), get(ORIGIN)).await;
    assert_eq!(with_header.headers()["x-api-key"], KEY);
    assert!(with_header.headers()["x-api-key"].is_sensitive());
    assert!(!with_header.headers().contains_key(AUTHORIZATION));

    let with_scheme = sent(layer().with_scheme("ApiKey").unwrap(), get(ORIGIN)).await;
    assert_eq!(with_scheme.headers()[AUTHORIZATION], format!("ApiKey {KEY}"));

    let last = layer().with_header(X_API_KEY).with_scheme("Token").unwrap();
    let last = sent(last, get(ORIGIN)).await;
    assert_eq!(last.headers()[AUTHORIZATION], format!("Token {KEY}"));
    assert!(!last.headers().contains_key("x-api-key"));

    let correlation = HeaderName::from_static("x-correlation-id");
    let other_id = sent(layer().with_request_id_header(correlation), get(ORIGIN)).await;
    assert_eq!(other_id.headers()["x-correlation-id"].len(), 36);
    assert!(!other_id.headers().contains_key("x-request-id"));
}

#[tokio::test]
async fn another_origin_gets_nothing() {
    for uri in
        ["https://evil.example/", "http://api.example.com/", "https://api.example.com:8443/", "/jobs", "*"]
    {
        let sent = sent(layer(), get(uri)).await;
        assert!(sent.headers().is_empty(), "{uri}: {:?}", sent.headers());
        assert_eq!(sent.uri(), uri);
    }
    let mut fronted = get(ORIGIN);
    fronted.headers_mut().insert("host", HeaderValue::from_static("evil.example"));
    assert_eq!(sent(layer(), fronted).await.headers().len(), 1, "only `host`");
}

#[tokio::test]
async fn a_channel_is_trusted_with_requests_without_an_authority() {
    let layer = || ClientLayer::for_channel(KEY, ORIGIN).unwrap();
    assert_eq!(sent(layer(), get("/p.S/M")).await.headers()[AUTHORIZATION], format!("Bearer {KEY}"));
    assert_eq!(sent(layer(), get("https://api.example.com/p.S/M")).await.headers().len(), 2);
    assert!(sent(layer(), get("https://evil.example/p.S/M")).await.headers().is_empty());
}

#[tokio::test]
async fn two_layers_serve_two_origins() {
    let echo = tower::service_fn(|request: Request<()>| ready(Ok::<_, Infallible>(request)));
    let client = ServiceBuilder::new()
        .layer(layer())
        .layer(ClientLayer::new("other_key", "https://uploads.example.com").unwrap())
        .service(echo);
    let sent = client.clone().oneshot(get("https://uploads.example.com/")).await.unwrap();
    assert_eq!(sent.headers()[AUTHORIZATION], "Bearer other_key");
    let sent = client.oneshot(get(ORIGIN)).await.unwrap();
    assert_eq!(sent.headers()[AUTHORIZATION], format!("Bearer {KEY}"));
}

/// A redirect that is followed outside the layer reaches the other origin, without the key; back at the origin it has the key again.
#[tokio::test]
async fn redirects_to_another_origin_go_on_without_the_key() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let server = tower::service_fn(move |request: Request<Full<Bytes>>| {
        log.lock().unwrap().push((request.uri().to_string(), request.headers().clone()));
        let next = match request.uri().to_string().as_str() {
            "https://api.example.com/file" => Some("https://storage.example/file"),
            "https://storage.example/file" => Some("https://api.example.com/back"),
            _ => None,
        };
        let response = match next {
            Some(next) => Response::builder().status(307).header("location", next),
            None => Response::builder(),
        };
        ready(Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).unwrap()))
    });
    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(layer().with_header(X_API_KEY).with_retries(Retries::cloned()))
        .service(server);
    let request = Request::get("https://api.example.com/file").body(Full::default()).unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), 200);

    let seen = seen.lock().unwrap();
    let had_key: Vec<_> =
        seen.iter().map(|(uri, headers)| (&**uri, headers.contains_key("x-api-key"))).collect();
    assert_eq!(
        had_key,
        [
            ("https://api.example.com/file", true),
            ("https://storage.example/file", false),
            ("https://api.example.com/back", true)
        ]
    );
    assert!(seen[1].1.is_empty(), "{:?}", seen[1].1);
}

#[test]
fn configuration_errors_say_what_to_do() {
    for (result, expected) in [
        (ClientLayer::new("", ORIGIN), "the key is empty"),
        (ClientLayer::new("sk_live_1\n", ORIGIN), "trim it"),
        (ClientLayer::new(KEY, "http://api.example.com"), "Use https"),
        (ClientLayer::for_channel(KEY, "http://127.0.0.1:50051"), "Origin::dangerous_allow_plaintext"),
        (ClientLayer::new(KEY, "api.example.com"), "such as https://api.example.com"),
        (layer().with_scheme(""), "such as Bearer"),
        (layer().with_scheme("Bearer sk_live_1"), "such as Bearer"),
        (ClientLayer::new(ORIGIN, "sk_live_1"), "such as https://api.example.com"),
    ] {
        let error = result.unwrap_err();
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(text.contains(expected), "{text}");
            assert!(!text.contains("sk_live"), "{text}");
        }
    }
}

#[test]
fn takes_keys_and_origins_of_any_usual_type() -> Result<(), ConfigurationError> {
    let key = KeyFormat::new("sk").unwrap().generate(Environment::Live).unwrap();
    ClientLayer::new(&key, ORIGIN)?;
    ClientLayer::new(KEY.to_owned(), ORIGIN.to_owned())?;
    let text = ORIGIN.to_owned();
    ClientLayer::new(zeroize::Zeroizing::new(KEY.to_owned()), &text)?;
    let uri = http::Uri::from_static(ORIGIN);
    ClientLayer::new(ClientKey::from(KEY), &uri)?;
    ClientLayer::for_channel(KEY, uri)?;
    ClientLayer::for_channel(KEY, Origin::dangerous_allow_plaintext("http://[::1]:50051")?)?;
    Ok(())
}

#[test]
fn debug_shows_no_key() {
    let layer = layer();
    let service = layer.layer("inner");
    let with_retries = layer.clone().with_header(X_API_KEY).with_retries(Retries::<Full<Bytes>>::cloned());
    let texts = [
        format!("{layer:#?}"),
        format!("{service:?}"),
        format!("{with_retries:?}"),
        format!("{:?}", ClientKey::from(KEY)),
    ];
    for text in texts {
        assert!(!text.contains("a1B2") && !text.contains("c3D4"), "{text}");
    }
    assert!(format!("{layer:?}").contains("https://api.example.com"));
}

/// Without retries, the layer asks nothing of the inner service, and adds no future.
#[tokio::test]
async fn any_service_will_do() {
    struct Bare(bool);
    impl Service<Request<*const u8>> for Bare {
        type Response = u8;
        type Error = Infallible;
        type Future = Ready<Result<u8, Infallible>>;
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
            self.0 = true;
            std::task::Poll::Ready(Ok(()))
        }
        fn call(&mut self, request: Request<*const u8>) -> Self::Future {
            assert!(std::mem::take(&mut self.0), "ready");
            assert!(request.headers().contains_key(AUTHORIZATION));
            ready(Ok(7))
        }
    }
    let mut client: Client<Bare, NoRetries> = layer().layer(Bare(false));
    let request = Request::get(ORIGIN).body(std::ptr::null()).unwrap();
    let response: Ready<_> = client.ready().await.unwrap().call(request);
    assert_eq!(response.await.unwrap(), 7);
}
