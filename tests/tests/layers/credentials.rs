//! How `CredentialLayer` reads each source of credentials, row by row, and how it refuses.

mod model;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, Request};
use tests::suite::{Inner, Reply, Stack, erase, send};
use tollgate::{
    CredentialLayer, DenialKind, RequestContext,
    layers::ReportOnly,
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
