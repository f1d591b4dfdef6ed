//! Reads a credential out of a request's head: a decision without state, clock or I/O.

use std::iter;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
};
use percent_encoding::percent_decode_str;
use tollgate_core::{
    denial::{Denial, DenialKind},
    verify::{Credential, CredentialSource},
};
use zeroize::Zeroizing;

use super::sources::Sources;
use crate::engine::{Cx, Repeated, single_mut};

/// What was found so far.
pub(super) struct Found {
    credential: Option<Credential>,
    max_length: usize,
}

impl Found {
    pub(super) fn new(max_length: usize) -> Self {
        Self { credential: None, max_length }
    }

    pub(super) fn into_credential(self) -> Option<Credential> {
        self.credential
    }

    /// Reads one place.
    #[inline]
    pub(super) fn read<B>(
        &mut self,
        place: &CredentialSource,
        sources: &Sources,
        cx: &mut Cx<'_, B>,
    ) -> Result<(), Denial> {
        match place {
            CredentialSource::Bearer => match sensitive(cx.headers_mut(), &AUTHORIZATION)? {
                Some(value) => self.read_bearer(sources, value),
                None => Ok(()),
            },
            CredentialSource::Header(name) => match sensitive(cx.headers_mut(), name)? {
                Some(value) => {
                    check(value.as_bytes(), is_visible)?;
                    self.add(value, 0, place)
                }
                None => Ok(()),
            },
            other => self.read_other(other, sources, cx),
        }
    }

    /// Reads a place that few services use.
    #[cold]
    fn read_other<B>(
        &mut self,
        place: &CredentialSource,
        sources: &Sources,
        cx: &mut Cx<'_, B>,
    ) -> Result<(), Denial> {
        match place {
            CredentialSource::WebSocketProtocol(prefix) => {
                sources.mark_sensitive(cx.headers_mut());
                let offers = offers(cx.head().headers);
                self.add_part(offers.filter_map(|offer| offer.strip_prefix(prefix.as_bytes())), place)
            }
            CredentialSource::DangerousQuery(name) => {
                let pairs = cx.head().uri.query().unwrap_or_default().split('&');
                let values: Vec<_> = pairs.filter_map(|pair| parameter(pair, name)).collect();
                self.add_part(values.iter().map(|value| value.as_slice()), place)
            }
            CredentialSource::BasicUser
            | CredentialSource::BasicPassword { .. }
            | CredentialSource::Scheme(_) => match sensitive(cx.headers_mut(), &AUTHORIZATION)? {
                Some(value) => self.read_authorization(place, sources, value),
                None => Ok(()),
            },
            other => Err(Denial::misconfigured(format!("CredentialLayer cannot read the source {other:?}"))),
        }
    }

    #[inline]
    fn read_bearer(&mut self, sources: &Sources, value: &HeaderValue) -> Result<(), Denial> {
        match usual_bearer(value) {
            Some(token) => {
                check(token, Credential::is_b64token)?;
                self.add(value, BEARER.len(), &CredentialSource::Bearer)
            }
            None => self.read_authorization(&CredentialSource::Bearer, sources, value),
        }
    }

    /// Reads an `Authorization` header, if it belongs to this place. A header that belongs to no place is malformed: a request with
    /// `Authorization` is never anonymous.
    #[cold]
    fn read_authorization(
        &mut self,
        place: &CredentialSource,
        sources: &Sources,
        value: &HeaderValue,
    ) -> Result<(), Denial> {
        let bytes = value.as_bytes();
        let scheme_end = bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
        let (scheme, rest) = bytes.split_at(scheme_end);
        let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
        let (start, credentials) = (scheme_end + spaces, rest.get(spaces..).unwrap_or_default());
        let has_scheme = |place: &CredentialSource| {
            place.scheme().is_some_and(|own| own.as_bytes().eq_ignore_ascii_case(scheme))
        };
        if scheme.is_empty() {
            return Err(Denial::new(DenialKind::CredentialEmpty));
        }
        if !has_scheme(place) {
            let is_others = sources.places.iter().any(has_scheme);
            let denial = || malformed("an Authorization scheme that is not configured");
            return if is_others { Ok(()) } else { Err(denial()) };
        }
        check(credentials, Credential::is_b64token)?;
        match place {
            CredentialSource::BasicUser | CredentialSource::BasicPassword { .. } => {
                self.read_basic(place, sources, credentials)
            }
            _ => self.add(value, start, place),
        }
    }

    /// Reads a user name and a password (RFC 7617 section 2): the first colon ends the user name.
    fn read_basic(
        &mut self,
        place: &CredentialSource,
        sources: &Sources,
        credentials: &[u8],
    ) -> Result<(), Denial> {
        let decoded =
            Zeroizing::new(STANDARD.decode(credentials).map_err(|_| malformed("Basic, but not Base64"))?);
        let Some(colon) = decoded.iter().position(|byte| *byte == b':') else {
            let is_empty = decoded.is_empty();
            return Err(if is_empty {
                Denial::new(DenialKind::CredentialEmpty)
            } else {
                malformed("Basic, but without a colon")
            });
        };
        let user = decoded.get(..colon).unwrap_or_default();
        let password = decoded.get(colon + 1..).unwrap_or_default();
        match basic_key(place, user, password) {
            Some(key) => self.add_part(iter::once(key), place),
            None if sources.places.iter().any(|other| basic_key(other, user, password).is_some()) => Ok(()),
            None if password.is_empty() => Err(Denial::new(DenialKind::CredentialEmpty)),
            None => Err(malformed("Basic, but the key is not where a configured source expects it")),
        }
    }

    /// Adds the credential that `value` holds from byte `start` on. The same one in two places is one.
    #[inline]
    fn add(&mut self, value: &HeaderValue, start: usize, place: &CredentialSource) -> Result<(), Denial> {
        let length = value.len().saturating_sub(start);
        if length == 0 {
            return Err(Denial::new(DenialKind::CredentialEmpty));
        }
        if length > self.max_length {
            return Err(malformed("longer than the maximum length of a credential"));
        }
        match &self.credential {
            None => self.credential = Some(Credential::new(value.clone(), start, place.clone())),
            Some(first) if Some(first.expose_secret_bytes()) == value.as_bytes().get(start..) => {}
            Some(_) => return Err(Denial::new(DenialKind::CredentialConflicting)),
        }
        Ok(())
    }

    /// Adds the credential that is part of a longer value: copied out of it, since a header value cannot be cut.
    fn add_part<'v>(
        &mut self,
        mut values: impl Iterator<Item = &'v [u8]>,
        place: &CredentialSource,
    ) -> Result<(), Denial> {
        let Some(bytes) = values.next() else { return Ok(()) };
        if values.next().is_some() {
            return Err(Denial::new(DenialKind::CredentialRepeated));
        }
        check(bytes, is_visible)?;
        let value = HeaderValue::from_bytes(bytes).map_err(|_| malformed("not a header value"))?;
        self.add(&value, 0, place)
    }
}

/// The only line of a header, if it has one, marked as sensitive. `Authorization` is not a list (RFC 9110 section 11.6.2), and
/// neither are the headers that hold keys: two lines are an error, never "the first one wins".
#[inline]
fn sensitive<'h>(headers: &'h mut HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, Denial> {
    let value = single_mut(headers, name).map_err(|Repeated| Denial::new(DenialKind::CredentialRepeated))?;
    Ok(value.map(|value| {
        value.set_sensitive(true);
        &*value
    }))
}

/// The WebSocket subprotocols on offer: one list over all lines (RFC 6455 section 11.3.4).
pub(super) fn offers(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// The value of a query's pair, if the pair has this name. Both are percent-decoded, as every service behind this layer does.
pub(super) fn parameter(pair: &str, name: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (own, value) = pair.split_once('=').unwrap_or((pair, ""));
    let is_own = percent_decode_str(own).eq(name.bytes());
    is_own.then(|| Zeroizing::new(percent_decode_str(value).collect()))
}

/// Of a user name and a password, the one that is the key in this place.
fn basic_key<'d>(place: &CredentialSource, user: &'d [u8], password: &'d [u8]) -> Option<&'d [u8]> {
    match place {
        CredentialSource::BasicUser => password.is_empty().then_some(user),
        CredentialSource::BasicPassword { user: expected } => {
            let is_expected = expected.is_none_or(|expected| expected.as_bytes() == user);
            (is_expected && !password.is_empty()).then_some(password)
        }
        _ => None,
    }
}

/// The token of an `Authorization` header in its usual form: `Bearer`, one space, and the token.
#[inline]
fn usual_bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(BEARER.len())?;
    let is_usual = scheme.eq_ignore_ascii_case(BEARER) && token.first().is_some_and(|first| *first != b' ');
    is_usual.then_some(token)
}

const BEARER: &[u8] = b"bearer ";

/// Checks a credential's alphabet.
#[inline]
fn check(text: &[u8], is_allowed: fn(&[u8]) -> bool) -> Result<(), Denial> {
    if is_allowed(text) { Ok(()) } else { Err(denial_of_bad_byte(text, is_allowed)) }
}

#[cold]
fn denial_of_bad_byte(text: &[u8], is_allowed: fn(&[u8]) -> bool) -> Denial {
    match text.iter().find(|byte| !is_allowed(&[**byte])) {
        // Proxies join two lines by a comma, so a comma counts as two lines.
        Some(b',') => Denial::new(DenialKind::CredentialRepeated),
        Some(byte) if !byte.is_ascii() => malformed("not ASCII"),
        _ => malformed("a character that no credential has"),
    }
}

/// Visible ASCII without the comma.
fn is_visible(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_graphic() && *byte != b',')
}

#[cold]
fn malformed(log_detail: &'static str) -> Denial {
    Denial::new(DenialKind::CredentialMalformed).with_log_detail(log_detail)
}
