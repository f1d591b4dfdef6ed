//! Finds the one credential that a caller presents.
//!
//! # What is refused
//!
//! | condition | status | challenge |
//! |---|---|---|
//! | no credential, in none of the sources | 401 | `Bearer realm=".."` |
//! | an empty credential | 401 | `Bearer realm=".."` |
//! | another scheme than the configured ones, over-long, not ASCII, not a token | 401 | `.. error="invalid_token"` |
//! | the same header twice, or values joined by a comma | 400 | `.. error="invalid_request"` |
//! | different credentials in two places | 400 | `.. error="invalid_request"` |
//!
//! A 401 offers a challenge for each configured scheme, in the order of the sources: `Bearer`, `Basic realm=".."`,
//! `Token realm=".."`. curl, wget and browsers send a Basic credential only after such a challenge, and browsers ask their user
//! for it. Without a source in `Authorization`, the challenge is `Bearer`.
//!
//! A request for one of the [public routes](CredentialLayer::with_public) is never refused.
//!
//! The same credential in two places is one credential. [With anonymous callers](CredentialLayer::with_anonymous) a request
//! without any credential passes; everything else in the table is refused all the same.
//!
//! # Where it stands
//!
//! Inside `RequestIdLayer`, outside `VerifyLayer`, which verifies the credential.
//!
//! # Examples
//!
//! `Authorization: Bearer` and `X-API-Key`, in this order:
//!
//! ```
//! use tollgate::CredentialLayer;
//!
//! let layer = CredentialLayer::new();
//! ```
//!
//! Keys in forms that other services use: `Authorization: Token <key>`, and `https://any-user:<key>@api.example.com/`:
//!
//! ```
//! use tollgate::{CredentialLayer, verify::CredentialSource};
//!
//! let layer = CredentialLayer::from_sources([
//!     CredentialSource::Scheme("Token"),
//!     CredentialSource::BasicPassword { user: None },
//! ])?;
//! # Ok::<(), tollgate::ConfigurationError>(())
//! ```
//!
//! A public API that also accepts anonymous callers, the `WebSocket` API of browsers, and Basic authentication:
//!
//! ```
//! use tollgate::{CredentialLayer, verify::CredentialSource};
//!
//! let layer = CredentialLayer::from_sources([
//!     CredentialSource::Bearer,
//!     CredentialSource::BasicUser,
//!     CredentialSource::WebSocketProtocol("key."),
//! ])?
//! .with_anonymous()
//! .with_max_length(128);
//! # Ok::<(), tollgate::ConfigurationError>(())
//! ```
//!
//! # Security
//!
//! - A bad credential is never anonymous, and never falls through to the next source.
//! - Every value that holds a credential is marked sensitive in the request, also where the request is refused.
//! - Shared caches store no response to `Authorization` unless the response permits it (RFC 9111 section 3.5); one with a
//!   `Cache-Control` gets `Vary: authorization`. They do not recognise credentials in other places: responses to those get
//!   `private` beside their `max-age` or `no-cache`, or else `private, no-store`, and `Vary` on the header.
//! - CORS preflights cannot carry credentials. Put a CORS layer outside, which answers them; without one they are refused. See
//!   also [`dangerous_preflights`](CredentialLayer::dangerous_preflights).

use http::{
    Extensions, HeaderName, HeaderValue, Method, Uri,
    header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, ORIGIN},
};
use tollgate_core::{
    denial::{Denial, DenialKind},
    request::RequestHead,
    verify::{Credential, CredentialSource},
};

use crate::{
    ConfigurationError,
    engine::{Caching, Caller, Cx, Flow, Settings, impl_layer},
};

mod public_routes;
mod read;
mod sources;

pub(crate) use public_routes::CompiledRoutes;
pub use public_routes::PublicRoutes;

use sources::{Sources, UriCopy, error_of};

/// Finds the credential that a caller presents. See the [module](self).
///
/// ```
/// use tollgate::{CredentialLayer, verify::CredentialSource};
///
/// let default = CredentialLayer::new(); // `Authorization: Bearer` and `X-API-Key`
/// let custom = CredentialLayer::from_sources([CredentialSource::Bearer, CredentialSource::BasicUser])?.with_anonymous();
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CredentialLayer {
    pub(crate) gate: CredentialGate,
    settings: Settings,
}

impl CredentialLayer {
    /// Reads `Authorization: Bearer` and `X-API-Key`.
    pub fn new() -> Self {
        let key_header = CredentialSource::Header(HeaderName::from_static("x-api-key"));
        Self::reading(vec![CredentialSource::Bearer, key_header])
    }

    /// Reads these places, in this order. If two of them hold the same credential, the first one counts as its source.
    ///
    /// # Errors
    /// If there is no source, or one in which no request can have a credential.
    pub fn from_sources(
        sources: impl IntoIterator<Item = CredentialSource>,
    ) -> Result<Self, ConfigurationError> {
        let sources: Vec<_> = sources.into_iter().collect();
        if sources.is_empty() {
            return Err(ConfigurationError::new(
                "CredentialLayer has no source to read a credential from: add one",
            ));
        }
        match sources.iter().find_map(error_of) {
            Some(error) => Err(ConfigurationError::new(format!("CredentialLayer: {error}"))),
            None => Ok(Self::reading(sources)),
        }
    }

    fn reading(sources: Vec<CredentialSource>) -> Self {
        let gate = CredentialGate {
            sources: Sources::new(sources),
            max_length: 4096,
            accepts_anonymous: false,
            passes_preflights: false,
            public: None,
            is_removed: false,
            uri_copies: Vec::new(),
        };
        Self { gate, settings: Settings::default() }
    }

    /// Lets a request without any credential pass as anonymous. One with a bad credential is refused all the same.
    pub fn with_anonymous(mut self) -> Self {
        self.gate.accepts_anonymous = true;
        self
    }

    /// Refuses credentials longer than this, in bytes, before anything is computed over them. Default: 4096, which
    /// leaves room for most JWTs. The verifier of `tollgate-jwt` accepts up to 16 KiB: for longer tokens, raise this as well.
    pub fn with_max_length(mut self, bytes: usize) -> Self {
        self.gate.max_length = bytes;
        self
    }

    /// Removes credentials from the request, so that no inner service, such as a proxied upstream, sees them. Inner layers find
    /// the credential in the [`RequestContext`](crate::RequestContext); a second `CredentialLayer` does not.
    ///
    /// A host may keep a copy of the request's target, which contains a credential in the query as well: see
    /// [`with_removal_from`](Self::with_removal_from).
    pub fn with_removal(mut self) -> Self {
        self.gate.is_removed = true;
        self
    }

    /// Removes credentials as [`with_removal`](Self::with_removal) does, and those in the query also from a copy of the request's
    /// target that the host keeps in the request's extensions. `copy` finds it there.
    ///
    /// axum's `Router` keeps such a copy, `OriginalUri`, for each layer that is added with `Router::layer`:
    /// `tollgate_axum::original_uri` finds it. No copy exists yet for a layer around the whole router.
    ///
    /// ```
    /// use http::{Extensions, Uri};
    /// use tollgate::{CredentialLayer, verify::CredentialSource};
    ///
    /// /// The copy that an outer layer of the application keeps.
    /// #[derive(Clone)]
    /// struct PublicUri(Uri);
    ///
    /// fn public_uri(extensions: &mut Extensions) -> Option<&mut Uri> {
    ///     extensions.get_mut::<PublicUri>().map(|uri| &mut uri.0)
    /// }
    ///
    /// let sources = [CredentialSource::Bearer, CredentialSource::DangerousQuery("key")];
    /// let layer = CredentialLayer::from_sources(sources)?.with_removal_from(public_uri);
    /// # Ok::<(), tollgate::ConfigurationError>(())
    /// ```
    pub fn with_removal_from(mut self, copy: fn(&mut Extensions) -> Option<&mut Uri>) -> Self {
        self.gate.is_removed = true;
        self.gate.uri_copies.push(copy);
        self
    }

    /// Lets requests for these routes pass, whatever credential they have or lack: see [`PublicRoutes`]. For a stack there is
    /// [`TollgateBuilder::public`](crate::layers::TollgateBuilder::public).
    ///
    /// ```
    /// use tollgate::{CredentialLayer, verify::PublicRoutes};
    ///
    /// let layer = CredentialLayer::new().with_public(PublicRoutes::new().get("/health"))?;
    /// # Ok::<(), tollgate::ConfigurationError>(())
    /// ```
    ///
    /// # Errors
    /// If a path pattern is malformed or conflicts with another, or a route is listed twice.
    pub fn with_public(mut self, routes: PublicRoutes) -> Result<Self, ConfigurationError> {
        self.gate.public = routes.compile()?;
        Ok(self)
    }

    /// Lets CORS preflights pass, which cannot carry a credential: `OPTIONS` with `Origin` and
    /// `Access-Control-Request-Method`. They reach the inner service without a principal, past all guards and limits.
    ///
    /// Only where a CORS layer further in answers **every** such request: a service that ignores the method, such as
    /// tonic's or an axum `any` route, would treat them as real requests. A CORS layer outside is the better choice.
    pub fn dangerous_preflights(mut self) -> Self {
        self.gate.passes_preflights = true;
        self
    }
}

impl Default for CredentialLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl_layer!(CredentialLayer, Credential);

pub(crate) const LAYER: &str = "CredentialLayer";

#[derive(Clone, Debug)]
pub(crate) struct CredentialGate {
    sources: Sources,
    max_length: usize,
    pub(crate) accepts_anonymous: bool,
    passes_preflights: bool,
    pub(crate) public: Option<CompiledRoutes>,
    is_removed: bool,
    uri_copies: Vec<UriCopy>,
}

impl CredentialGate {
    #[inline]
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        cx.context.schemes = self.sources.schemes();
        // The words of an outer stack's verifier are not for the credential that is read here.
        cx.context.refusal_text = None;
        if let Some(public) = &self.public
            && public.contain(cx.head())
        {
            self.exempt(cx);
            return Ok(Flow::Continue);
        }
        let found = self.sources.read(cx, self.max_length);
        // Also where reading fails: in report-only mode the request goes on.
        if self.is_removed {
            self.sources.remove_from(cx, &self.uri_copies);
        }
        let found = found?;
        let (caller, caching) = match &found {
            Some(credential) => (Caller::Presented, self.caching_of(credential)),
            None => self.without_credential(cx.head())?,
        };
        cx.context.parts.caching = caching;
        cx.context.set_caller(caller, found);
        Ok(Flow::Continue)
    }

    /// Lets a request for a public route pass. What its caller presented is not read, because nothing will verify it.
    #[cold]
    fn exempt<B>(&self, cx: &mut Cx<'_, B>) {
        self.sources.mark_sensitive(cx.headers_mut());
        if self.is_removed {
            self.sources.remove_from(cx, &self.uri_copies);
        }
        cx.context.parts.caching = Caching::Free;
        cx.context.set_caller(Caller::Exempt, None);
    }

    #[cold]
    fn without_credential(&self, head: RequestHead<'_>) -> Result<(Caller, Caching), Denial> {
        if self.passes_preflights && is_preflight(head) {
            Ok((Caller::Exempt, Caching::Free))
        } else if self.accepts_anonymous {
            Ok((Caller::Anonymous, Caching::Anonymous(self.sources.vary())))
        } else {
            Err(Denial::new(DenialKind::CredentialMissing))
        }
    }

    #[inline]
    fn caching_of(&self, credential: &Credential) -> Caching {
        let source = credential.source();
        if source.header() == Some(&AUTHORIZATION) {
            Caching::Authorized
        } else {
            Caching::Private(self.sources.vary_on(source))
        }
    }
}

/// Whether a request is a CORS preflight (Fetch standard, "CORS-preflight request").
fn is_preflight(head: RequestHead<'_>) -> bool {
    let is_method = |value: &HeaderValue| Method::from_bytes(value.as_bytes()).is_ok();
    *head.method == Method::OPTIONS
        && head.headers.get(ORIGIN).is_some_and(|origin| !origin.is_empty())
        && head.headers.get(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(is_method)
}
