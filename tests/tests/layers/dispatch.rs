//! Several verifiers, of which one is asked, by what the credential looks like.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Request, StatusCode};
use tests::suite::{Directory, Inner, Log, Reply, Stack, World, at, erase, get, send, with_key};
use tollgate::{
    Answer, ClientAddress, CredentialLayer, Denial, DenialKind, Environment, KeyFormat, KeyVerifier,
    MemoryKeys, Principal, ScopeLayer, Tollgate, VerifyLayer,
    clock::ManualClock,
    layers::ReportOnly,
    network::Networks,
    request::RequestHead,
    scope,
    verify::{
        Branch, CachedVerifier, Credential, CredentialSource, Dispatch, Verify, VerifyRequest, verify_fn,
    },
};
use tower::{Layer as _, ServiceBuilder};

const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl";

/// A verifier that counts how often it is asked.
#[derive(Clone)]
struct Counted(Directory, Arc<AtomicUsize>);

impl Counted {
    fn knowing(credential: &str, id: &str) -> Self {
        Self(Directory::default().with(credential, Principal::new(id)), Arc::default())
    }

    fn asked(&self) -> usize {
        self.1.swap(0, Ordering::Relaxed)
    }
}

impl Verify for Counted {
    fn verify(&self, request: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.verify(request)
    }
}

fn stack(verifier: impl Verify) -> Stack {
    erase(Tollgate::builder().verify(verifier).build().unwrap().layer(Inner::new()))
}

/// What the caller sees of a refusal.
fn seen(reply: &Reply) -> (u16, String, String) {
    let text = |member: &str| reply.json()[member].as_str().unwrap_or_default().to_owned();
    (reply.status().as_u16(), text("code"), text("detail"))
}

#[tokio::test]
async fn asks_exactly_one_verifier() {
    let keys = Counted::knowing("psk_known", "key");
    let tokens = Counted::knowing(JWT, "token");
    let others = Counted::knowing("session", "session");
    let verifier = Dispatch::new().with_prefix("psk_", keys.clone()).unwrap();
    let verifier = verifier.with_jwt(tokens.clone()).unwrap().with_default(others.clone()).unwrap();
    let mut stack = stack(verifier);
    let forged = JWT.replace("c2ln", "AAAA");
    for (credential, status, asked) in [
        ("psk_known", 200, (1, 0, 0)),
        ("psk_unknown", 401, (1, 0, 0)),
        // A prefix decides also if the rest looks like a token.
        ("psk_eyJ.a.b", 401, (1, 0, 0)),
        (JWT, 200, (0, 1, 0)),
        (&forged, 401, (0, 1, 0)),
        ("session", 200, (0, 0, 1)),
        ("PSK_known", 401, (0, 0, 1)),
        ("psk", 401, (0, 0, 1)),
        ("eyJ.a", 401, (0, 0, 1)),
        ("eyJ.a.b.c.d", 401, (0, 0, 1)),
    ] {
        assert_eq!(send(&mut stack, with_key(credential)).await.status(), status, "{credential}");
        assert_eq!((keys.asked(), tokens.asked(), others.asked()), asked, "{credential}");
    }
}

#[tokio::test]
async fn a_credential_that_no_verifier_is_for_is_malformed() {
    let keys = Counted::knowing("psk_known", "key");
    let mut stack = stack(Dispatch::new().with_prefix("psk_", keys.clone()).unwrap());
    for credential in ["known", JWT, "eyJ", "ps"] {
        let reply = send(&mut stack, with_key(credential)).await;
        assert_eq!(reply.kind(), Some(DenialKind::CredentialMalformed), "{credential}");
        assert_eq!(keys.asked(), 0);
    }
}

#[test]
fn credentials_that_could_match_twice_are_a_configuration_error() {
    let new = || Counted::knowing("", "");
    for (one, other) in [("psk_", "psk_"), ("psk_", "psk_live_"), ("psk_live_", "psk_")] {
        let error = Dispatch::new().with_prefix(one, new()).unwrap().with_prefix(other, new()).unwrap_err();
        assert!(error.to_string().contains("both prefixes"), "{error}");
    }
    for prefix in ["e", "ey", "eyJ", "eyJhbGciOi"] {
        let error = Dispatch::new().with_prefix(prefix, new()).unwrap().with_jwt(new()).unwrap_err();
        assert!(error.to_string().contains("JWT"), "{error}");
        assert!(Dispatch::new().with_jwt(new()).unwrap().with_prefix(prefix, new()).is_err());
        // Without tokens, it is a prefix like any other.
        assert!(Dispatch::new().with_prefix(prefix, new()).is_ok());
    }
    assert!(Dispatch::new().with_jwt(new()).unwrap().with_jwt(new()).is_err());
    assert!(Dispatch::new().with_default(new()).unwrap().with_default(new()).is_err());
    for prefix in ["", "p sk", "schlüssel_"] {
        assert!(Dispatch::new().with_prefix(prefix, new()).is_err(), "{prefix:?}");
    }
    let several = Dispatch::new().with_prefix("psk_", new()).unwrap().with_prefix("sk_", new()).unwrap();
    assert!(several.with_jwt(new()).is_ok());
}

/// A key that is known, but expired, of another environment, or used from elsewhere, was refused by the layer, and not by its verifier.
#[tokio::test]
async fn every_401_of_a_branch_is_in_its_words_whatever_the_reason() {
    let (format, keys) = (KeyFormat::new("psk").unwrap(), MemoryKeys::new());
    let issue = |environment, principal| keys.issue(&format, environment, principal).unwrap();
    let live = |principal| issue(Environment::Live, principal).expose_secret().to_owned();
    let good = live(Principal::new("good"));
    let expired = live(Principal::new("expired").with_expiry(at(0)));
    let revoked = live(Principal::new("revoked"));
    assert!(keys.revoke("revoked"));
    let nowhere = Networks::new(["198.51.100.7"]).unwrap();
    let elsewhere = live(Principal::new("elsewhere").with_allowed_networks(nowhere));
    let test = issue(Environment::Test, Principal::new("test")).expose_secret().to_owned();
    let suspended = live(Principal::new("suspended").with_tenant("held"));
    keys.suspend_tenant("held");
    let unknown = format.generate(Environment::Live).unwrap().expose_secret().to_owned();

    let key_branch = Branch::new(KeyVerifier::new(format, keys))
        .with_refusal_text("invalid_scanner_key", "Invalid scanner API key");
    let tokens = verify_fn(|_: Credential| async {
        tokio::task::yield_now().await;
        Err::<Principal, _>(
            Denial::new(DenialKind::TokenInvalid).with_code("expired").with_detail("at 12:00"),
        )
    });
    let token_branch = Branch::new(tokens).with_refusal_text("invalid_token", "Invalid token");
    let verifier = Dispatch::new().with_prefix("psk_", key_branch).unwrap().with_jwt(token_branch).unwrap();
    let client = ClientAddress::of_peer(|_| Some([203, 0, 113, 9].into()));
    let verify =
        VerifyLayer::new(verifier).with_environment(Environment::Live).with_client_address(client.clone());
    let builder = Tollgate::builder().verify(verify).clock(ManualClock::at(at(50)));
    let mut stack = erase(builder.build().unwrap().layer(Inner::new()));

    assert_eq!(send(&mut stack, with_key(&good)).await.status(), StatusCode::OK);
    let words = (401, "invalid_scanner_key".to_owned(), "Invalid scanner API key".to_owned());
    for credential in [&*unknown, &expired, &revoked, &elsewhere, &test, "psk_live_junk"] {
        let reply = send(&mut stack, with_key(credential)).await;
        assert_eq!(seen(&reply), words, "{reply:?}");
        assert_eq!(reply.header("www-authenticate"), r#"Bearer realm="api",error="invalid_token""#);
    }
    let reply = send(&mut stack, with_key(JWT)).await;
    assert_eq!(seen(&reply), (401, "invalid_token".to_owned(), "Invalid token".to_owned()));
    let reply = send(&mut stack, with_key(&suspended)).await;
    assert_eq!((reply.status().as_u16(), &*seen(&reply).1), (403, "tenant_suspended"));
    let reply = send(&mut stack, with_key("neither")).await;
    assert_eq!(seen(&reply).1, "invalid_credential");
    let reply = send(&mut stack, get("/", &[])).await;
    assert_eq!(seen(&reply).1, "missing_credential");
}

#[tokio::test]
async fn the_log_has_the_words_and_the_precise_reason() {
    let keys = Branch::new(Directory::default()).with_refusal_text("no_key", "No");
    let verifier = Arc::new(Dispatch::new().with_prefix("psk_", keys).unwrap());
    let log = Log::start();
    send(&mut stack(verifier.clone()), with_key("psk_1")).await;
    let report = ReportOnly::new();
    let reporting = Tollgate::builder().verify(verifier).report_only(&report).build().unwrap();
    send(&mut erase(reporting.layer(Inner::new())), with_key("psk_1")).await;
    assert_eq!(report.refusals(), 1);
    let refusals = log.refusals();
    assert_eq!(refusals.len(), 2);
    for refusal in refusals {
        assert_eq!((refusal.field("reason"), refusal.field("code")), (Some("key_unknown"), Some("no_key")));
    }
}

#[tokio::test]
async fn a_key_that_ends_behind_the_verifier_is_refused_in_the_same_words() {
    let (format, keys) = (KeyFormat::new("psk").unwrap(), MemoryKeys::new());
    let key = keys.issue(&format, Environment::Live, Principal::new("ada")).unwrap();
    let branch = Branch::new(KeyVerifier::new(format, keys.clone())).with_refusal_text("no_key", "No");
    let revoking = move |request: Request<String>| {
        keys.revoke("ada");
        request
    };
    let stack = ServiceBuilder::new()
        .layer(CredentialLayer::new())
        .layer(VerifyLayer::new(Dispatch::new().with_prefix("psk_", branch).unwrap()))
        .map_request(revoking)
        .layer(ScopeLayer::new(scope("jobs:read")).unwrap());
    let reply = send(&mut erase(stack.service(Inner::new())), with_key(key.expose_secret())).await;
    assert_eq!((reply.kind(), &*seen(&reply).1), (Some(DenialKind::KeyRevoked), "no_key"));
}

#[tokio::test]
async fn words_pass_through_a_cache_and_through_a_nested_dispatch() {
    let keys = Branch::new(Directory::default()).with_refusal_text("no_key", "No");
    let inner = Dispatch::new().with_prefix("psk_", keys).unwrap();
    let verifier = Dispatch::new().with_default(CachedVerifier::new(inner)).unwrap();
    let reply = send(&mut stack(verifier), with_key("psk_1")).await;
    assert_eq!(seen(&reply).1, "no_key");
}

#[tokio::test]
async fn words_of_an_outer_stack_do_not_hold_for_the_credential_of_an_inner_one() {
    let keys = Branch::new(Directory::default().with("psk_1", Principal::new("ada")))
        .with_refusal_text("no_key", "No");
    let outer = VerifyLayer::new(Dispatch::new().with_prefix("psk_", keys).unwrap());
    let inner =
        CredentialLayer::from_sources([CredentialSource::Header("x-inner".parse().unwrap())]).unwrap();
    let stack = ServiceBuilder::new()
        .layer(CredentialLayer::new())
        .layer(outer)
        .layer(inner)
        .layer(VerifyLayer::new(Directory::default()));
    let mut stack = erase(stack.service(Inner::new()));
    for (inner, kind) in
        [("unknown", DenialKind::KeyUnknown), ("not a credential", DenialKind::CredentialMalformed)]
    {
        let request = get("/", &[("authorization", "Bearer psk_1"), ("x-inner", inner)]);
        let reply = send(&mut stack, request).await;
        assert_eq!((reply.kind(), &*seen(&reply).1), (Some(kind), "invalid_credential"));
    }
}

#[tokio::test]
async fn reads_credentials_from_every_source() {
    let keys = Counted::knowing("psk_known", "key");
    let tokens = Counted::knowing(JWT, "token");
    let verifier =
        Dispatch::new().with_prefix("psk_", keys.clone()).unwrap().with_jwt(tokens.clone()).unwrap();
    let sources = [
        CredentialSource::Header("x-api-key".parse().unwrap()),
        CredentialSource::WebSocketProtocol("key."),
        CredentialSource::DangerousQuery("key"),
    ];
    let credential = CredentialLayer::from_sources(sources).unwrap();
    let tollgate = Tollgate::builder().credential(credential).verify(verifier).build().unwrap();
    let mut stack = erase(tollgate.layer(Inner::new()));
    for (secret, asked) in [("psk_known", (1, 0)), (JWT, (0, 1))] {
        for request in [
            get("/", &[("x-api-key", secret)]),
            get("/", &[("sec-websocket-protocol", &format!("chat, key.{secret}"))]),
            get(&format!("/?key={secret}"), &[]),
        ] {
            assert_eq!(send(&mut stack, request).await.status(), StatusCode::OK);
            assert_eq!((keys.asked(), tokens.asked()), asked);
        }
    }
}

/// An answer of its verifiers that is there stays there, and choosing one allocates nothing.
#[test]
fn choosing_a_verifier_allocates_nothing() {
    let keys = Branch::new(Directory::new(&World::new().backend).with("psk_1", Principal::new("ada")))
        .with_refusal_text("no_key", "No");
    let verifier = Dispatch::new().with_prefix("psk_", keys).unwrap();
    let request = Request::new(());
    for credential in ["psk_1", "neither-of-them"] {
        let credential = Credential::new(credential.parse().unwrap(), 0, CredentialSource::Bearer);
        let presented = VerifyRequest::new(&credential, RequestHead::of(&request), at(0));
        let known = credential.expose_secret() == "psk_1";
        let measured = allocation_counter::measure(|| {
            let text = verifier.refusal_text(&credential);
            let Answer::Now(answer) = verifier.verify(&presented) else { panic!("it answers later") };
            assert_eq!((text.is_some(), answer.is_ok()), (known, known));
        });
        // The one of a refusal is its sentence for the log.
        assert_eq!(measured.count_total, u64::from(!known));
    }
}
