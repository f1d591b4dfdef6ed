//! The checksum of keys: CRC-32, as in zlib.

use std::fmt;

use crc32fast::Hasher;

/// The CRC-32 state after the key's prefix. It is computed once, together with the detection of CPU features, so a request pays
/// for neither. The rest of a default key is two blocks of 16 bytes, and only whole blocks are fast.
#[derive(Clone)]
pub(super) struct Checksum(Hasher);

impl Checksum {
    /// The checksum of keys that begin with `prefix`.
    pub(super) fn with_prefix(prefix: &str) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(prefix.as_bytes());
        Self(hasher)
    }

    /// The checksum of the prefix followed by `covered`.
    pub(super) fn of(&self, covered: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(covered);
        hasher.finalize()
    }
}

impl PartialEq for Checksum {
    fn eq(&self, other: &Self) -> bool {
        self.of(b"") == other.of(b"")
    }
}

impl Eq for Checksum {}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checksum(..)")
    }
}
