//! The places in a request's head where a credential may be.

use std::sync::Arc;

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, header::SEC_WEBSOCKET_PROTOCOL,
    uri::PathAndQuery,
};
use tollgate_core::{
    denial::Denial,
    verify::{Credential, CredentialSource},
};

use super::read::{Found, offers, parameter};
use crate::engine::{Cx, Schemes};

/// Where a host keeps a copy of the request's target.
pub(super) type UriCopy = fn(&mut Extensions) -> Option<&mut Uri>;

/// Why no request can have a credential in this source; `None` if one can.
pub(super) fn error_of(place: &CredentialSource) -> Option<String> {
    match place {
        CredentialSource::Scheme(name)
            if ["Bearer", "Basic"].iter().any(|known| known.eq_ignore_ascii_case(name)) =>
        {
            Some(format!(
                "the source of the scheme {name} is CredentialSource::Bearer, BasicUser or BasicPassword"
            ))
        }
        // A scheme is a token (RFC 9110 section 11.1), like a method.
        CredentialSource::Scheme(name) if Method::from_bytes(name.as_bytes()).is_err() => {
            Some(format!("\"{name}\" cannot be the name of an Authorization scheme: use one such as Token"))
        }
        CredentialSource::BasicPassword { user: Some(user) } if user.contains(':') => Some(format!(
            "the user name \"{user}\" of a Basic credential contains a colon, which ends it: use another one"
        )),
        _ => None,
    }
}

/// The places to read, in order, and what follows from them.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) places: Vec<CredentialSource>,
    // The headers among them, each once.
    headers: Vec<HeaderName>,
    // The same as one value of `Vary`; `None` if no source is a header.
    vary: Option<Arc<HeaderValue>>,
    // Each place's own header as a value of `Vary`.
    vary_by_place: Vec<Option<Arc<HeaderValue>>>,
    // The schemes that challenges offer, if they are not the default.
    schemes: Option<Arc<Schemes>>,
}

impl Sources {
    pub(super) fn new(places: Vec<CredentialSource>) -> Self {
        let mut headers: Vec<HeaderName> = Vec::new();
        for header in places.iter().filter_map(CredentialSource::header) {
            if !headers.contains(header) {
                headers.push(header.clone());
            }
        }
        let names: Vec<_> = headers.iter().map(HeaderName::as_str).collect();
        let vary = HeaderValue::try_from(names.join(", ")).ok().filter(|value| !value.is_empty());
        Self {
            schemes: Schemes::new(places.iter().filter_map(CredentialSource::scheme)),
            vary: vary.map(Arc::new),
            vary_by_place: places
                .iter()
                .map(|place| place.header().cloned().map(HeaderValue::from).map(Arc::new))
                .collect(),
            headers,
            places,
        }
    }

    /// The schemes that challenges offer; `None` for the default.
    #[inline]
    pub(super) fn schemes(&self) -> Option<Arc<Schemes>> {
        self.schemes.clone()
    }

    /// `Vary` for a response to an anonymous caller.
    pub(super) fn vary(&self) -> Option<Arc<HeaderValue>> {
        self.vary.clone()
    }

    /// `Vary` for a response to a caller whose credential was in this place.
    pub(super) fn vary_on(&self, source: &CredentialSource) -> Option<Arc<HeaderValue>> {
        let at = self.places.iter().position(|place| place == source)?;
        self.vary_by_place.get(at)?.clone()
    }

    /// The one credential that the request presents; `None` if it presents none. A denial if anything in these places is not
    /// one single, well-formed credential. Every value in these places is marked as sensitive.
    #[inline]
    pub(super) fn read<B>(
        &self,
        cx: &mut Cx<'_, B>,
        max_length: usize,
    ) -> Result<Option<Credential>, Denial> {
        let mut found = Found::new(max_length);
        for place in &self.places {
            if let Err(denial) = found.read(place, self, cx) {
                // The places behind it are not read any more.
                self.mark_sensitive(cx.headers_mut());
                return Err(denial);
            }
        }
        Ok(found.into_credential())
    }

    /// Marks every value in these places.
    #[cold]
    pub(super) fn mark_sensitive(&self, headers: &mut HeaderMap) {
        let lines = headers.iter_mut().filter(|(name, _)| self.headers.contains(name));
        lines.for_each(|(_, value)| value.set_sensitive(true));
    }

    /// Removes the values in these places from the request, and those in the query also from copies of the target.
    #[cold]
    pub(super) fn remove_from<B>(&self, cx: &mut Cx<'_, B>, uri_copies: &[UriCopy]) {
        for place in &self.places {
            match place {
                CredentialSource::WebSocketProtocol(prefix) => remove_offers(cx, prefix),
                CredentialSource::DangerousQuery(name) => {
                    remove_parameters(cx.uri_mut(), name);
                    for copy in uri_copies {
                        if let Some(uri) = copy(cx.extensions_mut()) {
                            remove_parameters(uri, name);
                        }
                    }
                }
                _ => {
                    place.header().map(|name| cx.headers_mut().remove(name));
                }
            }
        }
    }
}

/// Removes the offered subprotocols with this prefix. The others belong to the WebSocket handshake.
fn remove_offers<B>(cx: &mut Cx<'_, B>, prefix: &str) {
    let headers = cx.headers_mut();
    let others = offers(headers).filter(|offer| !offer.is_empty() && !offer.starts_with(prefix.as_bytes()));
    let kept: Vec<_> = others.map(<[u8]>::to_vec).collect();
    match HeaderValue::try_from(kept.join(&b", "[..])) {
        Ok(kept) if !kept.is_empty() => {
            let _ = headers.try_insert(SEC_WEBSOCKET_PROTOCOL, kept);
        }
        _ => {
            headers.remove(SEC_WEBSOCKET_PROTOCOL);
        }
    }
}

/// Removes the query parameters of this name.
fn remove_parameters(uri: &mut Uri, name: &str) {
    let Some(query) = uri.query() else { return };
    let kept: Vec<_> = query.split('&').filter(|pair| parameter(pair, name).is_none()).collect();
    let path = uri.path();
    let target = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    // Parts of a URI make a URI again. If they did not, an empty target would be better than one that shows the credential.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}
