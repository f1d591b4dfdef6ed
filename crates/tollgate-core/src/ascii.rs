//! Checks of ASCII text, eight bytes at a time: credentials are checked at every request.
//!
//! In a word of eight bytes, the highest bit of each byte holds the result for that byte. Sums never carry into the next byte,
//! because they are made of the lower seven bits only.

/// A word of eight times the same byte.
const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

const HIGHEST_BITS: u64 = eight(0x80);

/// Which bytes of a word are between `first` and `last`, both ASCII.
#[inline]
const fn between(first: u8, last: u8, word: u64) -> u64 {
    let lower = word & !HIGHEST_BITS;
    let from_first = lower + eight(0x80 - first);
    let past_last = lower + eight(0x7f - last);
    from_first & !past_last & !word & HIGHEST_BITS
}

/// Whether a text consists of letters and digits.
#[inline]
pub(crate) fn is_alphanumeric(text: &[u8]) -> bool {
    all_words(text, u8::is_ascii_alphanumeric, |word| {
        // Lower case and upper case letters differ in one bit.
        between(b'a', b'z', word | eight(0x20)) | between(b'0', b'9', word)
    })
}

/// Whether a text consists of letters, digits and `_`, as most keys do.
#[inline]
pub(crate) fn is_word(text: &[u8]) -> bool {
    all_words(
        text,
        |byte| byte.is_ascii_alphanumeric() || *byte == b'_',
        |word| {
            between(b'a', b'z', word | eight(0x20)) | between(b'0', b'9', word) | between(b'_', b'_', word)
        },
    )
}

/// Whether every byte is allowed. The last eight bytes may overlap those before them: to check a byte twice changes nothing.
#[inline]
fn all_words(text: &[u8], is_allowed: impl Fn(&u8) -> bool, allowed: impl Fn(u64) -> u64) -> bool {
    let Some(last) = text.last_chunk::<8>() else { return text.iter().all(is_allowed) };
    let mut rest = text;
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        if allowed(u64::from_ne_bytes(*word)) != HIGHEST_BITS {
            return false;
        }
        rest = if (1..8).contains(&tail.len()) { last } else { tail };
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
        }
    }

    #[test]
    fn knows_every_byte_at_every_place() {
        for byte in 0..=u8::MAX {
            for at in 0..8 {
                let mut bytes = [b'a'; 8];
                bytes[at] = byte;
                assert_eq!(is_alphanumeric(&bytes), byte.is_ascii_alphanumeric(), "{byte} at {at}");
                assert_eq!(is_word(&bytes), byte.is_ascii_alphanumeric() || byte == b'_', "{byte} at {at}");
            }
        }
    }
}
