//! The copy of a request's target that axum keeps.

use axum::extract::OriginalUri;
use http::{Extensions, Uri};

/// The target of the request as axum's `Router` keeps it for the extractor `OriginalUri`, for
/// [`CredentialLayer::with_removal_from`](tollgate::CredentialLayer::with_removal_from). `None` outside a `Router`.
///
/// A `Router` makes this copy before it calls the layers that are added with `Router::layer`. A key in the query is in both, and the
/// layer removes it from both:
///
/// ```
/// use axum::{Router, extract::OriginalUri, routing::get};
/// use tollgate::{CredentialLayer, verify::CredentialSource};
/// use tollgate_axum::original_uri;
///
/// let sources = [CredentialSource::Bearer, CredentialSource::DangerousQuery("key")];
/// let credential = CredentialLayer::from_sources(sources)?.with_removal_from(original_uri);
/// let app: Router = Router::new()
///     .route("/jobs", get(async |OriginalUri(uri): OriginalUri| uri.to_string()))
///     .layer(credential);
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
pub fn original_uri(extensions: &mut Extensions) -> Option<&mut Uri> {
    extensions.get_mut::<OriginalUri>().map(|original| &mut original.0)
}
