//! OAuth protected resources: what a client of an MCP server does, over a real socket.

use axum::{Router, routing::post};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use serde_json::Value;
use tests::{
    hosts::{Connection, header, listen},
    suite::Directory,
};
use tollgate::{
    CredentialLayer, GuardLayer, Principal, RequestIdLayer, ScopeLayer, Scopes, Tollgate, VerifyLayer,
    guard::only_environment, oauth::ProtectedResource, scope, verify::CredentialSource,
};
use tollgate_axum::protected_resource;
use tower::ServiceBuilder;

const ISSUER: &str = "https://auth.example.com/realms/jobs";

fn people() -> Directory {
    let person = |scope| Principal::new("ada").with_scopes(Scopes::new([scope]).unwrap());
    Directory::default().with("reader", person("jobs:read")).with("writer", person("jobs:*"))
}

/// Serves `/mcp` behind a stack, and the metadata beside it. Returns the resource, and a connection.
async fn serve(guard: impl FnOnce(Router, &ProtectedResource) -> Router) -> (ProtectedResource, Connection) {
    let (listener, address) = listen().await;
    let resource = ProtectedResource::new(&format!("http://{address}/mcp"), [ISSUER]).unwrap();
    let resource = resource.with_scopes(["jobs:read", "jobs:create"]).unwrap();
    let resource = resource.with_needed_scopes(["jobs:read"]).unwrap();
    let app = guard(Router::new().route("/mcp", post(async || "{}")), &resource);
    let app = app.merge(protected_resource(&resource));
    tokio::spawn(axum::serve(listener, app).into_future());
    (resource, Connection::http1(address).await)
}

fn built(router: Router, resource: &ProtectedResource) -> Router {
    let builder = Tollgate::builder().verify(people()).scope(scope("jobs:create") & scope("jobs:read"));
    router.layer(builder.protected_resource(resource).build().unwrap())
}

/// The same layers, one by one: the outermost has the setting.
fn separate(router: Router, resource: &ProtectedResource) -> Router {
    router.layer(
        ServiceBuilder::new()
            .layer(RequestIdLayer::new().with_protected_resource(resource))
            .layer(CredentialLayer::new())
            .layer(VerifyLayer::new(people()))
            .layer(ScopeLayer::new(scope("jobs:create") & scope("jobs:read")).unwrap()),
    )
}

fn request(method: Method, path: &str, token: Option<&str>) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path);
    let request = match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    request.body(Full::default()).unwrap()
}

/// The parameter of a challenge, as a client reads it. None of the values of these tests has an escaped character.
fn parameter<'c>(challenge: &'c str, name: &str) -> Option<&'c str> {
    let (scheme, parameters) = challenge.split_once(' ').unwrap();
    assert_eq!(scheme, "Bearer");
    let value = parameters.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\""))?;
    value.strip_suffix('"')
}

fn challenge(response: &Response<Bytes>) -> &str {
    header(response.headers(), "www-authenticate")
}

#[tokio::test]
async fn a_client_finds_the_authorization_server_from_a_401() {
    for guard in [built, separate] {
        let (resource, mut client) = serve(guard).await;
        let refused = client.send(request(Method::POST, "/mcp", None)).await;
        assert_eq!(refused.status(), 401);
        assert_eq!(parameter(challenge(&refused), "error"), None);
        assert_eq!(parameter(challenge(&refused), "scope"), Some("jobs:read"));
        let url = parameter(challenge(&refused), "resource_metadata").unwrap().to_owned();
        assert_eq!(url, resource.metadata_url());

        let path = url.parse::<http::Uri>().unwrap().path().to_owned();
        assert_eq!(path, "/.well-known/oauth-protected-resource/mcp");
        let metadata = client.send(request(Method::GET, &path, None)).await;
        assert_eq!(metadata.status(), 200);
        assert_eq!(header(metadata.headers(), "content-type"), "application/json");
        let document: Value = serde_json::from_slice(metadata.body()).unwrap();
        assert_eq!(document["authorization_servers"], serde_json::json!([ISSUER]));
        assert_eq!(document["scopes_supported"], serde_json::json!(["jobs:read", "jobs:create"]));
        // RFC 9728 section 3.3: the resource is the URL that the client used.
        assert_eq!(document["resource"], url.replace("/.well-known/oauth-protected-resource", ""));

        // With a token of too few scopes, and then with one that is sufficient.
        let refused = client.send(request(Method::POST, "/mcp", Some("reader"))).await;
        assert_eq!(refused.status(), 403);
        assert_eq!(parameter(challenge(&refused), "error"), Some("insufficient_scope"));
        assert_eq!(parameter(challenge(&refused), "scope"), Some("jobs:create jobs:read"));
        assert_eq!(parameter(challenge(&refused), "resource_metadata"), Some(&*url));
        assert_eq!(client.send(request(Method::POST, "/mcp", Some("writer"))).await.status(), 200);

        let refused = client.send(request(Method::POST, "/mcp", Some("forged"))).await;
        assert_eq!(refused.status(), 401);
        assert_eq!(parameter(challenge(&refused), "error"), Some("invalid_token"));
        assert_eq!(parameter(challenge(&refused), "resource_metadata"), Some(&*url));
    }
}

#[tokio::test]
async fn the_metadata_is_public_for_pages_of_any_origin_and_for_caches() {
    let (resource, mut client) = serve(built).await;
    let path = resource.metadata_path();
    let is_public = |headers: &HeaderMap| {
        header(headers, "access-control-allow-origin") == "*"
            && header(headers, "cache-control") == "public, max-age=3600"
    };
    // Whatever credential a client sends with it.
    for token in [None, Some("forged"), Some("writer")] {
        let got = client.send(request(Method::GET, path, token)).await;
        assert!(got.status() == 200 && is_public(got.headers()), "{got:?}");
        let head = client.send(request(Method::HEAD, path, token)).await;
        assert!(head.status() == 200 && is_public(head.headers()) && head.body().is_empty());
        assert_eq!(header(head.headers(), "content-length"), got.body().len().to_string());
    }
    let mut preflight = request(Method::OPTIONS, path, None);
    for (name, value) in [
        ("origin", "https://inspector.example.com"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "mcp-protocol-version"),
    ] {
        preflight.headers_mut().insert(name, value.parse().unwrap());
    }
    let preflight = client.send(preflight).await;
    assert_eq!(preflight.status(), 204);
    assert_eq!(header(preflight.headers(), "access-control-allow-origin"), "*");
    assert_eq!(header(preflight.headers(), "access-control-allow-methods"), "GET, HEAD");
    assert_eq!(header(preflight.headers(), "access-control-allow-headers"), "*");
    assert_eq!(client.send(request(Method::POST, path, None)).await.status(), 405);
    // The metadata of another resource of this host is not here.
    let other = client.get("/.well-known/oauth-protected-resource", None).await;
    assert_eq!(other.status(), 404);
}

#[tokio::test]
async fn an_inner_layer_may_name_another_resource() {
    let (_, mut client) = serve(|router, resource| {
        let other = ProtectedResource::new("https://other.example.com", [ISSUER]).unwrap();
        let guard = GuardLayer::new(only_environment(tollgate::Environment::Live));
        built(router.layer(guard.with_protected_resource(&other)), resource)
    })
    .await;
    let outer = client.send(request(Method::POST, "/mcp", None)).await;
    assert!(challenge(&outer).contains("/mcp\""), "{outer:?}");
    let inner = client.send(request(Method::POST, "/mcp", Some("writer"))).await;
    let url = "https://other.example.com/.well-known/oauth-protected-resource";
    assert_eq!(parameter(challenge(&inner), "resource_metadata"), Some(url));
}

#[tokio::test]
async fn only_bearer_challenges_name_the_metadata() {
    let (_, mut client) = serve(|router, resource| {
        let sources = [CredentialSource::Scheme("Token"), CredentialSource::Bearer];
        let credential = CredentialLayer::from_sources(sources).unwrap();
        let builder = Tollgate::builder().credential(credential).verify(people());
        router.layer(builder.protected_resource(resource).build().unwrap())
    })
    .await;
    let refused = client.send(request(Method::POST, "/mcp", None)).await;
    let challenges: Vec<_> =
        refused.headers().get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(challenges.len(), 2);
    for challenge in challenges {
        assert_eq!(challenge.contains("resource_metadata"), challenge.starts_with("Bearer "), "{challenge}");
        assert_eq!(challenge.contains("scope"), challenge.starts_with("Bearer "), "{challenge}");
    }
}
