//! Converts 32-bit numbers to six digits `0-9A-Za-z`, and back.
//!
//! Uses arithmetic: a lookup table could leak secret digits through the CPU cache.

/// 62^5 < 2^32 < 62^6.
pub(super) const DIGITS: usize = 6;

/// The digits of `number`, most significant first, padded with zeros.
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

/// The number that six digits represent. It may exceed 32 bits. Bytes that are not digits give some number without a panic: the
/// caller validates the characters first.
pub(super) fn number(digits: [u8; DIGITS]) -> u64 {
    /// Every second byte of eight, and every second pair of bytes.
    const BYTES: u64 = 0x00ff_00ff_00ff_00ff;
    const PAIRS: u64 = 0x0000_ffff_0000_ffff;
    let each = |byte: u8| u64::from_le_bytes([byte; 8]);

    // All digits in one word, one byte each, the most significant in the lowest byte. Two leading zeros fill eight bytes.
    let mut ascii = [b'0'; 8];
    let [_, _, last @ ..] = &mut ascii;
    *last = digits;
    let ascii = u64::from_le_bytes(ascii);
    // Bit 6 of an ASCII character marks a letter, bit 5 a lower-case letter. Seven characters lie between the digits and the
    // upper case, and six between the upper and the lower case.
    let is_letter = (ascii >> 6) & each(1);
    let is_lower = is_letter & (ascii >> 5);
    let values = ascii.wrapping_sub(each(b'0')).wrapping_sub(7 * is_letter + 6 * is_lower);

    // Combines neighbours: into four numbers below 62^2, then two below 62^4, then one.
    let pairs = 62 * (values & BYTES) + ((values >> 8) & BYTES);
    let fours = 62_u64.pow(2) * (pairs & PAIRS) + ((pairs >> 16) & PAIRS);
    62_u64.pow(4) * (fours & 0xffff_ffff) + (fours >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_is_read_back_at_every_place() {
        for value in 0..62 {
            for place in 0..DIGITS {
                let mut digits = [b'0'; DIGITS];
                digits[place] = digit(value);
                assert_eq!(number(digits), u64::from(value) * 62_u64.pow(5 - u32::try_from(place).unwrap()));
            }
        }
    }

    #[test]
    fn other_bytes_do_not_panic() {
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
