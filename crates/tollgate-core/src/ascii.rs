//! Checks of ASCII text, sixteen bytes at a time: credentials are checked at every request.

/// Whether a text consists of letters and digits.
#[inline]
pub(crate) fn is_alphanumeric(text: &[u8]) -> bool {
    all(text, |byte| byte.is_ascii_alphanumeric())
}

/// Whether a text consists of letters, digits and `_`, as most keys do.
#[inline]
pub(crate) fn is_word(text: &[u8]) -> bool {
    all(text, |byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether a text consists of the characters of a `b64token` (RFC 6750 section 2.1), as JSON Web Tokens do.
#[inline]
#[expect(clippy::needless_bitwise_bool, reason = "`||` and `matches!` become a branch for each byte")]
pub(crate) fn is_b64token(text: &[u8]) -> bool {
    all(text, |byte| {
        byte.is_ascii_alphanumeric()
            | (byte == b'-')
            | (byte == b'.')
            | (byte == b'_')
            | (byte == b'~')
            | (byte == b'+')
            | (byte == b'/')
            | (byte == b'=')
    })
}

/// Whether every byte is allowed. The last sixteen bytes may overlap those before them: to check a byte twice changes nothing.
#[inline]
fn all(text: &[u8], is_allowed: impl Fn(u8) -> bool) -> bool {
    let Some(last) = text.last_chunk::<16>() else { return text.iter().all(|byte| is_allowed(*byte)) };
    let mut rest = text;
    while let Some((chunk, tail)) = rest.split_first_chunk::<16>() {
        // Without a branch for each byte, so that the compiler uses vector instructions.
        if !chunk.iter().fold(true, |so_far, byte| so_far & is_allowed(*byte)) {
            return false;
        }
        rest = if (1..16).contains(&tail.len()) { last } else { tail };
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_check_of_single_bytes(
            bytes in prop_oneof!["[a-zA-Z0-9_]{0,40}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..40)],
            other in prop::option::of((any::<u8>(), 0_usize..40)),
        ) {
            let mut bytes = bytes;
            if let Some((byte, at)) = other
                && let Some(place) = bytes.get_mut(at)
            {
                *place = byte;
            }
            prop_assert_eq!(is_alphanumeric(&bytes), bytes.iter().all(u8::is_ascii_alphanumeric));
            let is_model_word = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
            prop_assert_eq!(is_word(&bytes), is_model_word);
            let is_model_b64token = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte));
            prop_assert_eq!(is_b64token(&bytes), is_model_b64token);
        }
    }

    #[test]
    fn knows_every_byte_at_every_place() {
        for byte in 0..=u8::MAX {
            for at in 0..16 {
                let mut bytes = [b'a'; 16];
                bytes[at] = byte;
                assert_eq!(is_alphanumeric(&bytes), byte.is_ascii_alphanumeric(), "{byte} at {at}");
                assert_eq!(is_word(&bytes), byte.is_ascii_alphanumeric() || byte == b'_', "{byte} at {at}");
                let is_model_b64token = byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
                assert_eq!(is_b64token(&bytes), is_model_b64token, "{byte} at {at}");
            }
        }
    }
}
