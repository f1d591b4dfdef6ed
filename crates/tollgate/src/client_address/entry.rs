//! Reads the address from one entry of a header.
//!
//! Entries are separated at every comma, from right to left, even at commas within quotes. Text that a client has written further
//! left, such as an open quote, therefore cannot affect the entry that a proxy added. In return, an entry with a comma within
//! quotes cannot be read, because none of its parts is a valid entry.
//!
//! `Forwarded` is a list, in which empty elements do not count (RFC 9110 section 5.6.1.2). `X-Forwarded-For` has no standard: an
//! empty entry there comes from a proxy that has no address to report, and the entry before it may be the client's own text.

use std::net::IpAddr;

/// The address in an entry of `X-Forwarded-For`.
pub(super) fn forwarded_for(entry: &[u8]) -> Option<IpAddr> {
    address(str::from_utf8(entry).ok()?)
}

/// The address in an entry of `Forwarded` (RFC 7239 section 4): name-value pairs, one of which is `for`.
pub(super) fn forwarded(entry: &[u8]) -> Option<IpAddr> {
    let entry = str::from_utf8(entry).ok()?;
    let mut found = None;
    for pair in entry.split(';').map(str::trim_ascii) {
        // The RFC allows empty pairs, for example after a final semicolon.
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=')?;
        let value = unquoted(value)?;
        if name.eq_ignore_ascii_case("for") {
            // A repeated `for` makes the entry invalid.
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

/// Removes the quotes of a value, if any. Valid values of these headers contain no quote and no backslash.
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

/// Parses an address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
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

/// A port number, or an obfuscated port (RFC 7239 section 6).
fn is_port(port: &str) -> bool {
    match port.strip_prefix('_') {
        Some(name) => {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        // `parse` alone would accept a sign.
        None => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
    }
}
