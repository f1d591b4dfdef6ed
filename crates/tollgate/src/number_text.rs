//! Numbers as header values: every response has three of them, and most take no allocation.
//!
//! `HeaderValue::from(u64)` allocates twice. Here a number below 10,000 is a slice of a static table. A larger one takes one
//! allocation, or none if it is a recent one of this thread. docs/performance.md has the measurement.

use std::cell::RefCell;

use http::HeaderValue;

/// The text of a number that few responses have in common, such as what a caller has left.
#[inline]
pub(crate) fn number_text(number: u64) -> HeaderValue {
    small_number_text(number).unwrap_or_else(|| large_number_text(number))
}

/// The text of a number that many responses have in common, such as the second of a reset.
#[inline]
pub(crate) fn shared_number_text(number: u64) -> HeaderValue {
    thread_local! {
        // Sixteen places: a limit and a reset that shared one would evict each other at every response.
        static RECENT: RefCell<[(u64, HeaderValue); 16]> =
            const { RefCell::new([const { (0, HeaderValue::from_static("0")) }; 16]) };
    }

    small_number_text(number).unwrap_or_else(|| {
        RECENT.with_borrow_mut(|recent| {
            // Resets are multiples of a window: the remainder of a prime spreads them.
            let place = usize::try_from(number % 61).unwrap_or_default() % recent.len();
            let Some((kept, text)) = recent.get_mut(place) else { return large_number_text(number) };
            if *kept != number {
                (*kept, *text) = (number, large_number_text(number));
            }
            text.clone()
        })
    })
}

#[inline(never)]
fn large_number_text(number: u64) -> HeaderValue {
    HeaderValue::from_str(itoa::Buffer::new().format(number)).unwrap_or_else(|_| HeaderValue::from(number))
}

#[inline]
fn small_number_text(number: u64) -> Option<HeaderValue> {
    let number = usize::try_from(number).ok().filter(|number| *number < TABLE_LENGTH)?;
    let width = 1 + usize::from(number >= 10) + usize::from(number >= 100) + usize::from(number >= 1_000);
    let end = (number + 1) * WIDTH;
    Some(HeaderValue::from_static(TABLE.get(end - width..end)?))
}

const TABLE_LENGTH: usize = 10_000;
const WIDTH: usize = 4;

/// The numbers below 10,000 with four digits each: `000000010002` and so on. 40 kB.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_numbers_in_decimal() {
        let beyond = [10_000, 10_001, 10_008, 1_780_000_020, 1_780_000_028, u64::MAX];
        for number in (0..10_000).chain(beyond).chain(beyond) {
            assert_eq!(shared_number_text(number), number.to_string());
            assert_eq!(number_text(number), number.to_string());
        }
    }
}
