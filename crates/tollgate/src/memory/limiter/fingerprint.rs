//! Fingerprints: 128 bits that stand for a policy and a subject.
//!
//! A fingerprint is the SipHash-1-3 of a name (Aumasson and Bernstein, "`SipHash`: a fast short-input PRF", 2012) under a random
//! secret key. Without the key, it is infeasible to find two names with the same fingerprint, or with adjacent places in the
//! table.

use std::hash::{BuildHasher, Hasher as _, RandomState};

use siphasher::sip128::{Hash128, Hasher128 as _, SipHasher13};

/// Stands for a policy and a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint {
    // 32-bit parts, so that there is no padding next to 32-bit counters.
    place: [u32; 2],
    check: [u32; 2],
}

impl Fingerprint {
    /// Stands for no subject. The probability that a subject has this fingerprint is 2^-128.
    pub(super) const ZERO: Self = Self { place: [0; 2], check: [0; 2] };

    pub(super) fn new(place: u64, check: u64) -> Self {
        Self { place: halves(place), check: halves(check) }
    }

    /// Its position in the order of all fingerprints, evenly distributed.
    pub(crate) fn place(self) -> u64 {
        whole(self.place)
    }

    pub(super) fn check(self) -> u64 {
        whole(self.check)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the other half is kept too")]
fn halves(whole: u64) -> [u32; 2] {
    [whole as u32, (whole >> 32) as u32]
}

fn whole([low, high]: [u32; 2]) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Computes fingerprints of names.
#[derive(Clone)]
pub(crate) struct Fingerprinter(SipHasher13);

/// The maximum length of policy, separator and subject that is hashed in one call: much faster than in parts.
const LONGEST_WHOLE: usize = 64;

/// The separator of policy and subject: a byte that does not occur in UTF-8.
const BETWEEN: u8 = 0xff;

impl Fingerprinter {
    /// Uses a random key from the operating system.
    pub(crate) fn new() -> Self {
        let mut key = [0; 16];
        if cfg!(tollgate_loom) {
            // A fixed key: loom needs deterministic runs.
        } else if getrandom::fill(&mut key).is_err() {
            // The standard library has fallbacks. Its hash maps depend on the same source.
            let random = RandomState::new();
            for (number, word) in key.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                *word = random.hash_one(number).to_le_bytes();
            }
        }
        Self(SipHasher13::new_with_key(&key))
    }

    /// The fingerprint of a subject under a policy.
    #[inline]
    pub(crate) fn of(&self, policy: &str, subject: &str) -> Fingerprint {
        let mut name = [BETWEEN; LONGEST_WHOLE];
        let length = policy.len() + 1 + subject.len();
        let Hash128 { h1, h2 } = match name.get_mut(..length) {
            Some(name) => {
                if let Some(place) = name.get_mut(..policy.len()) {
                    place.copy_from_slice(policy.as_bytes());
                }
                if let Some(place) = name.get_mut(policy.len() + 1..) {
                    place.copy_from_slice(subject.as_bytes());
                }
                self.0.hash(name)
            }
            None => self.of_long(policy, subject.as_bytes()),
        };
        Fingerprint::new(h1, h2)
    }

    /// The fingerprint of a shared counter under a policy. Differs from that of every subject, because it is not UTF-8.
    #[cold]
    pub(super) fn of_shared_counter(&self, policy: &str, number: u64) -> Fingerprint {
        let mut name = [BETWEEN; 9];
        if let Some(place) = name.first_chunk_mut() {
            *place = number.to_le_bytes();
        }
        let Hash128 { h1, h2 } = self.of_long(policy, &name);
        Fingerprint::new(h1, h2)
    }

    #[cold]
    fn of_long(&self, policy: &str, subject: &[u8]) -> Hash128 {
        let mut hasher = self.0;
        hasher.write(policy.as_bytes());
        hasher.write(&[BETWEEN]);
        hasher.write(subject);
        hasher.finish128()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn distinguishes_policy_and_subject() {
        let fingerprints = Fingerprinter::new();
        let parts = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("ab", "c\0"), ("ab\0", "c")];
        let distinct: HashSet<_> =
            parts.map(|(policy, subject)| fingerprints.of(policy, subject).place()).into();
        assert_eq!(distinct.len(), parts.len());
    }

    #[test]
    fn distinguishes_lengths() {
        let fingerprints = Fingerprinter::new();
        let names: Vec<_> = (0..3 * LONGEST_WHOLE).map(|length| "\0".repeat(length)).collect();
        let distinct: HashSet<_> = names.iter().map(|name| fingerprints.of("policy", name).place()).collect();
        assert_eq!(distinct.len(), names.len());
    }

    /// The result does not depend on the length limit, only the speed does.
    #[test]
    fn is_the_same_in_one_call_and_in_parts() {
        let fingerprints = Fingerprinter::new();
        for length in 0..LONGEST_WHOLE - "policy".len() {
            let name = "x".repeat(length);
            let Hash128 { h1, h2 } = fingerprints.of_long("policy", name.as_bytes());
            assert_eq!(fingerprints.of("policy", &name), Fingerprint::new(h1, h2), "{length}");
        }
    }

    #[test]
    fn every_byte_affects_both_halves() {
        let fingerprints = Fingerprinter::new();
        for length in 1..2 * LONGEST_WHOLE {
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
    fn depends_on_a_random_key() {
        let fingerprints: HashSet<_> =
            (0..100).map(|_| Fingerprinter::new().of("policy", "ada").place()).collect();
        assert_eq!(fingerprints.len(), 100);
    }

    #[test]
    fn spreads_consecutive_names() {
        let fingerprints = Fingerprinter::new();
        let mut buckets = [0; 64];
        for number in 0..64_000 {
            buckets[(fingerprints.of("default", &format!("key_{number}")).place() >> 58) as usize] += 1;
        }
        assert!(buckets.iter().all(|bucket| (800..1_200).contains(bucket)), "{buckets:?}");
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
