//! Reads a credential out of a request's head: a decision without state, clock or I/O.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
};
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
            CredentialSource::BasicUser => match sensitive(cx.headers_mut(), &AUTHORIZATION)? {
                Some(value) => self.read_authorization(place, sources, value),
                None => Ok(()),
            },
            CredentialSource::WebSocketProtocol(prefix) => {
                sources.mark_sensitive(cx.headers_mut());
                let offers = offers(cx.head().headers);
                self.add_part(offers.filter_map(|offer| offer.strip_prefix(prefix.as_bytes())), place)
            }
            CredentialSource::DangerousQuery(name) => {
                let pairs = cx.head().uri.query().unwrap_or_default().split('&');
                self.add_part(pairs.filter_map(|pair| parameter(pair, name)).map(str::as_bytes), place)
            }
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

    /// Reads an `Authorization` header, if its scheme is the place's, or else that of another configured place. Any other
    /// scheme is malformed: a request that means to authenticate is never anonymous.
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

        let is_bearer = scheme.eq_ignore_ascii_case(b"bearer") && sources.accepts_bearer;
        let is_basic = scheme.eq_ignore_ascii_case(b"basic") && sources.accepts_basic;
        match place {
            _ if scheme.is_empty() => Err(Denial::new(DenialKind::CredentialEmpty)),
            CredentialSource::Bearer if is_bearer => {
                check(credentials, Credential::is_b64token)?;
                self.add(value, start, place)
            }
            CredentialSource::BasicUser if is_basic => {
                check(credentials, Credential::is_b64token)?;
                let decoded = Zeroizing::new(
                    STANDARD.decode(credentials).map_err(|_| malformed("Basic, but not Base64"))?,
                );
                match decoded.strip_suffix(b":") {
                    // The first colon ends the user name (RFC 7617 section 2): with another one there is a password.
                    Some(user) if !user.contains(&b':') => self.add_part([user].into_iter(), place),
                    _ if decoded.is_empty() => Err(Denial::new(DenialKind::CredentialEmpty)),
                    _ => Err(malformed("Basic, but not a key as user name with an empty password")),
                }
            }
            _ if is_bearer || is_basic => Ok(()),
            _ => Err(malformed("an Authorization scheme that is not configured")),
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

/// The value of a query's pair, if the pair has this name; as it was sent, without decoding.
pub(super) fn parameter<'p>(pair: &'p str, name: &str) -> Option<&'p str> {
    let (own, value) = pair.split_once('=').unwrap_or((pair, ""));
    (own == name).then_some(value)
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
