//! SHA-256 of a key.

use std::slice;

use sha2::{Digest as _, Sha256, block_api::compress256};

/// The initial hash value (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// SHA-256 of `text`.
pub(super) fn sha256(text: &[u8]) -> [u8; 32] {
    of_one_block(text).unwrap_or_else(|| Sha256::digest(text).into())
}

/// SHA-256 of a text that fits into one block with its padding: at most 55 bytes, as keys of most formats are. `None` for a
/// longer text.
///
/// Fills the block in place (FIPS 180-4, section 5.1.1). A streaming hasher would add about half as many instructions for its
/// buffer.
fn of_one_block(text: &[u8]) -> Option<[u8; 32]> {
    let mut block = [0; 64];
    let (message, bits) = block.split_last_chunk_mut()?;
    let (copy, padding) = message.split_at_mut_checked(text.len())?;
    *padding.first_mut()? = 0x80;
    copy.copy_from_slice(text);
    *bits = (8 * text.len() as u64).to_be_bytes();

    let mut state = INITIAL;
    compress256(&mut state, slice::from_ref(&block));

    let mut digest = [0; 32];
    for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lengths up to three blocks, with different bytes at every position.
    #[test]
    fn agrees_with_the_streaming_hasher_for_every_length() {
        for length in 0..=200_u8 {
            for start in [0, 1, 97, 250] {
                let text: Vec<u8> = (0..length).map(|at| at.wrapping_mul(37).wrapping_add(start)).collect();
                let ordinary: [u8; 32] = Sha256::digest(&text).into();
                assert_eq!(sha256(&text), ordinary, "{length} bytes");
            }
        }
    }

    #[test]
    fn one_block_holds_at_most_55_bytes() {
        assert!(of_one_block(&[b'a'; 55]).is_some());
        assert_eq!(of_one_block(&[b'a'; 56]), None);
        assert_eq!(of_one_block(&[b'a'; 64]), None);
    }
}
