//! Reads a credential out of a request's head: a decision without state, clock or I/O.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
    uri::PathAndQuery,
};
use tollgate_core::{
    denial::{Denial, DenialKind},
    verify::{Credential, CredentialSource},
};
use zeroize::Zeroizing;

use crate::engine::{Entrant, Repeated, single_mut};

/// The places to read, in order, and what follows from them.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    places: Vec<CredentialSource>,
    // The headers among them, each once.
    headers: Vec<HeaderName>,
    // The same as one value of `Vary`; `None` if no source is a header.
    vary: Option<Arc<HeaderValue>>,
    // Each place's own header as a value of `Vary`.
    vary_by_place: Vec<Option<Arc<HeaderValue>>>,
    accepts_bearer: bool,
    accepts_basic: bool,
}

impl Sources {
    pub(super) fn new(places: impl IntoIterator<Item = CredentialSource>) -> Self {
        let places: Vec<_> = places.into_iter().collect();
        let mut headers: Vec<HeaderName> = Vec::new();
        for header in places.iter().filter_map(CredentialSource::header) {
            if !headers.contains(header) {
                headers.push(header.clone());
            }
        }
        let names: Vec<_> = headers.iter().map(HeaderName::as_str).collect();
        let vary = HeaderValue::try_from(names.join(", ")).ok().filter(|value| !value.is_empty());
        Self {
            accepts_bearer: places.contains(&CredentialSource::Bearer),
            accepts_basic: places.contains(&CredentialSource::BasicUser),
            vary: vary.map(Arc::new),
            vary_by_place: places
                .iter()
                .map(|place| place.header().cloned().map(HeaderValue::from).map(Arc::new))
                .collect(),
            headers,
            places,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What a response to nobody's request varies on.
    pub(super) fn vary(&self) -> Option<Arc<HeaderValue>> {
        self.vary.clone()
    }

    /// What a response varies on whose request had its credential in this place.
    pub(super) fn vary_on(&self, source: &CredentialSource) -> Option<Arc<HeaderValue>> {
        let at = self.places.iter().position(|place| place == source)?;
        self.vary_by_place.get(at)?.clone()
    }

    /// Marks whatever stands in these places.
    fn mark_sensitive(&self, headers: &mut HeaderMap) {
        let lines = headers.iter_mut().filter(|(name, _)| self.headers.contains(name));
        lines.for_each(|(_, value)| value.set_sensitive(true));
    }

    /// Takes whatever stands in these places out of the request.
    pub(super) fn remove_from(&self, entrant: &mut impl Entrant) {
        for place in &self.places {
            match place {
                // The other offers belong to the WebSocket handshake.
                CredentialSource::WebSocketProtocol(prefix) => remove_offers(entrant.headers_mut(), prefix),
                CredentialSource::DangerousQuery(name) => remove_parameters(entrant.uri_mut(), name),
                _ => {
                    place.header().map(|name| entrant.headers_mut().remove(name));
                }
            }
        }
    }
}

/// The one credential that the request presents; `None` if it presents none; a denial if there is anything in a
/// credential's place that is not one single, well-formed credential. Whatever stands in these places is marked as sensitive.
pub(super) fn read(
    sources: &Sources,
    entrant: &mut impl Entrant,
    max_length: usize,
) -> Result<Option<Credential>, Denial> {
    let mut found = Found { credential: None, max_length };
    for source in &sources.places {
        if let Err(denial) = read_one(source, sources, entrant, &mut found) {
            // What was not looked at is not marked yet.
            sources.mark_sensitive(entrant.headers_mut());
            return Err(denial);
        }
    }
    Ok(found.credential)
}

/// What was found so far.
struct Found {
    credential: Option<Credential>,
    max_length: usize,
}

impl Found {
    /// Adds the credential that `value` holds from byte `start` on. The same one in two places is one.
    fn add(&mut self, value: &HeaderValue, start: usize, source: &CredentialSource) -> Result<(), Denial> {
        let length = value.len().saturating_sub(start);
        if length == 0 {
            return Err(Denial::new(DenialKind::CredentialEmpty));
        }
        if length > self.max_length {
            return Err(malformed("longer than the maximum length of a credential"));
        }
        match &self.credential {
            None => self.credential = Some(Credential::new(value.clone(), start, source.clone())),
            Some(first) if Some(first.expose_secret_bytes()) == value.as_bytes().get(start..) => {}
            Some(_) => return Err(Denial::new(DenialKind::CredentialConflicting)),
        }
        Ok(())
    }

    /// Adds the credential that is part of a longer value: copied out of it, since a header value cannot be cut.
    fn add_part<'v>(
        &mut self,
        mut values: impl Iterator<Item = &'v [u8]>,
        source: &CredentialSource,
    ) -> Result<(), Denial> {
        let Some(bytes) = values.next() else { return Ok(()) };
        if values.next().is_some() {
            return Err(Denial::new(DenialKind::CredentialRepeated));
        }
        check_token(bytes, is_visible)?;
        let value = HeaderValue::from_bytes(bytes).map_err(|_| malformed("not a header value"))?;
        self.add(&value, 0, source)
    }
}

/// Reads one place.
fn read_one(
    source: &CredentialSource,
    sources: &Sources,
    entrant: &mut impl Entrant,
    found: &mut Found,
) -> Result<(), Denial> {
    match source {
        CredentialSource::Bearer | CredentialSource::BasicUser => {
            let Some(value) = sensitive(entrant.headers_mut(), &AUTHORIZATION)? else { return Ok(()) };
            match usual_bearer(value).filter(|_| *source == CredentialSource::Bearer) {
                Some(token) => {
                    check_token(token, is_token68)?;
                    found.add(value, BEARER.len(), source)
                }
                None => read_authorization(source, sources, value, found),
            }
        }
        CredentialSource::Header(name) => match sensitive(entrant.headers_mut(), name)? {
            Some(value) => {
                check_token(value.as_bytes(), is_visible)?;
                found.add(value, 0, source)
            }
            None => Ok(()),
        },
        CredentialSource::WebSocketProtocol(prefix) => {
            sources.mark_sensitive(entrant.headers_mut());
            let offers = offers(entrant.head().headers);
            found.add_part(offers.filter_map(|offer| offer.strip_prefix(prefix.as_bytes())), source)
        }
        CredentialSource::DangerousQuery(name) => {
            let pairs = entrant.head().uri.query().unwrap_or_default().split('&');
            found.add_part(pairs.filter_map(|pair| parameter(pair, name)).map(str::as_bytes), source)
        }
        _ => Err(Denial::misconfigured(format!("CredentialLayer cannot read the source {source:?}"))),
    }
}

/// The header that holds a credential, marked as sensitive. `Authorization` is not a list (RFC 9110 section 11.6.2), and
/// neither are the headers that keys travel in: two lines are an error, never "the first one wins".
fn sensitive<'h>(headers: &'h mut HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, Denial> {
    let value = single_mut(headers, name).map_err(|Repeated| Denial::new(DenialKind::CredentialRepeated))?;
    Ok(value.map(|value| {
        value.set_sensitive(true);
        &*value
    }))
}

/// The WebSocket subprotocols on offer: one list over all lines (RFC 6455 section 11.3.4).
fn offers(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// The value of a query's pair, if the pair has this name; as it was sent, without decoding.
fn parameter<'p>(pair: &'p str, name: &str) -> Option<&'p str> {
    let (own, value) = pair.split_once('=').unwrap_or((pair, ""));
    (own == name).then_some(value)
}

/// The token of an `Authorization` header as nearly everybody writes it: one space, and something behind it.
fn usual_bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(BEARER.len())?;
    let is_usual = scheme.eq_ignore_ascii_case(BEARER) && token.first().is_some_and(|first| *first != b' ');
    is_usual.then_some(token)
}

const BEARER: &[u8] = b"bearer ";

/// Reads an `Authorization` header, if its scheme is the source's, or else that of another configured source. Any other scheme
/// is malformed: a request that means to authenticate is never anonymous.
#[cold]
fn read_authorization(
    source: &CredentialSource,
    sources: &Sources,
    value: &HeaderValue,
    found: &mut Found,
) -> Result<(), Denial> {
    let bytes = value.as_bytes();
    let scheme_end = bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
    let (scheme, rest) = bytes.split_at(scheme_end);
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    let (start, credentials) = (scheme_end + spaces, rest.get(spaces..).unwrap_or_default());

    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer") && sources.accepts_bearer;
    let is_basic = scheme.eq_ignore_ascii_case(b"basic") && sources.accepts_basic;
    match source {
        _ if scheme.is_empty() => Err(Denial::new(DenialKind::CredentialEmpty)),
        CredentialSource::Bearer if is_bearer => {
            check_token(credentials, is_token68)?;
            found.add(value, start, source)
        }
        CredentialSource::BasicUser if is_basic => {
            check_token(credentials, is_token68)?;
            let decoded =
                Zeroizing::new(STANDARD.decode(credentials).map_err(|_| malformed("Basic, but not Base64"))?);
            match decoded.strip_suffix(b":") {
                // The first colon ends the user name (RFC 7617 section 2): with another one there is a password.
                Some(user) if !user.contains(&b':') => found.add_part([user].into_iter(), source),
                _ if decoded.is_empty() => Err(Denial::new(DenialKind::CredentialEmpty)),
                _ => Err(malformed("Basic, but not a key as user name with an empty password")),
            }
        }
        _ if is_bearer || is_basic => Ok(()),
        _ => Err(malformed("an Authorization scheme that is not configured")),
    }
}

fn remove_offers(headers: &mut HeaderMap, prefix: &str) {
    let kept: Vec<_> =
        offers(headers).filter(|offer| !offer.starts_with(prefix.as_bytes())).map(<[u8]>::to_vec).collect();
    match HeaderValue::try_from(kept.join(&b", "[..])) {
        Ok(kept) if !kept.is_empty() => {
            let _ = headers.try_insert(SEC_WEBSOCKET_PROTOCOL, kept);
        }
        _ => {
            headers.remove(SEC_WEBSOCKET_PROTOCOL);
        }
    }
}

fn remove_parameters(uri: &mut Uri, name: &str) {
    let Some(query) = uri.query() else { return };
    let kept: Vec<_> = query.split('&').filter(|pair| parameter(pair, name).is_none()).collect();
    let path = uri.path();
    let target = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    // What was part of a URI makes one again; a target that did not would rather be lost than show the credential.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Checks a credential's alphabet. A comma is how proxies join two lines into one, so it counts as two lines would.
fn check_token(bytes: &[u8], is_allowed: impl Fn(u8) -> bool) -> Result<(), Denial> {
    if consists_of(bytes, &is_allowed) {
        return Ok(());
    }
    match bytes.iter().find(|byte| !is_allowed(**byte)) {
        Some(b',') => Err(Denial::new(DenialKind::CredentialRepeated)),
        Some(byte) if byte.is_ascii() => Err(malformed("a character that no credential has")),
        _ => Err(malformed("not ASCII")),
    }
}

/// Whether all bytes are allowed: sixteen of them in one step, since nothing in it branches. The last step may overlap the one
/// before, as seeing a byte twice changes nothing.
fn consists_of(bytes: &[u8], is_allowed: impl Fn(u8) -> bool) -> bool {
    const STEP: usize = 16;
    let note = |refused: &mut [u8; STEP], chunk: &[u8; STEP]| {
        for (refused, byte) in refused.iter_mut().zip(chunk) {
            *refused |= u8::from(!is_allowed(*byte));
        }
    };
    let Some(last) = bytes.last_chunk() else { return bytes.iter().all(|byte| is_allowed(*byte)) };
    let mut refused = [0; STEP];
    note(&mut refused, last);
    for chunk in bytes.as_chunks().0 {
        note(&mut refused, chunk);
    }
    u128::from_ne_bytes(refused) == 0
}

/// The alphabet of `b64token` (RFC 6750 section 2.1): letters, digits and `-._~+/=`.
#[expect(clippy::needless_bitwise_bool, reason = "a lazy operator is a branch")]
fn is_token68(byte: u8) -> bool {
    let is_letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    // `+,-./` and the digits stand in a row.
    let is_in_row = (byte.wrapping_sub(b'+') <= b'9' - b'+') & (byte != b',');
    is_letter | is_in_row | (byte == b'=') | (byte == b'_') | (byte == b'~')
}

/// Visible ASCII without the comma.
#[expect(clippy::needless_bitwise_bool, reason = "as above")]
fn is_visible(byte: u8) -> bool {
    byte.is_ascii_graphic() & (byte != b',')
}

fn malformed(log_detail: &'static str) -> Denial {
    Denial::new(DenialKind::CredentialMalformed).with_log_detail(log_detail)
}
