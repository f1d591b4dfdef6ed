//! Pseudo-random numbers in a few nanoseconds.

use std::cell::Cell;

/// The next number of this thread's sequence: xorshift64 (Marsaglia 2003) with a fixed seed.
pub fn next() -> u64 {
    thread_local!(static STATE: Cell<u64> = const { Cell::new(0x9e37_79b9_7f4a_7c15) });
    let mut x = STATE.get();
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    STATE.set(x);
    x
}

/// Puts `items` into a random order (Fisher and Yates).
pub fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let other = usize::try_from(next() % (last as u64 + 1)).unwrap();
        items.swap(last, other);
    }
}
