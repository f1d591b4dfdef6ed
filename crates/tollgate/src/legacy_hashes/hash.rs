//! The hashes of legacy keys.

use std::sync::Arc;

use tollgate_core::key::{Digest, Pepper};

/// How the hashes were made, as far as they do not say so themselves.
#[derive(Default)]
pub(super) struct Scheme {
    pub(super) hmac_keys: Vec<Arc<Pepper>>,
}

impl Scheme {
    /// Whether `hash` is the hash of `secret`. May take a tenth of a second.
    pub(super) fn matches(&self, secret: &[u8], id: &str, hash: &str) -> bool {
        let is_match = if hash.starts_with("$2") {
            bcrypt(secret, hash)
        } else if hash.starts_with("$argon2") {
            argon2(secret, hash)
        } else {
            read_hex(hash).map(|hash| self.is_fast_hash(secret, &hash))
        };
        is_match.unwrap_or_else(|| {
            tracing::error!(
                target: "tollgate",
                key = id,
                "the hash of a legacy key is of an unknown kind, and the key is refused: enable the feature `bcrypt` or `argon2`, or correct the hash"
            );
            false
        })
    }

    /// The time of the comparison reveals nothing: the caller sent the secret, and knows its hash.
    fn is_fast_hash(&self, secret: &[u8], hash: &[u8; 32]) -> bool {
        Digest::of(secret).as_bytes() == hash
            || self.hmac_keys.iter().any(|key| key.digest(secret).as_bytes() == hash)
    }
}

/// `None` if it is no such hash.
#[cfg(feature = "bcrypt")]
fn bcrypt(secret: &[u8], hash: &str) -> Option<bool> {
    bcrypt::verify(secret, hash).ok()
}

#[cfg(not(feature = "bcrypt"))]
fn bcrypt(_secret: &[u8], _hash: &str) -> Option<bool> {
    None
}

/// `None` if it is no such hash.
#[cfg(feature = "argon2")]
fn argon2(secret: &[u8], hash: &str) -> Option<bool> {
    use argon2::{
        Argon2,
        password_hash::{PasswordVerifier as _, phc::PasswordHash},
    };

    let hash = PasswordHash::new(hash).ok()?;
    Some(Argon2::default().verify_password(secret, &hash).is_ok())
}

#[cfg(not(feature = "argon2"))]
fn argon2(_secret: &[u8], _hash: &str) -> Option<bool> {
    None
}

/// 64 hexadecimal digits.
fn read_hex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks().0) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use tollgate_core::key::PepperId;

    use super::*;

    // FIPS 180-2, appendix B.1; RFC 4231, test case 1.
    const SHA_256_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const HMAC_OF_HI_THERE: &str = "B0344C61D8DB38535CA8AFCEAF0BF12B881DC200C9833DA726E9376C2E32CFF7";

    #[test]
    fn fast_hashes_are_recognised_by_their_64_digits() {
        let plain = Scheme::default();
        assert!(plain.matches(b"abc", "key", SHA_256_OF_ABC));
        assert!(!plain.matches(b"abd", "key", SHA_256_OF_ABC));
        assert!(!plain.matches(b"Hi There", "key", HMAC_OF_HI_THERE));
        let key = Pepper::new(PepperId::new(0), [0x0b; 20]).unwrap();
        let keyed = Scheme { hmac_keys: vec![Arc::new(key)] };
        assert!(keyed.matches(b"Hi There", "key", HMAC_OF_HI_THERE));
        assert!(keyed.matches(b"abc", "key", SHA_256_OF_ABC), "both kinds may be in one table");
    }

    #[test]
    fn other_text_matches_nothing() {
        for hash in
            ["", "abc", "$2b$", "$argon2id$", "$9$x", &SHA_256_OF_ABC[1..], &format!("{SHA_256_OF_ABC}0")]
        {
            assert!(!Scheme::default().matches(b"abc", "key", hash), "{hash}");
        }
        assert!(!Scheme::default().matches(b"abc", "key", &SHA_256_OF_ABC.replace('a', "+")));
    }

    /// A published vector of bcrypt's: `crypt_blowfish`'s own test of `U*U`.
    #[cfg(feature = "bcrypt")]
    #[test]
    fn bcrypt_is_recognised_by_its_prefix() {
        let hash = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        assert!(Scheme::default().matches(b"U*U", "key", hash));
        assert!(!Scheme::default().matches(b"U*V", "key", hash));
    }

    /// A published vector of Argon2's: the reference implementation's own test.
    #[cfg(feature = "argon2")]
    #[test]
    fn argon2_is_recognised_by_its_prefix() {
        let hash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        assert!(Scheme::default().matches(b"password", "key", hash));
        assert!(!Scheme::default().matches(b"passwore", "key", hash));
    }
}
