//! Finds the credential that a caller presents: one, in one place.
//!
//! # What is refused
//!
//! | condition | status | challenge |
//! |---|---|---|
//! | no credential, in none of the sources | 401 | `Bearer realm=".."` |
//! | its place is there, with nothing in it | 401 | `Bearer realm=".."` |
//! | another scheme than the configured ones, over-long, not ASCII, not a token | 401 | `.. error="invalid_token"` |
//! | the same header twice, or values joined by a comma | 400 | `.. error="invalid_request"` |
//! | different credentials in two places | 400 | `.. error="invalid_request"` |
//!
//! The same credential in two places is one credential. In [optional mode](CredentialLayer::optional) a request without any
//! credential passes as anonymous; everything else in the table is refused all the same.
//!
//! # Where it stands
//!
//! Inside `RequestIdLayer`, outside `VerifyLayer`, which verifies what this layer found.
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
//! For browsers and for callers that know Basic authentication, a public API that serves strangers, too:
//!
//! ```
//! use tollgate::{CredentialLayer, verify::CredentialSource};
//!
//! let layer = CredentialLayer::from_sources([
//!     CredentialSource::Bearer,
//!     CredentialSource::BasicUser,
//!     CredentialSource::WebSocketProtocol("key."),
//! ])
//! .optional()
//! .with_max_length(128);
//! ```
//!
//! # Security
//!
//! - A bad credential is never anonymous, and never falls through to the next source.
//! - Every value that holds a credential is marked sensitive in the request, also where it is refused.
//! - Shared caches keep no response to `Authorization` unless it says that they may (RFC 9111 section 3.5); one with a
//!   `Cache-Control` gets `Vary: authorization`. They know nothing of credentials from anywhere else: responses to those get
//!   `Cache-Control: private, no-store`, unless they say `private` or `no-store` already, and `Vary` on the header.
//! - CORS preflights cannot carry credentials, and are refused unless a CORS layer further out answers them, which is the
//!   better place; or see [`dangerous_preflights`](CredentialLayer::dangerous_preflights).

use http::{
    HeaderValue, Method,
    header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, ORIGIN},
};
use tollgate_core::{
    denial::{Denial, DenialKind},
    request::RequestHead,
    verify::{Credential, CredentialSource},
};

use crate::{
    ConfigurationError, RequestContext,
    engine::{Asked, Caching, Entrant, Gate, Learned, ResponseParts, Settings, Standing, impl_layer},
};

mod read;

use read::{Sources, read};

/// Finds the credential that a caller presents. See the [module](self).
#[derive(Clone, Debug)]
pub struct CredentialLayer {
    pub(crate) gate: CredentialGate,
    settings: Settings,
}

impl CredentialLayer {
    /// Reads `Authorization: Bearer` and `X-API-Key`.
    pub fn new() -> Self {
        let key_header = http::HeaderName::from_static("x-api-key");
        Self::from_sources([CredentialSource::Bearer, CredentialSource::Header(key_header)])
    }

    /// Reads these places, in this order. Where two of them agree, the first one counts as the credential's source.
    pub fn from_sources(sources: impl IntoIterator<Item = CredentialSource>) -> Self {
        let gate = CredentialGate {
            sources: Sources::new(sources),
            max_length: 4096,
            is_optional: false,
            passes_preflights: false,
            is_removed: false,
        };
        Self { gate, settings: Settings::default() }
    }

    /// Lets a request without any credential through as anonymous. One with a bad credential is refused all the same.
    pub fn optional(mut self) -> Self {
        self.gate.is_optional = true;
        self
    }

    /// Refuses credentials longer than this, in bytes, before anything is computed over them. Default: 4096, which
    /// leaves room for JWTs.
    pub fn with_max_length(mut self, bytes: usize) -> Self {
        self.gate.max_length = bytes;
        self
    }

    /// Lets CORS preflights pass, which cannot carry a credential: `OPTIONS` with `Origin` and
    /// `Access-Control-Request-Method`. They reach what is inside without a principal, past all guards and limits.
    ///
    /// Only where a CORS layer further in answers **every** such request: a service that does not look at the method, such as
    /// tonic's or an axum `any` route, would take them for real ones. Better put the CORS layer outside.
    pub fn dangerous_preflights(mut self) -> Self {
        self.gate.passes_preflights = true;
        self
    }

    /// Takes whatever stands in the credential's places out of the request, so that nothing inside, such as a proxied
    /// upstream, sees it. The layers further in find the credential in the [`RequestContext`]; a second `CredentialLayer` does not.
    pub fn with_removal(mut self) -> Self {
        self.gate.is_removed = true;
        self
    }
}

impl Default for CredentialLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl_layer!(CredentialLayer, Credential);

#[derive(Clone, Debug)]
pub(crate) struct CredentialGate {
    sources: Sources,
    max_length: usize,
    pub(crate) is_optional: bool,
    passes_preflights: bool,
    is_removed: bool,
}

impl CredentialGate {
    fn decide(&self, entrant: &mut impl Entrant) -> Result<Learned, Denial> {
        let found = read(&self.sources, entrant, self.max_length);
        // Also where the reading is refused: in report-only mode the request goes on.
        if self.is_removed {
            self.sources.remove_from(entrant);
        }
        if let Some(credential) = found? {
            return Ok(Learned::Credential(credential));
        }
        if self.passes_preflights && is_preflight(entrant.head()) {
            return Ok(Learned::Preflight);
        }
        if self.is_optional {
            return Ok(Learned::Anonymous);
        }
        Err(Denial::new(DenialKind::CredentialMissing))
    }
}

impl Gate for CredentialGate {
    fn layer(&self) -> &'static str {
        "CredentialLayer"
    }

    fn configuration_error(&self) -> Option<ConfigurationError> {
        let error =
            || ConfigurationError::new("CredentialLayer has no source to read a credential from: add one");
        self.sources.is_empty().then(error)
    }

    fn identifies(&self) -> bool {
        true
    }

    #[inline(always)]
    fn ask(&self, entrant: &mut impl Entrant) -> Asked {
        let decided = self.decide(entrant);
        Asked::Answered(decided.map(|learned| entrant.context_mut().learn(learned)))
    }

    /// All was said when it was asked.
    fn judge(&self, _context: &RequestContext) -> Result<(), Denial> {
        Ok(())
    }

    fn stamps(&self) -> bool {
        true
    }

    #[inline]
    fn stamp(&self, context: &mut RequestContext, stamp: &mut ResponseParts) {
        stamp.caching = match context.credential().map(Credential::source) {
            Some(source) if source.header() == Some(&AUTHORIZATION) => Caching::Authorized,
            Some(source) => Caching::Private(self.sources.vary_on(source)),
            None if context.standing() == Standing::Anonymous => Caching::Stranger(self.sources.vary()),
            None => Caching::Free,
        };
    }
}

/// Whether a browser asks what it may send (Fetch standard, "CORS-preflight request").
fn is_preflight(head: RequestHead<'_>) -> bool {
    let is_method = |value: &HeaderValue| Method::from_bytes(value.as_bytes()).is_ok();
    *head.method == Method::OPTIONS
        && head.headers.get(ORIGIN).is_some_and(|origin| !origin.is_empty())
        && head.headers.get(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(is_method)
}
