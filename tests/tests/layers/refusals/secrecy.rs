//! No secret reaches a log, a response or debug output.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, Request};
use tests::suite::{Backend, Inner, Latch, Log, SlowLimiter, at, erase, get, limit_by_key, send};
use tollgate::{
    CredentialLayer, EntitlementLayer, Environment, KeyFormat, KeyVerifier, MemoryKeys, PerWindow as _, Plan,
    Principal, RequestContext, Scopes, Tollgate, VerifyLayer,
    clock::ManualClock,
    key::{Pepper, PepperId, Peppers},
    layers::ReportOnly,
    scope,
    verify::CredentialSource,
};
use tower::Layer as _;

/// Every invented secret contains this. Issued keys are searched for themselves.
const MARK: &str = "hunter2";

struct Keys {
    issued: Vec<String>,
    verifier: KeyVerifier,
    store: MemoryKeys,
}

fn keys() -> Keys {
    let pepper =
        || Peppers::new(Pepper::new(PepperId::new(1), format!("{MARK} and sixteen bytes more")).unwrap());
    let (format, store) = (KeyFormat::new("sk").unwrap(), MemoryKeys::with_peppers(pepper()));
    let principal = |id: &str| {
        let scopes = Scopes::new(["read"]).unwrap();
        Principal::new(id).with_tenant("acme").with_scopes(scopes).with_plan(Plan::active("pro"))
    };
    let mut issued = Vec::new();
    for principal in [
        principal("good"),
        principal("revoked"),
        principal("expired").with_expiry(at(0)),
        principal("limited").with_quota("key", 0.per_minute()),
        principal("lapsed").with_plan(Plan::lapsed("pro")),
        principal("powerless").with_scopes(Scopes::none()),
        principal("suspended").with_tenant("other"),
    ] {
        issued.push(store.issue(&format, Environment::Live, principal).unwrap().expose_secret().to_owned());
    }
    assert!(store.revoke("revoked"));
    store.suspend_tenant("other");
    let opaque = format!("opaque-{MARK}-imported");
    store.import(&opaque, principal("imported"));
    issued.push(opaque);
    let verifier =
        KeyVerifier::new(format, store.clone()).with_format(KeyFormat::opaque()).with_peppers(pepper());
    Keys { issued, verifier, store }
}

fn requests(issued: &[String]) -> Vec<Request<String>> {
    let mut secrets: Vec<String> = issued.to_vec();
    secrets.extend([MARK.to_owned(), format!("{MARK},{MARK}"), format!("{MARK} {MARK}"), MARK.repeat(1_000)]);
    secrets.push(format!("sk_live_{MARK}"));
    secrets.push(format!("sk_live_{MARK}0123456789abcdefghijklmnopq"));
    let mut requests = vec![get("/", &[])];
    for secret in &secrets {
        let encoded = STANDARD.encode(format!("{secret}:"));
        let with_password = STANDARD.encode(format!("ada:{secret}"));
        for headers in [
            vec![("authorization", format!("Bearer {secret}"))],
            vec![("authorization", format!("Digest {secret}"))],
            vec![("authorization", secret.clone())],
            vec![("authorization", format!("Basic {encoded}"))],
            vec![("authorization", format!("Basic {with_password}"))],
            vec![("authorization", format!("Token {secret}"))],
            vec![("x-api-key", secret.clone())],
            vec![("x-api-key", secret.clone()), ("x-api-key", secret.clone())],
            vec![("x-api-key", secret.clone()), ("authorization", format!("Bearer {MARK}x"))],
            vec![("sec-websocket-protocol", format!("chat, key.{secret}"))],
        ] {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
            requests.push(get("/", &headers));
            let grpc = [&headers[..], &[("content-type", "application/grpc")]].concat();
            requests.push(get("/", &grpc));
        }
        if !secret.contains([',', ' ']) && secret.len() < 1_000 {
            requests.push(get(&format!("/?key={secret}"), &[]));
            requests.push(get(&format!("/?k%65y={secret}"), &[]));
        }
    }
    // A malformed request ID may be a misplaced secret, so it is not logged.
    requests.push(get("/", &[("x-request-id", &format!("Bearer {MARK}"))]));
    requests
}

#[tokio::test]
async fn no_secret_reaches_a_log_a_response_or_debug_output() {
    let keys = keys();
    let clock = ManualClock::at(at(10));
    let sources = [
        CredentialSource::Bearer,
        CredentialSource::BasicUser,
        CredentialSource::BasicPassword { user: Some("bob") },
        CredentialSource::Scheme("Token"),
        CredentialSource::Header(HeaderName::from_static("x-api-key")),
        CredentialSource::WebSocketProtocol("key."),
        CredentialSource::DangerousQuery("key"),
    ];
    let latch = Latch::shut();
    latch.open();
    let builder = Tollgate::builder()
        .credential(CredentialLayer::from_sources(sources).unwrap())
        .verify(VerifyLayer::new(keys.verifier).with_environment(Environment::Live))
        .rate_limit(limit_by_key(1_000.per_minute(), SlowLimiter::new(&Backend::slow(&latch))))
        .entitlement(EntitlementLayer::new())
        .scope(scope("read"))
        .clock(clock);

    let log = Log::start();
    let mut written = format!("{builder:#?} {:#?}", keys.store);
    let mut statuses = std::collections::BTreeSet::new();
    for tollgate in
        [builder.clone().build().unwrap(), builder.report_only(&ReportOnly::new()).build().unwrap()]
    {
        let inner = Inner::new();
        let service = tollgate.layer(inner.clone());
        write!(written, "{tollgate:#?} {service:#?}").unwrap();
        let mut stack = erase(service);
        for request in requests(&keys.issued) {
            let calls = inner.calls();
            let reply = send(&mut stack, request).await;
            statuses.insert(reply.status().as_u16());
            // Debug output includes status, headers, body, and the denial in the extensions.
            write!(written, "{reply:#?}").unwrap();
            if let Some(denial) = reply.denial() {
                write!(written, "{denial} {denial:#?} {:?}", denial.decision()).unwrap();
            }
            for header in reply.headers().values() {
                written.push_str(&String::from_utf8_lossy(header.as_bytes()));
            }
            if inner.calls() > calls {
                let inside = inner.take_last();
                write!(written, "{:#?} {:#?}", inside.headers(), RequestContext::of(inside.extensions()))
                    .unwrap();
            }
        }
    }
    write!(written, "{log:#?}").unwrap();

    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [200, 400, 401, 403, 429], "every status occurred");
    assert!(log.refusals().len() > 100, "the log has many refusals");
    for secret in keys.issued.iter().map(String::as_str).chain([MARK]) {
        let encoded = STANDARD.encode(format!("{secret}:"));
        for form in [secret, encoded.trim_end_matches('=')] {
            let line = written.lines().find(|line| line.contains(form));
            assert_eq!(line, None, "a secret was written");
        }
    }
}

/// Extensions of the request, which outer layers set, do not reach the response: the request context holds the credential.
#[tokio::test]
async fn a_refusal_has_its_denial_but_no_extension_of_its_request() {
    use std::{convert::Infallible, sync::Arc};

    use http::Response;
    use tollgate::{
        Denial, DenialKind,
        respond::{Json, Respond},
    };
    use tower::ServiceExt as _;

    #[derive(Clone)]
    struct HostExtension;

    let json: Arc<dyn Respond> = Arc::new(Json::new(|denial| serde_json::json!(denial.code())));
    for responder in [None, Some(json)] {
        let builder = Tollgate::builder()
            .credential(CredentialLayer::new())
            .verify(super::Refuse(Denial::new(DenialKind::KeyUnknown)));
        let builder = match responder {
            Some(responder) => builder.responder(responder),
            None => builder,
        };
        let inner =
            tower::service_fn(async |_: Request<String>| Ok::<_, Infallible>(Response::new(String::new())));
        let mut request = get("/", &[("authorization", "Bearer tok")]);
        request.extensions_mut().insert(HostExtension);
        let response = builder.build().unwrap().layer(inner).oneshot(request).await.unwrap();
        let extensions = response.extensions();
        assert_eq!(extensions.get::<Denial>().unwrap().kind(), DenialKind::KeyUnknown);
        assert!(RequestContext::of(extensions).is_none() && extensions.get::<HostExtension>().is_none());
        assert_eq!(extensions.len(), 1);
    }
}
