//! Names as fingerprints: 128 bits that stand for a policy and a subject.
//!
//! Nobody who does not know the keys can find two names with one fingerprint, and nobody sees a key or a fingerprint. Each half
//! is a universal hash with keys of its own, which is a matter of proof, not of trust in a cipher: first UMAC's NH (RFC 4418
//! section 5.2.2; Black et al., "UMAC: fast and secure message authentication", 1999, theorem 4.2), which makes 128 bits of any
//! name, and under which two names of the same length agree with a probability of 2^-64; then a multilinear hash of these bits
//! and the length to 64 bits (Thorup, "High speed hashing for integers and strings", 2015, section 3.3), which adds another
//! 2^-64. So two names have one fingerprint with a probability of at most 2^-126, whatever they are.
//!
//! One half decides the place in the table, which an attacker might measure; the other is only ever compared, so nothing
//! about its keys can be measured.

use std::hash::{BuildHasher, RandomState};

use sha2::{Digest as _, Sha256};

/// Stands for a policy and a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    // In quarters, so that it can stand beside counters of 32 bits without a gap.
    place: [u32; 2],
    check: [u32; 2],
}

impl Fingerprint {
    pub(super) fn new(place: u64, check: u64) -> Self {
        Self { place: halves(place), check: halves(check) }
    }

    /// Where it belongs among all of them: evenly spread.
    pub(super) fn place(self) -> u64 {
        whole(self.place)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the other half is beside it")]
fn halves(whole: u64) -> [u32; 2] {
    [whole as u32, (whole >> 32) as u32]
}

fn whole([low, high]: [u32; 2]) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The longest name, policy and subject together, that is hashed as it is.
const LONGEST: usize = 96;

/// Bytes that are hashed at once. Policy and subject each begin a block of their own.
const BLOCK: usize = 16;
const BLOCKS: usize = LONGEST / BLOCK + 2;

/// What makes fingerprints of names.
pub(super) struct Fingerprinter {
    blocks: [Both<BlockKey>; BLOCKS],
    last: Both<LastKey>,
}

/// For both halves of a fingerprint.
#[derive(Clone, Copy)]
struct Both<K> {
    place: K,
    check: K,
}

/// What is added to the two words of a block.
type BlockKey = [u64; 2];

/// What is multiplied with the sum of all blocks, its lower half first, and with the length; and what is added.
#[derive(Clone, Copy)]
struct LastKey {
    low: u128,
    high: u128,
    length: u128,
    start: u128,
}

impl Fingerprinter {
    /// With keys from the operating system.
    pub(super) fn new() -> Self {
        let mut random = [0; size_of::<Self>()];
        if getrandom::fill(&mut random).is_err() {
            // The standard library asks in other ways, too, and its maps have no other source either.
            let state = RandomState::new();
            for (number, word) in random.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                *word = state.hash_one(number).to_le_bytes();
            }
        }
        let mut words = random.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut word = || words.next().unwrap_or_default();
        let blocks = std::array::from_fn(|_| Both { place: [word(), word()], check: [word(), word()] });
        let mut long = || u128::from(word()) << 64 | u128::from(word());
        let mut last = || LastKey { low: long(), high: long(), length: long(), start: long() };
        Self { blocks, last: Both { place: last(), check: last() } }
    }

    /// The fingerprint of a subject under a policy.
    #[inline]
    pub(super) fn of(&self, policy: &str, subject: &str) -> Fingerprint {
        let (policy, subject) = (policy.as_bytes(), subject.as_bytes());
        if policy.len() > LONGEST || subject.len() > LONGEST - policy.len() {
            return self.of_long(policy, subject);
        }
        let mut sums = Sums { keys: self.blocks.iter(), place: 0, check: 0 };
        sums.add_all(policy);
        sums.add_all(subject);
        // Tells ("ab", "c") from ("a", "bc"), and what follows from what it is padded to.
        self.finish(&sums, (policy.len() << 32 | subject.len()) as u64)
    }

    /// Shortens the name first, so that no name is too long for the keys: to what nobody can find a second name for.
    #[cold]
    fn of_long(&self, policy: &[u8], subject: &[u8]) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update((policy.len() as u64).to_le_bytes());
        hash.update(policy);
        hash.update(subject);
        let mut sums = Sums { keys: self.blocks.iter(), place: 0, check: 0 };
        sums.add_all(&hash.finalize());
        self.finish(&sums, u64::MAX)
    }

    #[inline]
    fn finish(&self, sums: &Sums<'_>, length: u64) -> Fingerprint {
        let place = self.last.place.hash(sums.place, length);
        Fingerprint::new(scatter(place), self.last.check.hash(sums.check, length))
    }
}

impl LastKey {
    /// Multilinear: the upper half of a sum of products, modulo 2^128.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the halves are taken one by one")]
    fn hash(&self, sum: u128, length: u64) -> u64 {
        let (low, high) = (sum as u64, (sum >> 64) as u64);
        let product = |key: u128, word: u64| key.wrapping_mul(word.into());
        let sum = self.start.wrapping_add(product(self.low, low));
        let sum = sum.wrapping_add(product(self.high, high)).wrapping_add(product(self.length, length));
        (sum >> 64) as u64
    }
}

/// NH, for both halves at once: the two words of each block are added to keys of their own, and their products summed up.
struct Sums<'k> {
    keys: std::slice::Iter<'k, Both<BlockKey>>,
    place: u128,
    check: u128,
}

impl Sums<'_> {
    #[inline]
    fn add_all(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last_chunk() else {
            return self.add(short_words(bytes));
        };
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            self.add(words(block));
        }
        if !rest.is_empty() {
            // It may tell again what the block before told.
            self.add(words(last));
        }
    }

    #[inline]
    fn add(&mut self, [first, second]: [u64; 2]) {
        if let Some(keys) = self.keys.next() {
            let product = |[one, other]: BlockKey| {
                u128::from(one.wrapping_add(first)) * u128::from(other.wrapping_add(second))
            };
            self.place = self.place.wrapping_add(product(keys.place));
            self.check = self.check.wrapping_add(product(keys.check));
        }
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the halves are taken one by one")]
fn words(block: &[u8; BLOCK]) -> [u64; 2] {
    let both = u128::from_le_bytes(*block);
    [both as u64, (both >> 64) as u64]
}

/// Two words that tell, with the length, all of less than a block. They may tell some of it twice.
#[inline]
fn short_words(bytes: &[u8]) -> [u64; 2] {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return [u64::from_le_bytes(*first), u64::from_le_bytes(*last)];
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return [u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()];
    }
    let byte = |at: usize| bytes.get(at).copied().map_or(0, u64::from);
    [byte(0) | byte(1) << 8 | byte(2) << 16, 0]
}

/// Names in a row, such as numbers, have sums in a row: without this they would crowd together in the table. One to one
/// (David Stafford's thirteenth mix), so that two places are never made one.
#[inline]
fn scatter(place: u64) -> u64 {
    let place = (place ^ place >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let place = (place ^ place >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    place ^ place >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tells_where_the_policy_ends() {
        let fingerprints = Fingerprinter::new();
        let parts = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("ab", "c\0"), ("ab\0", "c")];
        let distinct: HashSet<_> =
            parts.map(|(policy, subject)| fingerprints.of(policy, subject).place()).into();
        assert_eq!(distinct.len(), parts.len());
    }

    #[test]
    fn tells_lengths_apart_where_padding_or_shortening_begins() {
        let fingerprints = Fingerprinter::new();
        let names: Vec<_> = (0..3 * LONGEST).map(|length| "\0".repeat(length)).collect();
        let distinct: HashSet<_> = names.iter().map(|name| fingerprints.of("policy", name).place()).collect();
        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn each_byte_counts_in_both_halves() {
        let fingerprints = Fingerprinter::new();
        for length in 1..2 * LONGEST {
            let name = vec![b'a'; length];
            let plain = fingerprints.of("policy", std::str::from_utf8(&name).unwrap());
            for at in 0..length {
                let mut other = name.clone();
                other[at] = b'b';
                let other = fingerprints.of("policy", std::str::from_utf8(&other).unwrap());
                assert_ne!(plain.place, other.place, "byte {at} of {length}");
                assert_ne!(plain.check, other.check, "byte {at} of {length}");
            }
        }
    }

    #[test]
    fn depends_on_keys_that_are_never_the_same() {
        let (one, other) = (Fingerprinter::new(), Fingerprinter::new());
        assert_ne!(one.of("policy", "ada"), other.of("policy", "ada"));
        let keys: HashSet<_> = one.blocks.iter().flat_map(|keys| [keys.place, keys.check].concat()).collect();
        assert_eq!(keys.len(), 4 * BLOCKS);
    }

    #[test]
    fn spreads_names_in_a_row() {
        let fingerprints = Fingerprinter::new();
        let mut crowds = [0; 64];
        for number in 0..64_000 {
            crowds[(fingerprints.of("default", &format!("key_{number}")).place() >> 58) as usize] += 1;
        }
        assert!(crowds.iter().all(|crowd| (800..1_200).contains(crowd)), "{crowds:?}");
    }

    proptest! {
        #[test]
        fn different_names_differ(
            one in ("[a-c]{0,5}", "[a-c]{0,120}"),
            other in ("[a-c]{0,5}", "[a-c]{0,120}"),
        ) {
            let fingerprints = Fingerprinter::new();
            let [first, second] = [&one, &other].map(|(policy, subject)| fingerprints.of(policy, subject));
            prop_assert_eq!(first == second, one == other);
        }
    }
}
