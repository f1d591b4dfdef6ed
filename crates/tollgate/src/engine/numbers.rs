//! Numbers as header values, without an allocation where it can be helped: three of them stand on every response.

use std::cell::RefCell;

use http::HeaderValue;

/// Two numbers that many responses have in common, a limit and the second of a reset: kept by each thread, so that their text is
/// written once.
#[inline]
pub(super) fn cached_number(limit: u64, reset: u64) -> (HeaderValue, HeaderValue) {
    thread_local! {
        // Apart, or the two could share a place, and each would be written anew for every response.
        static LIMITS: RefCell<Recent> = const { RefCell::new(Recent::NONE) };
        static RESETS: RefCell<Recent> = const { RefCell::new(Recent::NONE) };
    }

    (LIMITS.with_borrow_mut(|recent| recent.text(limit)), RESETS.with_borrow_mut(|recent| recent.text(reset)))
}

struct Recent([(u64, HeaderValue); KEPT]);

const BITS: u32 = 4;
const KEPT: usize = 1 << BITS;

impl Recent {
    const NONE: Self = Self([const { (0, HeaderValue::from_static("0")) }; KEPT]);

    #[inline]
    fn text(&mut self, number: u64) -> HeaderValue {
        // Limits and resets are round numbers: Fibonacci hashing spreads them, where a remainder would not.
        let place = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BITS);
        let Some(place) = self.0.get_mut(place as usize) else { return format_number(number) };
        if place.0 != number {
            *place = (number, format_number(number));
        }
        place.1.clone()
    }
}

/// A number that hardly any two responses have in common, such as what a caller has left.
#[inline]
pub(super) fn format_number(number: u64) -> HeaderValue {
    small(number).unwrap_or_else(|| written(number))
}

/// `HeaderValue::from` would allocate twice.
fn written(number: u64) -> HeaderValue {
    HeaderValue::from_str(itoa::Buffer::new().format(number)).unwrap_or_else(|_| HeaderValue::from(number))
}

const TABLE_LENGTH: usize = 10_000;
const WIDTH: usize = 4;

/// The numbers below ten thousand, four digits each: 0000, 0001, and so on.
static TABLE: &str = {
    static DIGITS: [u8; TABLE_LENGTH * WIDTH] = table();
    match std::str::from_utf8(&DIGITS) {
        Ok(digits) => digits,
        Err(_) => "", // never: digits are ASCII
    }
};

#[expect(
    clippy::indexing_slicing,
    clippy::large_stack_arrays,
    clippy::cast_possible_truncation,
    reason = "evaluated by the compiler alone: it refuses an index out of bounds, and a digit fits into a byte"
)]
const fn table() -> [u8; TABLE_LENGTH * WIDTH] {
    let mut digits = [b'0'; TABLE_LENGTH * WIDTH];
    let mut number = 0;
    while number < TABLE_LENGTH {
        let mut rest = number;
        let mut place = WIDTH;
        while rest > 0 {
            place -= 1;
            digits[number * WIDTH + place] += (rest % 10) as u8;
            rest /= 10;
        }
        number += 1;
    }
    digits
}

/// A small number, as a slice of the table.
fn small(number: u64) -> Option<HeaderValue> {
    let number = usize::try_from(number).ok().filter(|number| *number < TABLE_LENGTH)?;
    let width = match number {
        0..10 => 1,
        10..100 => 2,
        100..1_000 => 3,
        _ => 4,
    };
    let end = (number + 1) * WIDTH;
    Some(HeaderValue::from_static(TABLE.get(end - width..end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_numbers_as_everybody_does() {
        let beyond = [10_000, 10_001, 10_008, 1_780_000_020, 1_780_000_028, u64::MAX];
        for number in (0..10_000).chain(beyond).chain(beyond) {
            let (one, other) = cached_number(number, 60);
            assert_eq!((one, other), (number.to_string().parse().unwrap(), "60".parse().unwrap()));
            assert_eq!(format_number(number), number.to_string());
        }
    }
}
