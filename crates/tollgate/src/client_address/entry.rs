//! Whom one entry of a header names.
//!
//! Entries are told apart by commas alone, from right to left, also where a comma stands within quotes: whatever a client has
//! written further left, an open quote included, changes nothing of what a proxy has added. In return an entry whose quoted text has
//! a comma cannot be read, since none of its parts is an entry by itself.

use std::net::IpAddr;

/// The address in an entry of `X-Forwarded-For`.
pub(super) fn forwarded_for(entry: &[u8]) -> Option<IpAddr> {
    address(str::from_utf8(entry).ok()?.trim_ascii())
}

/// The address in an entry of `Forwarded` (RFC 7239 section 4): pairs of a name and a value, one of which says for whom.
pub(super) fn forwarded(entry: &[u8]) -> Option<IpAddr> {
    let entry = str::from_utf8(entry).ok()?;
    let mut found = None;
    for pair in entry.split(';').map(str::trim_ascii) {
        // The RFC lets a pair be left out, as after a last semicolon.
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=')?;
        let value = unquoted(value)?;
        if name.eq_ignore_ascii_case("for") {
            // Named once, or the entry says nothing.
            if found.is_some() {
                return None;
            }
            found = Some(address(value)?);
        } else if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
    }
    found
}

/// A value in its quotes or without. Nothing that stands in these headers by right needs a quote or a backslash within.
fn unquoted(value: &str) -> Option<&str> {
    let value = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => value,
    };
    let is_plain = !value.bytes().any(|byte| matches!(byte, b'"' | b'\\'));
    is_plain.then_some(value)
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// An address, with a port or without: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        let is_whole = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return address.parse().ok().filter(|_| is_whole).map(IpAddr::V6);
    }
    let with_port = || {
        let (address, port) = text.split_once(':')?;
        address.parse().ok().filter(|_| is_port(port)).map(IpAddr::V4)
    };
    text.parse().ok().or_else(with_port)
}

/// A number, or a name that a proxy has made up to hide it (RFC 7239 section 6).
fn is_port(port: &str) -> bool {
    match port.strip_prefix('_') {
        Some(name) => {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        // A sign, too, would be parsed.
        None => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
    }
}
