//! Keys that may be used from some networks only.

use std::{net::IpAddr, pin::pin};

use http::{HeaderMap, Request};
use tests::suite::{
    Backend, Directory, Inner, Latch, Log, Reply, Stack, at, erase, get, is_pending, is_ready_now, send,
};
use tollgate::{
    AttemptLimitLayer, ClientAddress, DenialKind, Environment, KeyFormat, KeyVerifier, MemoryKeys,
    PerWindow as _, Principal, RequestContext, Tollgate, VerifyLayer,
    clock::ManualClock,
    layers::{ReportOnly, TollgateBuilder},
    network::Networks,
    respond::Json,
};
use tower::{Layer as _, Service as _};
use tracing::Level;

/// The other end of a connection, as a server attaches it.
#[derive(Clone)]
struct Peer(IpAddr);

const OFFICE: &str = "198.51.100.7";
const ELSEWHERE: &str = "203.0.113.9";
/// A trusted proxy.
const PROXY: &str = "10.0.0.1";

fn client() -> ClientAddress {
    let peer = ClientAddress::of_peer(|head| head.extensions.get::<Peer>().map(|peer| peer.0));
    peer.with_trusted_proxies([PROXY]).unwrap()
}

/// Keys in memory, and a stack that verifies them.
struct Api {
    format: KeyFormat,
    keys: MemoryKeys,
    clock: ManualClock,
}

impl Api {
    fn new() -> Self {
        Self { format: KeyFormat::new("sk").unwrap(), keys: MemoryKeys::new(), clock: ManualClock::at(at(0)) }
    }

    /// A key of `ada`, of the tenant `acme`, that may be used from these networks.
    fn issue(&self, networks: &[&str]) -> String {
        let principal = Principal::new("ada").with_tenant("acme");
        let principal = principal.with_allowed_networks(Networks::new(networks).unwrap());
        let key = self.keys.issue(&self.format, Environment::Live, principal).unwrap();
        key.expose_secret().to_owned()
    }

    fn unknown(&self) -> String {
        self.format.generate(Environment::Live).unwrap().expose_secret().to_owned()
    }

    fn verifier(&self) -> KeyVerifier {
        KeyVerifier::new(self.format.clone(), self.keys.clone())
    }

    fn builder(&self) -> TollgateBuilder {
        self.verified_by(VerifyLayer::new(self.verifier()).with_client_address(client()))
    }

    fn verified_by(&self, verify: VerifyLayer) -> TollgateBuilder {
        Tollgate::builder().verify(verify).clock(self.clock.clone())
    }
}

fn stack(builder: TollgateBuilder) -> (Stack, Inner) {
    let inner = Inner::new();
    (erase(builder.build().unwrap().layer(inner.clone())), inner)
}

fn from(peer: &str, key: &str) -> Request<String> {
    let mut request = get("/jobs", &[("x-api-key", key), ("x-request-id", "one-of-many")]);
    request.extensions_mut().insert(Peer(peer.parse().unwrap()));
    request
}

fn forwarded(client: &str, key: &str) -> Request<String> {
    let mut request = from(PROXY, key);
    request.headers_mut().insert("x-forwarded-for", client.parse().unwrap());
    request
}

/// What the caller can see of a response.
fn visible(reply: &Reply) -> (u16, HeaderMap, String) {
    (reply.status().as_u16(), reply.headers().clone(), reply.body().to_owned())
}

#[tokio::test]
async fn a_key_works_from_its_networks_only() {
    let api = Api::new();
    let key = api.issue(&["198.51.100.0/24", "2001:db8:1::7", "2001:db8:2::/48"]);
    let (mut stack, inner) = stack(api.builder());
    let allowed = [OFFICE, "::ffff:198.51.100.7", "2001:db8:1::7", "2001:db8:2:ffff::1"];
    for address in allowed {
        assert_eq!(send(&mut stack, from(address, &key)).await.kind(), None, "{address}");
        assert_eq!(send(&mut stack, forwarded(address, &key)).await.kind(), None, "{address} behind a proxy");
    }
    assert_eq!(inner.calls(), 2 * allowed.len());
    // The second is in the same /64 as an allowed address: limits treat the two as one client.
    for address in [ELSEWHERE, "2001:db8:1::8", "2001:db8:3::1", "::1", "::ffff:203.0.113.9"] {
        for request in [from(address, &key), forwarded(address, &key)] {
            let refused = send(&mut stack, request).await;
            assert_eq!(refused.kind(), Some(DenialKind::NetworkNotAllowed), "{address}");
        }
    }
    assert_eq!(inner.calls(), 2 * allowed.len());
}

/// A caller writes an allowed address into the header. It counts only where a trusted proxy has added it.
#[tokio::test]
async fn a_forged_header_does_not_help() {
    let api = Api::new();
    let key = api.issue(&["198.51.100.0/24"]);
    let (mut stack, inner) = stack(api.builder());
    let mut direct = from(ELSEWHERE, &key);
    direct.headers_mut().insert("x-forwarded-for", OFFICE.parse().unwrap());
    let through_proxy = forwarded("198.51.100.7, 203.0.113.9", &key);
    for request in [direct, through_proxy] {
        assert_eq!(send(&mut stack, request).await.kind(), Some(DenialKind::NetworkNotAllowed));
    }
    assert_eq!(inner.calls(), 0);
}

/// A refusal from another address does not show that the key exists, even if it has expired, is revoked, or its tenant is suspended.
#[tokio::test]
async fn from_another_address_a_key_looks_like_an_unknown_key() {
    let api = Api::new();
    let key = api.issue(&["198.51.100.0/24"]);
    let (mut stack, _) = stack(api.builder());
    let unknown = visible(&send(&mut stack, from(ELSEWHERE, &api.unknown())).await);
    assert_eq!(visible(&send(&mut stack, from(ELSEWHERE, &key)).await), unknown);

    api.keys.suspend_tenant("acme");
    assert_eq!(
        visible(&send(&mut stack, from(ELSEWHERE, &key)).await),
        unknown,
        "while its tenant is suspended"
    );
    let owner = send(&mut stack, from(OFFICE, &key)).await;
    assert_eq!(owner.kind(), Some(DenialKind::TenantSuspended), "its owner learns why");
    api.keys.resume_tenant("acme");
    assert_eq!(send(&mut stack, from(OFFICE, &key)).await.kind(), None);

    assert!(api.keys.revoke("ada"));
    assert_eq!(visible(&send(&mut stack, from(ELSEWHERE, &key)).await), unknown, "revoked");
}

#[tokio::test]
async fn the_log_says_why() {
    let api = Api::new();
    let key = api.issue(&["198.51.100.0/24", "192.0.2.1"]);
    let (mut stack, _) = stack(api.builder());
    let log = Log::start();
    send(&mut stack, from(ELSEWHERE, &key)).await;
    let refused = log.refusals().remove(0);
    assert_eq!(refused.field("reason"), Some("network_not_allowed"));
    assert_eq!(
        refused.field("detail"),
        Some("client 203.0.113.9 is in none of the 2 networks from which the key ada may be used")
    );
}

/// A responder of the application's own may show what the context knows.
#[tokio::test]
async fn from_another_address_no_responder_learns_whose_key_it_is() {
    let api = Api::new();
    let key = api.issue(&["198.51.100.0/24"]);
    let responder =
        Json::with_context(|_, context| serde_json::json!(context.principal().map(|found| found.id())));
    let (mut stack, _) = stack(api.builder().responder(responder));
    assert_eq!(send(&mut stack, from(ELSEWHERE, &key)).await.json(), serde_json::Value::Null);
}

/// A thief uses a key from another address: the owner's quota stays, and the thief's address has failed to authenticate.
#[tokio::test]
async fn from_another_address_a_key_is_counted_only_as_a_failed_attempt() {
    let api = Api::new();
    let key = api.issue(&["198.51.100.0/24"]);
    let builder = api.builder().rate_limit(3.per_minute());
    let (mut stack, _) = stack(builder.attempt_limit(AttemptLimitLayer::new(2.per_minute(), client())));
    for expected in [DenialKind::NetworkNotAllowed, DenialKind::NetworkNotAllowed, DenialKind::RateLimited] {
        assert_eq!(send(&mut stack, from(ELSEWHERE, &key)).await.kind(), Some(expected));
    }
    let owner = send(&mut stack, from(OFFICE, &key)).await;
    assert_eq!(owner.headers()["x-ratelimit-remaining"], "2");
}

/// Without the client's address, a restricted key works nowhere, and other keys work as before.
#[tokio::test]
async fn it_fails_closed_if_the_address_is_not_known() {
    let api = Api::new();
    let (plain, restricted) = (api.issue(&[]), Api::new());
    let key = restricted.issue(&["0.0.0.0/0", "::/0"]);
    let without_peer = |key: &str| get("/jobs", &[("x-api-key", key)]);

    let (mut unknown_peer, _) = stack(api.builder());
    assert_eq!(send(&mut unknown_peer, without_peer(&plain)).await.kind(), None);
    let cases = [
        (restricted.builder(), without_peer(&key), "let the server attach the address of the peer"),
        (
            restricted.verified_by(VerifyLayer::new(restricted.verifier())),
            from(OFFICE, &key),
            "add VerifyLayer::with_client_address",
        ),
    ];
    for (builder, request, advice) in cases {
        let (mut stack, inner) = stack(builder.report_only(&ReportOnly::new()));
        let log = Log::start();
        let refused = send(&mut stack, request).await;
        assert_eq!(
            (refused.status().as_u16(), refused.kind()),
            (500, Some(DenialKind::Misconfigured)),
            "{advice}"
        );
        assert_eq!(inner.calls(), 0, "also in report-only mode");
        let logged = log.refusals().remove(0);
        assert_eq!((logged.level, logged.field("layer")), (Level::ERROR, Some("VerifyLayer")));
        assert!(logged.field("detail").unwrap().contains(advice), "{logged:?}");
    }
}

/// The verifier answers later: the address is that of the request.
#[tokio::test]
async fn it_is_checked_after_a_wait() {
    for (address, expected) in [(OFFICE, None), (ELSEWHERE, Some(DenialKind::NetworkNotAllowed))] {
        let (latch, inner) = (Latch::shut(), Inner::new());
        let networks = Networks::new(["198.51.100.0/24"]).unwrap();
        let principal = Principal::new("ada").with_allowed_networks(networks);
        let directory = Directory::new(&Backend::slow(&latch)).with("good", principal);
        let verify = VerifyLayer::new(directory).with_client_address(client());
        let tollgate = Tollgate::builder().verify(verify).clock(ManualClock::at(at(0))).build().unwrap();
        let mut stack = erase(tollgate.layer(inner.clone()));
        assert!(is_ready_now(&mut stack));
        let mut response = pin!(stack.call(from(address, "good")));
        assert!(is_pending(response.as_mut()));
        latch.open();
        let reply = Reply::read(response.await.unwrap()).await;
        assert_eq!((reply.kind(), inner.calls()), (expected, usize::from(expected.is_none())));
    }
}

/// In report-only mode the refusal is reported, and the caller is not authenticated.
#[tokio::test]
async fn a_waived_refusal_does_not_authenticate() {
    let api = Api::new();
    let (key, report) = (api.issue(&["198.51.100.0/24"]), ReportOnly::new());
    let verify = VerifyLayer::new(api.verifier()).with_client_address(client()).with_report_only(&report);
    let (mut stack, inner) = stack(api.verified_by(verify));
    assert_eq!(send(&mut stack, from(ELSEWHERE, &key)).await.kind(), None);
    assert_eq!(report.refusals(), 1);
    let context = RequestContext::of(inner.take_last().extensions()).cloned().unwrap();
    assert!(context.principal().is_none() && context.is_identified());
}
