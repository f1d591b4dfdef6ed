//! The metadata of an OAuth protected resource, as a route.

use axum::{
    Router,
    body::Bytes,
    http::{
        StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONTENT_TYPE,
        },
    },
    routing::get,
};
use tollgate::oauth::ProtectedResource;

/// The metadata of a [`ProtectedResource`] (RFC 9728) as a route, at its [path](ProtectedResource::metadata_path).
///
/// Merge it into a router **outside** the layers: a client reads it because it has no credential yet.
///
/// ```
/// use axum::{Router, routing::post};
/// use tollgate::{KeyFormat, KeyVerifier, MemoryKeys, Tollgate, oauth::ProtectedResource};
/// use tollgate_axum::protected_resource;
///
/// let resource = ProtectedResource::new("https://api.example.com/mcp", ["https://auth.example.com"])?;
/// let tollgate = Tollgate::builder()
///     .verify(KeyVerifier::new(KeyFormat::new("sk")?, MemoryKeys::new())) // usually a verifier of tokens
///     .protected_resource(&resource)
///     .build()?;
/// let app: Router = Router::new()
///     .route("/mcp", post(async || "{}"))
///     .layer(tollgate)
///     .merge(protected_resource(&resource));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It answers GET, HEAD, and CORS preflights. The document is public: pages of any origin may read it, and caches keep it for one
/// hour. So a client learns of a new authorization server after an hour at most. The router must see whole paths: do not nest it.
pub fn protected_resource<S: Clone + Send + Sync + 'static>(resource: &ProtectedResource) -> Router<S> {
    let document = Bytes::from(resource.to_json());
    let read = move || async move {
        let headers = [
            (CONTENT_TYPE, "application/json"),
            (CACHE_CONTROL, "public, max-age=3600"),
            (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        ];
        (headers, document)
    };
    // Clients in browsers send headers such as `MCP-Protocol-Version`, which need a preflight.
    let preflight = async || {
        let headers = [
            (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
            (ACCESS_CONTROL_ALLOW_HEADERS, "*"),
            (ACCESS_CONTROL_MAX_AGE, "3600"),
        ];
        (StatusCode::NO_CONTENT, headers)
    };
    Router::new().route(resource.metadata_path(), get(read).options(preflight))
}
