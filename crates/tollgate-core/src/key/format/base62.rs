//! Numbers of 32 bits as six digits `0-9A-Za-z`, and back.
//!
//! By arithmetic: a table look-up could leak secret digits through the cache.

/// 62^5 < 2^32 < 62^6.
pub(super) const DIGITS: usize = 6;

/// The digits of `number`, the most significant first, padded with zeros.
pub(super) fn digits(mut number: u32) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for place in digits.iter_mut().rev() {
        *place = digit((number % 62) as u8);
        number /= 62;
    }
    digits
}

/// The digit for a value below 62.
pub(super) const fn digit(value: u8) -> u8 {
    match value {
        0..10 => b'0' + value,
        10..36 => b'A' + (value - 10),
        _ => b'a' + (value - 36),
    }
}

/// The number that six digits are, which may have more than 32 bits. What is no digit has some value, too: whoever reads a
/// number has looked at the characters before.
pub(super) fn number(digits: [u8; DIGITS]) -> u64 {
    /// The even ones of eight bytes, and of four pairs of them.
    const BYTES: u64 = 0x00ff_00ff_00ff_00ff;
    const PAIRS: u64 = 0x0000_ffff_0000_ffff;
    let each = |byte: u8| u64::from_le_bytes([byte; 8]);

    // All digits at once, each in a byte of one word, the most significant in the lowest. Two zeros in front make them eight.
    let mut ascii = [b'0'; 8];
    let [_, _, last @ ..] = &mut ascii;
    *last = digits;
    let ascii = u64::from_le_bytes(ascii);
    // Bit 6 of a character tells a letter, bit 5 of a letter that it is in lower case. Between the digits and the upper case
    // lie seven other characters, and six between the upper case and the lower.
    let is_letter = (ascii >> 6) & each(1);
    let is_lower = is_letter & (ascii >> 5);
    let values = ascii.wrapping_sub(each(b'0')).wrapping_sub(7 * is_letter + 6 * is_lower);

    // Neighbours are put together: to four numbers below 62^2, then to two below 62^4, then to one.
    let pairs = 62 * (values & BYTES) + ((values >> 8) & BYTES);
    let fours = 62_u64.pow(2) * (pairs & PAIRS) + ((pairs >> 16) & PAIRS);
    62_u64.pow(4) * (fours & 0xffff_ffff) + (fours >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_is_read_as_the_value_it_was_written_for_in_every_place() {
        for value in 0..62 {
            for place in 0..DIGITS {
                let mut digits = [b'0'; DIGITS];
                digits[place] = digit(value);
                assert_eq!(number(digits), u64::from(value) * 62_u64.pow(5 - u32::try_from(place).unwrap()));
            }
        }
    }

    #[test]
    fn whatever_is_no_digit_makes_nothing_panic() {
        for byte in 0..=u8::MAX {
            for place in 0..DIGITS {
                let mut digits = [byte; DIGITS];
                number(digits);
                digits[place] = b'z';
                number(digits);
            }
        }
    }

    #[test]
    fn reads_what_it_writes() {
        for expected in [0, 1, 61, 62, 3_843, 3_844, 0xcbf4_3926, u32::MAX - 1, u32::MAX] {
            assert_eq!(number(digits(expected)), u64::from(expected));
        }
        assert_eq!(number(*b"zzzzzz"), 62_u64.pow(6) - 1);
    }
}
