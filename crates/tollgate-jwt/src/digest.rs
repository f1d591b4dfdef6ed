//! The digest by which a token is found in the cache.
//!
//! SHA-256 of a token of 700 bytes costs more than all other work on a key that is cached. This digest is NH, the universal hash of UMAC
//! (RFC 4418, section 5.2.2, with words of 64 bits): one multiplication for 16 bytes. For two different texts of one length that
//! are chosen without knowledge of the key, NH gives equal sums with a probability of at most 2^-64. The second sum uses the same
//! key, shifted by one pair of words, which squares that probability (section 5.2: "Toeplitz").
//!
//! The key is random, is never written anywhere, and differs for each verifier. No sum leaves the process, so callers cannot learn the
//! key from them. It is *not* a digest to publish or to store.

use std::hash::{BuildHasher as _, RandomState};

/// The digest of a token, under the key of one [`Digester`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenDigest {
    length: usize,
    sums: [u128; 2],
}

pub(crate) struct Digester {
    max_bytes: usize,
    // One pair of words for 16 bytes of the longest token, and one more for the second sum.
    key: Box<[[u64; 2]]>,
}

impl Digester {
    /// For tokens of at most this many bytes.
    pub(crate) fn new(max_bytes: usize) -> Self {
        // SipHash under a key from the operating system, in counter mode.
        let words = RandomState::new();
        let pairs = 0..max_bytes.div_ceil(16) + 2;
        Self { max_bytes, key: pairs.map(|pair| [0, 1].map(|half| words.hash_one((pair, half)))).collect() }
    }

    /// The digest of a token. `None` if it is too long.
    #[inline]
    pub(crate) fn digest(&self, token: &[u8]) -> Option<TokenDigest> {
        if token.len() > self.max_bytes {
            return None;
        }
        let (blocks, rest) = token.as_chunks::<16>();
        let mut last = [0; 16];
        last.get_mut(..rest.len())?.copy_from_slice(rest);
        let mut sums = [0_u128; 2];
        // The last block may be empty. It counts all the same: the lengths of the texts are compared, too.
        for (block, keys) in blocks.iter().chain([&last]).zip(self.key.iter().zip(self.key.get(1..)?)) {
            let words = words(block);
            let [first, second] = &mut sums;
            *first = first.wrapping_add(product(words, *keys.0));
            *second = second.wrapping_add(product(words, *keys.1));
        }
        Some(TokenDigest { length: token.len(), sums })
    }
}

#[inline]
fn product([one, two]: [u64; 2], key: [u64; 2]) -> u128 {
    u128::from(one.wrapping_add(key[0])) * u128::from(two.wrapping_add(key[1]))
}

#[inline]
fn words(block: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(*block);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    [both as u64, (both >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn differs_for_each_byte_length_and_key() {
        let digester = Digester::new(200);
        let text = [b'a'; 200];
        let mut seen = HashSet::new();
        for length in 0..=200 {
            assert!(seen.insert(digester.digest(&text[..length]).unwrap()), "{length} bytes");
        }
        for at in 0..200 {
            for bit in 0..8 {
                let mut other = text;
                other[at] ^= 1 << bit;
                assert!(seen.insert(digester.digest(&other).unwrap()), "bit {bit} of byte {at}");
            }
        }
        assert!(seen.insert(Digester::new(200).digest(&text).unwrap()), "another key");
        assert!(digester.digest(&text) == digester.digest(&text), "the same");
        assert!(digester.digest(&[b'a'; 201]).is_none());
    }

    /// Zeros are the worst case of a sum without a key, and blocks that change places that of a sum with one key for all.
    #[test]
    fn depends_on_padding_and_order() {
        let digester = Digester::new(64);
        let texts: [&[u8]; 6] =
            [&[], &[0], &[0; 16], &[0; 32], b"0123456789abcdefABCDEF", b"ABCDEF0123456789abcdef"];
        let digests: HashSet<_> = texts.iter().map(|text| digester.digest(text).unwrap()).collect();
        assert_eq!(digests.len(), texts.len());
    }
}
