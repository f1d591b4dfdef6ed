//! How `CredentialLayer` reads each source of credentials, row by row, and how it refuses.

mod model;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Request};
use tests::suite::{Inner, Reply, Stack, erase, send};
use tollgate::{
    CredentialLayer, DenialKind, RequestContext, ScopeLayer,
    layers::ReportOnly,
    scope,
    verify::{Credential, CredentialSource},
};
use tower::Layer as _;

/// The layer's result for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The request presents this credential.
    Presents(String),
    Anonymous,
    Preflight,
    Refused(DenialKind),
}

use DenialKind::{
    CredentialConflicting as Conflicting, CredentialEmpty as Empty, CredentialMalformed as Malformed,
    CredentialMissing as Missing, CredentialRepeated as Repeated,
};
use Verdict::Refused;

fn presents(credential: &str) -> Verdict {
    Verdict::Presents(credential.to_owned())
}

/// One row of a table: a name, the headers, and the expected result.
struct Row(&'static str, Vec<(&'static str, Vec<u8>)>, Verdict);

fn row<const N: usize>(name: &'static str, headers: [(&'static str, &str); N], verdict: Verdict) -> Row {
    Row(name, headers.map(|(header, value)| (header, value.as_bytes().to_vec())).into(), verdict)
}

fn request(headers: &[(&'static str, Vec<u8>)]) -> Request<String> {
    let builder = headers.iter().fold(Request::get("/jobs"), |builder, (name, value)| {
        builder.header(*name, HeaderValue::from_bytes(value).unwrap())
    });
    builder.body(String::new()).unwrap()
}

/// The layer's result for a request, and its response. Checks that result, response and inner service agree.
async fn judge(layer: &CredentialLayer, request: Request<String>) -> (Verdict, Reply) {
    let inner = Inner::new();
    let reply = send(&mut stack(layer, &inner), request).await;
    if let Some(kind) = reply.kind() {
        assert_eq!(inner.calls(), 0, "refused as {kind:?}, but the inner service was called");
        return (Refused(kind), reply);
    }
    let inside = inner.take_last();
    let context = RequestContext::of(inside.extensions()).unwrap();
    let verdict = match context.credential().map(Credential::expose_secret) {
        Some(secret) => presents(secret),
        None if inside.headers().contains_key("access-control-request-method") => Verdict::Preflight,
        None => Verdict::Anonymous,
    };
    (verdict, reply)
}

fn stack(layer: &CredentialLayer, inner: &Inner) -> Stack {
    erase(layer.layer(inner.clone()))
}

/// Checks every row of a table in strict and in optional mode. The modes differ only for a missing credential.
async fn check(layer: CredentialLayer, rows: Vec<Row>) {
    for Row(name, headers, expected) in rows {
        let (verdict, _) = judge(&layer, request(&headers)).await;
        assert_eq!(verdict, expected, "{name}");

        let (verdict, _) = judge(&layer.clone().with_anonymous(), request(&headers)).await;
        let expected = if expected == Refused(Missing) { Verdict::Anonymous } else { expected };
        assert_eq!(verdict, expected, "{name}, in optional mode");
    }
}

const AUTHORIZATION: &str = "authorization";
const KEY: &str = "x-api-key";
const PROTOCOL: &str = "sec-websocket-protocol";

#[tokio::test]
async fn reads_bearer() {
    check(
        CredentialLayer::new(),
        vec![
            row("absent", [], Refused(Missing)),
            row("present", [(AUTHORIZATION, "Bearer tok")], presents("tok")),
            row("empty", [(AUTHORIZATION, "")], Refused(Empty)),
            row("only a space", [(AUTHORIZATION, " ")], Refused(Empty)),
            row("the scheme alone", [(AUTHORIZATION, "Bearer")], Refused(Empty)),
            row("the scheme and spaces", [(AUTHORIZATION, "Bearer   ")], Refused(Empty)),
            row("lower case", [(AUTHORIZATION, "bearer tok")], presents("tok")),
            row("mixed case", [(AUTHORIZATION, "bEaReR tok")], presents("tok")),
            row("several spaces", [(AUTHORIZATION, "Bearer    tok")], presents("tok")),
            row("keeps the case of the credential", [(AUTHORIZATION, "BEARER ToK")], presents("ToK")),
            row("all of token68", [(AUTHORIZATION, "Bearer aZ09-._~+/==")], presents("aZ09-._~+/==")),
            row("a tab for a space", [(AUTHORIZATION, "Bearer\ttok")], Refused(Malformed)),
            row("a space after it", [(AUTHORIZATION, "Bearer tok ")], Refused(Malformed)),
            row("junk after it", [(AUTHORIZATION, "Bearer tok junk")], Refused(Malformed)),
            row("a parameter", [(AUTHORIZATION, "Bearer token=\"tok\"")], Refused(Malformed)),
            row("no scheme", [(AUTHORIZATION, "tok")], Refused(Malformed)),
            row("a scheme with the same beginning", [(AUTHORIZATION, "BearerX tok")], Refused(Malformed)),
            row("another scheme", [(AUTHORIZATION, "Digest username=\"ada\"")], Refused(Malformed)),
            row("Basic, not configured", [(AUTHORIZATION, "Basic dG9rOg==")], Refused(Malformed)),
            row(
                "two lines",
                [(AUTHORIZATION, "Bearer tok"), (AUTHORIZATION, "Bearer other")],
                Refused(Repeated),
            ),
            row(
                "two equal lines",
                [(AUTHORIZATION, "Bearer tok"), (AUTHORIZATION, "Bearer tok")],
                Refused(Repeated),
            ),
            row(
                "two lines, one empty",
                [(AUTHORIZATION, ""), (AUTHORIZATION, "Bearer tok")],
                Refused(Repeated),
            ),
            row(
                "two lines, one of another scheme",
                [(AUTHORIZATION, "Bearer tok"), (AUTHORIZATION, "Digest x")],
                Refused(Repeated),
            ),
            row("joined by a proxy", [(AUTHORIZATION, "Bearer tok, Bearer other")], Refused(Repeated)),
            row("joined without a space", [(AUTHORIZATION, "Bearer tok,other")], Refused(Repeated)),
            row("joined with nothing", [(AUTHORIZATION, "Bearer tok,")], Refused(Repeated)),
        ],
    )
    .await;
}

#[tokio::test]
async fn reads_a_key_header() {
    check(
        CredentialLayer::new(),
        vec![
            row("present", [(KEY, "tok")], presents("tok")),
            row("visible characters", [(KEY, "t!k:\"~")], presents("t!k:\"~")),
            row("empty", [(KEY, "")], Refused(Empty)),
            row("only spaces", [(KEY, "  ")], Refused(Malformed)),
            row("a space within", [(KEY, "to k")], Refused(Malformed)),
            row("a scheme before it", [(KEY, "Bearer tok")], Refused(Malformed)),
            row("two lines", [(KEY, "tok"), (KEY, "other")], Refused(Repeated)),
            row("two equal lines", [(KEY, "tok"), (KEY, "tok")], Refused(Repeated)),
            row("two lines, the first empty", [(KEY, ""), (KEY, "tok")], Refused(Repeated)),
            row("two lines, the second empty", [(KEY, "tok"), (KEY, "")], Refused(Repeated)),
            row("joined", [(KEY, "tok,other")], Refused(Repeated)),
            row("joined with a space", [(KEY, "tok, other")], Refused(Repeated)),
            row("the same as bearer", [(AUTHORIZATION, "Bearer tok"), (KEY, "tok")], presents("tok")),
            row(
                "different from bearer",
                [(AUTHORIZATION, "Bearer tok"), (KEY, "other")],
                Refused(Conflicting),
            ),
            row("a part of bearer", [(AUTHORIZATION, "Bearer tok"), (KEY, "to")], Refused(Conflicting)),
            row("valid, with an empty bearer", [(AUTHORIZATION, ""), (KEY, "tok")], Refused(Empty)),
            row("valid, with a bare scheme", [(AUTHORIZATION, "Bearer"), (KEY, "tok")], Refused(Empty)),
            row(
                "valid, with another scheme",
                [(AUTHORIZATION, "Digest x"), (KEY, "tok")],
                Refused(Malformed),
            ),
            row("empty, with a valid bearer", [(AUTHORIZATION, "Bearer tok"), (KEY, "")], Refused(Empty)),
            row(
                "malformed, with a valid bearer",
                [(AUTHORIZATION, "Bearer tok"), (KEY, "to k")],
                Refused(Malformed),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn reads_basic() {
    let encoded = |text: &str| format!("Basic {}", STANDARD.encode(text));
    check(
        CredentialLayer::from_sources([CredentialSource::Bearer, CredentialSource::BasicUser]).unwrap(),
        vec![
            row("present", [(AUTHORIZATION, &encoded("tok:"))], presents("tok")),
            row("lower case", [(AUTHORIZATION, &encoded("tok:").replace("Basic", "basic"))], presents("tok")),
            row("several spaces", [(AUTHORIZATION, &encoded("tok:").replace(' ', "   "))], presents("tok")),
            row("bearer still works", [(AUTHORIZATION, "Bearer tok")], presents("tok")),
            row("the scheme alone", [(AUTHORIZATION, "Basic")], Refused(Empty)),
            row("an empty user name", [(AUTHORIZATION, &encoded(":"))], Refused(Empty)),
            row("with a password", [(AUTHORIZATION, &encoded("tok:secret"))], Refused(Malformed)),
            row(
                "a password that ends in a colon",
                [(AUTHORIZATION, &encoded("tok:secret:"))],
                Refused(Malformed),
            ),
            row("a password alone", [(AUTHORIZATION, &encoded(":secret"))], Refused(Malformed)),
            row("no colon", [(AUTHORIZATION, &encoded("tok"))], Refused(Malformed)),
            row("not Base64", [(AUTHORIZATION, "Basic tok:")], Refused(Malformed)),
            row("without padding", [(AUTHORIZATION, "Basic dG9rOg")], Refused(Malformed)),
            row("with padding", [(AUTHORIZATION, "Basic dG9rOg==")], presents("tok")),
            row("joined by a proxy", [(AUTHORIZATION, "Basic dG9rOg==, Bearer tok")], Refused(Repeated)),
            row(
                "two lines",
                [(AUTHORIZATION, "Basic dG9rOg=="), (AUTHORIZATION, "Bearer tok")],
                Refused(Repeated),
            ),
            row("the URL-safe alphabet", [(AUTHORIZATION, "Basic Pz8_Pj46")], Refused(Malformed)),
            row("the standard alphabet", [(AUTHORIZATION, "Basic Pz8/Pj46")], presents("???>>")),
            row("not UTF-8", [(AUTHORIZATION, "Basic /zo=")], Refused(Malformed)),
            row("a line break within", [(AUTHORIZATION, &encoded("to\nk:"))], Refused(Malformed)),
            row("a comma within", [(AUTHORIZATION, &encoded("tok,other:"))], Refused(Repeated)),
            row("another scheme", [(AUTHORIZATION, "Digest x")], Refused(Malformed)),
        ],
    )
    .await;
}

#[tokio::test]
async fn reads_a_key_as_basic_password() {
    let encoded = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let any = CredentialSource::BasicPassword { user: None };
    let fixed = CredentialSource::BasicPassword { user: Some("api") };
    check(
        CredentialLayer::from_sources([CredentialSource::Bearer, any.clone()]).unwrap(),
        vec![
            row("any user name", [(AUTHORIZATION, &encoded("ada:tok"))], presents("tok")),
            row("an empty user name", [(AUTHORIZATION, &encoded(":tok"))], presents("tok")),
            row("a user name with a space", [(AUTHORIZATION, &encoded("a d\u{e4},:tok"))], presents("tok")),
            row("a colon within the password", [(AUTHORIZATION, &encoded("ada:to:k"))], presents("to:k")),
            row("bearer still works", [(AUTHORIZATION, "Bearer tok")], presents("tok")),
            row("an empty password", [(AUTHORIZATION, &encoded("tok:"))], Refused(Empty)),
            row("no colon", [(AUTHORIZATION, &encoded("tok"))], Refused(Malformed)),
            row("a space within", [(AUTHORIZATION, &encoded("ada:to k"))], Refused(Malformed)),
            row("a comma within", [(AUTHORIZATION, &encoded("ada:tok,other"))], Refused(Repeated)),
            row("not UTF-8", [(AUTHORIZATION, "Basic YTr/")], Refused(Malformed)),
        ],
    )
    .await;
    check(
        CredentialLayer::from_sources([fixed.clone()]).unwrap(),
        vec![
            row("the user name", [(AUTHORIZATION, &encoded("api:tok"))], presents("tok")),
            row("another user name", [(AUTHORIZATION, &encoded("ada:tok"))], Refused(Malformed)),
            row("the user name in another case", [(AUTHORIZATION, &encoded("API:tok"))], Refused(Malformed)),
            row("the key as user name", [(AUTHORIZATION, &encoded("tok:"))], Refused(Empty)),
            row("bearer", [(AUTHORIZATION, "Bearer tok")], Refused(Malformed)),
        ],
    )
    .await;
    for sources in [[CredentialSource::BasicUser, fixed.clone()], [fixed, CredentialSource::BasicUser]] {
        check(
            CredentialLayer::from_sources(sources).unwrap(),
            vec![
                row("the key as user name", [(AUTHORIZATION, &encoded("tok:"))], presents("tok")),
                row("the key as password", [(AUTHORIZATION, &encoded("api:tok"))], presents("tok")),
                row("both", [(AUTHORIZATION, &encoded("other:tok"))], Refused(Malformed)),
                row("neither", [(AUTHORIZATION, &encoded(":"))], Refused(Empty)),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn reads_another_scheme() {
    let sources = ["Token", "ApiKey"].map(CredentialSource::Scheme);
    check(
        CredentialLayer::from_sources(sources).unwrap(),
        vec![
            row("the first", [(AUTHORIZATION, "Token tok")], presents("tok")),
            row("the second", [(AUTHORIZATION, "ApiKey tok")], presents("tok")),
            row("another case", [(AUTHORIZATION, "apikey   tok")], presents("tok")),
            row("the scheme alone", [(AUTHORIZATION, "Token")], Refused(Empty)),
            row("a parameter", [(AUTHORIZATION, "Token token=\"tok\"")], Refused(Malformed)),
            row("joined by a proxy", [(AUTHORIZATION, "Token tok, Token tok")], Refused(Repeated)),
            row("a scheme with the same beginning", [(AUTHORIZATION, "Tokens tok")], Refused(Malformed)),
            row("Bearer, not configured", [(AUTHORIZATION, "Bearer tok")], Refused(Malformed)),
            row("Basic, not configured", [(AUTHORIZATION, "Basic dG9rOg==")], Refused(Malformed)),
        ],
    )
    .await;
}

#[test]
fn a_source_that_no_request_can_meet_is_an_error() {
    for (source, expected) in [
        (CredentialSource::Scheme("bearer"), "CredentialSource::Bearer"),
        (CredentialSource::Scheme("Basic"), "BasicPassword"),
        (CredentialSource::Scheme("Api Key"), "\"Api Key\" cannot be the name"),
        (CredentialSource::Scheme(""), "\"\" cannot be the name"),
        (CredentialSource::BasicPassword { user: Some("a:b") }, "\"a:b\""),
    ] {
        let error = CredentialLayer::from_sources([source]).unwrap_err().to_string();
        assert!(error.starts_with("CredentialLayer: ") && error.contains(expected), "{error}");
    }
}

/// The challenges were always `Bearer`, so that programs which wait for `Basic` never sent a key.
#[tokio::test]
async fn a_401_has_a_challenge_for_each_scheme_of_the_sources() {
    use CredentialSource::{BasicPassword, BasicUser, Bearer, DangerousQuery, Header, Scheme};

    const BEARER: &str = r#"Bearer realm="api""#;
    const BASIC: &str = r#"Basic realm="api""#;
    let key_header = || Header(HeaderName::from_static(KEY));
    for (sources, missing, malformed, repeated) in [
        (vec![Bearer], vec![BEARER], vec![r#"Bearer realm="api",error="invalid_token""#], 1),
        (vec![key_header()], vec![BEARER], vec![r#"Bearer realm="api",error="invalid_token""#], 1),
        (vec![DangerousQuery("key")], vec![BEARER], vec![], 0),
        (
            vec![Bearer, key_header(), BasicUser, BasicPassword { user: None }],
            vec![BEARER, BASIC],
            vec![r#"Bearer realm="api",error="invalid_token""#, BASIC],
            1,
        ),
        (
            vec![BasicUser, Bearer],
            vec![BASIC, BEARER],
            vec![BASIC, r#"Bearer realm="api",error="invalid_token""#],
            1,
        ),
        (vec![BasicUser], vec![BASIC], vec![BASIC], 0),
        (
            vec![Scheme("Token"), Scheme("token"), Scheme("ApiKey")],
            vec![r#"Token realm="api""#, r#"ApiKey realm="api""#],
            vec![r#"Token realm="api""#, r#"ApiKey realm="api""#],
            0,
        ),
    ] {
        let layer = CredentialLayer::from_sources(sources.clone()).unwrap();
        let challenge = async |headers: &[(&'static str, &str)]| {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (*name, value.as_bytes().to_vec())).collect();
            judge(&layer, request(&headers)).await.1.header("www-authenticate")
        };
        assert_eq!(challenge(&[]).await, missing.join(" | "), "{sources:?}");
        if !malformed.is_empty() {
            let bad = [(AUTHORIZATION, "Digest x"), (KEY, "not a key")];
            assert_eq!(challenge(&bad).await, malformed.join(" | "), "{sources:?}");
            // A 400 is not about the scheme: only Bearer has a parameter for it.
            let twice = [(AUTHORIZATION, "x"), (AUTHORIZATION, "x"), (KEY, "x"), (KEY, "x")];
            let challenges = challenge(&twice).await;
            assert_eq!(challenges.matches("invalid_request").count(), repeated, "{sources:?}");
            assert!(!challenges.contains('|'), "{sources:?}: {challenges}");
        }
    }
}

/// A guard inside refuses an anonymous caller with the challenges of the layer that read the credential: the innermost one.
#[tokio::test]
async fn inner_layers_offer_the_schemes_of_the_credential_layer_around_them() {
    let basic = CredentialLayer::from_sources([CredentialSource::BasicUser]).unwrap().with_anonymous();
    let guard = || ScopeLayer::new(scope("jobs:read")).unwrap();
    let inside = (basic.clone(), guard()).layer(Inner::new());
    let reply = send(&mut erase(inside), request(&[])).await;
    assert_eq!(reply.header("www-authenticate"), r#"Basic realm="api""#);
    let inside = (basic, CredentialLayer::new().with_anonymous(), guard()).layer(Inner::new());
    let reply = send(&mut erase(inside), request(&[])).await;
    assert_eq!(reply.header("www-authenticate"), r#"Bearer realm="api""#);
}

#[tokio::test]
async fn reads_a_websocket_subprotocol() {
    check(
        CredentialLayer::from_sources([CredentialSource::WebSocketProtocol("key.")]).unwrap(),
        vec![
            row("one", [(PROTOCOL, "key.tok")], presents("tok")),
            row("among others", [(PROTOCOL, "chat, key.tok, v2")], presents("tok")),
            row("on a separate line", [(PROTOCOL, "chat"), (PROTOCOL, "key.tok")], presents("tok")),
            row("none that matches", [(PROTOCOL, "chat")], Refused(Missing)),
            row("the prefix in another case", [(PROTOCOL, "KEY.tok")], Refused(Missing)),
            row("no offer", [(PROTOCOL, "")], Refused(Missing)),
            row("two", [(PROTOCOL, "key.tok, key.other")], Refused(Repeated)),
            row("two equal ones", [(PROTOCOL, "key.tok, key.tok")], Refused(Repeated)),
            row("two on two lines", [(PROTOCOL, "key.tok"), (PROTOCOL, "key.other")], Refused(Repeated)),
            row("empty", [(PROTOCOL, "key.")], Refused(Empty)),
            row("empty, then another", [(PROTOCOL, "key., key.tok")], Refused(Repeated)),
            row("a space within", [(PROTOCOL, "key.to k")], Refused(Malformed)),
        ],
    )
    .await;
}

#[tokio::test]
async fn reads_a_query_parameter() {
    let layer = CredentialLayer::from_sources([CredentialSource::DangerousQuery("key")]).unwrap();
    for (query, expected) in [
        ("", Refused(Missing)),
        ("?", Refused(Missing)),
        ("?key=tok", presents("tok")),
        ("?a=b&key=tok&c", presents("tok")),
        ("?key", Refused(Empty)),
        ("?key=", Refused(Empty)),
        ("?keys=tok", Refused(Missing)),
        ("?KEY=tok", Refused(Missing)),
        ("?key=tok=", presents("tok=")),
        ("?key=tok&key=other", Refused(Repeated)),
        ("?key=tok&key=tok", Refused(Repeated)),
        ("?key=tok&key", Refused(Repeated)),
        ("?key=a,b", Refused(Repeated)),
        // Percent-encoded, as a service behind this layer reads it.
        ("?k%65y=tok", presents("tok")),
        ("?%6b%65%79=t%6Fk", presents("tok")),
        ("?key=sk%5Flive", presents("sk_live")),
        ("?key=a+b%2Bc", presents("a+b+c")),
        ("?key=100%", presents("100%")),
        ("?key=%2574", presents("%74")),
        ("?key=tok&k%65y=tok", Refused(Repeated)),
        ("?k%65y", Refused(Empty)),
        ("?key=a%2Cb", Refused(Repeated)),
        ("?key=a%20b", Refused(Malformed)),
        ("?key=%C3%A9", Refused(Malformed)),
        ("?key=%00", Refused(Malformed)),
        ("?a=b%26key=tok", Refused(Missing)),
        ("?k%2565y=tok", Refused(Missing)),
    ] {
        let request = || Request::get(format!("/jobs{query}")).body(String::new()).unwrap();
        assert_eq!(judge(&layer, request()).await.0, expected, "{query}");
        let expected = if expected == Refused(Missing) { Verdict::Anonymous } else { expected };
        assert_eq!(
            judge(&layer.clone().with_anonymous(), request()).await.0,
            expected,
            "{query}, in optional mode"
        );
    }
}

#[tokio::test]
async fn refuses_invalid_bytes_and_lengths() {
    let mut rows = Vec::new();
    for (header, prefix) in [(AUTHORIZATION, "Bearer "), (KEY, "")] {
        let value = |rest: &[u8]| [prefix.as_bytes(), rest].concat();
        rows.push(Row("4096 bytes", vec![(header, value(&[b'x'; 4096]))], presents(&"x".repeat(4096))));
        rows.push(Row("4097 bytes", vec![(header, value(&[b'x'; 4097]))], Refused(Malformed)));
        rows.push(Row("obs-text", vec![(header, value(b"caf\xe9"))], Refused(Malformed)));
        rows.push(Row("UTF-8", vec![(header, value("café".as_bytes()))], Refused(Malformed)));
        rows.push(Row("only obs-text", vec![(header, value(b"\xff"))], Refused(Malformed)));
        rows.push(Row("a tab", vec![(header, value(b"to\tk"))], Refused(Malformed)));
    }
    check(CredentialLayer::new(), rows).await;

    let short = CredentialLayer::new().with_max_length(3);
    check(
        short,
        vec![
            row("the maximum length", [(KEY, "tok")], presents("tok")),
            row("one byte too long", [(KEY, "toke")], Refused(Malformed)),
        ],
    )
    .await;

    for control in (0_u8..0x20).chain([0x7f]).filter(|byte| *byte != b'\t') {
        assert!(
            HeaderValue::from_bytes(&[b'x', control]).is_err(),
            "`http` accepts no control character except the tab"
        );
    }
}

const ORIGIN: (&str, &str) = ("origin", "https://app.example.com");
const METHOD: (&str, &str) = ("access-control-request-method", "POST");

#[tokio::test]
async fn lets_only_cors_preflights_pass_without_a_credential() {
    let preflight = |headers: &[(&'static str, &str)], method: &str| {
        let mut request = request(&[]);
        *request.method_mut() = method.parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
        }
        request
    };
    let layer = CredentialLayer::new().dangerous_preflights();
    for (method, headers, expected) in [
        ("OPTIONS", &[ORIGIN, METHOD][..], Verdict::Preflight),
        ("OPTIONS", &[("origin", ""), METHOD], Refused(Missing)),
        ("OPTIONS", &[ORIGIN, ("access-control-request-method", "")], Refused(Missing)),
        ("OPTIONS", &[ORIGIN], Refused(Missing)),
        ("OPTIONS", &[METHOD], Refused(Missing)),
        ("OPTIONS", &[], Refused(Missing)),
        ("GET", &[ORIGIN, METHOD], Refused(Missing)),
        ("HEAD", &[ORIGIN, METHOD], Refused(Missing)),
        ("OPTIONS", &[ORIGIN, METHOD, (KEY, "tok")], presents("tok")),
        ("OPTIONS", &[ORIGIN, METHOD, (KEY, "")], Refused(Empty)),
        ("OPTIONS", &[ORIGIN, METHOD, (AUTHORIZATION, "Digest x")], Refused(Malformed)),
    ] {
        assert_eq!(judge(&layer, preflight(headers, method)).await.0, expected, "{method} {headers:?}");
    }
    let strict = CredentialLayer::new();
    assert_eq!(judge(&strict, preflight(&[ORIGIN, METHOD], "OPTIONS")).await.0, Refused(Missing));
}

#[tokio::test]
async fn marks_headers_with_a_credential_as_sensitive() {
    let layer = CredentialLayer::from_sources([
        CredentialSource::Bearer,
        CredentialSource::Header(HeaderName::from_static(KEY)),
        CredentialSource::WebSocketProtocol("key."),
    ])
    .unwrap();
    let headers = [
        (AUTHORIZATION, "Bearer tok"),
        (KEY, "tok"),
        (PROTOCOL, "key.tok"),
        (PROTOCOL, "chat"),
        ("accept", "*/*"),
    ];
    let inner = Inner::new();
    send(
        &mut stack(&layer, &inner),
        request(&headers.map(|(name, value)| (name, value.as_bytes().to_vec()))),
    )
    .await;
    let inside = inner.take_last();
    for (name, value) in inside.headers() {
        assert_eq!(value.is_sensitive(), name != "accept", "{name}");
    }
    assert!(!format!("{inside:?}").contains("tok"), "{inside:?}");
    let context = RequestContext::of(inside.extensions()).unwrap();
    assert_eq!(
        context.credential().map(Credential::source),
        Some(&CredentialSource::Bearer),
        "the first source is recorded"
    );
}

#[tokio::test]
async fn removal_also_removes_credentials_that_report_only_mode_lets_pass() {
    let layer = CredentialLayer::new().with_removal().with_report_only(&ReportOnly::new());
    let inner = Inner::new();
    let conflicting = [(AUTHORIZATION, b"Bearer tok".to_vec()), (KEY, b"other".to_vec())];
    send(&mut stack(&layer, &inner), request(&conflicting)).await;
    assert!(inner.take_last().headers().is_empty());
}

#[tokio::test]
async fn removal_removes_every_credential_header() {
    let layer = CredentialLayer::new().with_removal();
    for headers in [
        vec![(AUTHORIZATION, "Bearer tok")],
        vec![(KEY, "tok")],
        vec![(AUTHORIZATION, "Bearer tok"), (KEY, "tok")],
    ] {
        let headers: Vec<_> = headers.into_iter().chain([("accept", "*/*")]).collect();
        let request = request(
            &headers.iter().map(|(name, value)| (*name, value.as_bytes().to_vec())).collect::<Vec<_>>(),
        );
        let inner = Inner::new();
        send(&mut stack(&layer, &inner), request).await;
        let inside = inner.take_last();
        let names: Vec<_> = inside.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["accept"]);
        let context = RequestContext::of(inside.extensions()).unwrap();
        assert_eq!(context.credential().map(Credential::expose_secret), Some("tok"));
    }
}
