//! What a store keeps of a key, and how a presented key is found.
//!
//! A generated key has at least 128 random bits. They cannot be guessed, so one fast hash is enough; a slow hash would only
//! cost CPU time. A pepper adds a secret that is not in the database: without it, stolen digests cannot be tested against
//! guessed keys. This matters if you accept keys that may be guessable.

use std::{fmt, ops::Deref, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use smallvec::SmallVec;

use super::sha256::sha256;

/// SHA-256 of a key, or HMAC-SHA-256 of it under a [`Pepper`]. A store keeps this instead of the key, and finds the key by it.
///
/// Comparison is not constant-time and does not have to be: timing could reveal only the digest of the presented key, and a
/// caller cannot choose a digest without choosing the key.
///
/// `Debug` hides the bytes: a guessable key could be found from them.
///
/// ```
/// use tollgate_core::key::Digest;
///
/// let digest = Digest::of("sk_live_a1B2c3D4");
/// assert_eq!(Digest::from_parts(*digest.as_bytes(), digest.pepper()), digest);
/// assert_eq!(format!("{digest:?}"), "Digest(..)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    bytes: [u8; 32],
    pepper: Option<PepperId>,
}

impl Digest {
    /// SHA-256 of the key's bytes, without a pepper.
    #[inline]
    pub fn of(secret: impl AsRef<[u8]>) -> Self {
        Self { bytes: sha256(secret.as_ref()), pepper: None }
    }

    /// A digest read from a store, with the ID of its pepper.
    pub const fn from_parts(bytes: [u8; 32], pepper: Option<PepperId>) -> Self {
        Self { bytes, pepper }
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The ID of its pepper, or `None` for plain SHA-256.
    pub const fn pepper(&self) -> Option<PepperId> {
        self.pepper
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

/// The ID of a [`Pepper`], stored beside each digest made with it. Not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PepperId(u16);

impl PepperId {
    /// Identifies a pepper by a number of your choice. Do not reuse a number for another pepper.
    pub const fn new(id: u16) -> Self {
        Self(id)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for PepperId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A secret that is part of every digest and is kept apart from the store: the key of an HMAC-SHA-256 (RFC 2104).
///
/// Holds the HMAC's prepared state, not the secret, so a digest does not repeat the key schedule.
///
/// ```
/// use tollgate_core::key::{Digest, Pepper, PepperId};
///
/// let pepper = Pepper::new(PepperId::new(1), "32 bytes from a secrets manager.")?;
/// let digest = pepper.digest("sk_live_a1B2c3D4");
///
/// assert_eq!(digest.pepper(), Some(PepperId::new(1)));
/// assert_ne!(digest.as_bytes(), Digest::of("sk_live_a1B2c3D4").as_bytes());
/// # Ok::<(), tollgate_core::key::InvalidPepper>(())
/// ```
pub struct Pepper {
    id: PepperId,
    keyed: Hmac<Sha256>,
}

impl Pepper {
    /// The minimum length of a pepper in bytes: 128 bits if they are random. 32 random bytes are recommended.
    const SHORTEST: usize = 16;

    /// Prepares a pepper. The caller must wipe its own copy of `secret` if that matters.
    ///
    /// # Errors
    /// [`InvalidPepper`] if `secret` has fewer than 16 bytes.
    pub fn new(id: PepperId, secret: impl AsRef<[u8]>) -> Result<Self, InvalidPepper> {
        let secret = secret.as_ref();
        if secret.len() < Self::SHORTEST {
            return Err(InvalidPepper(()));
        }
        // HMAC accepts keys of any length: this cannot fail.
        let keyed = Hmac::new_from_slice(secret).map_err(|_| InvalidPepper(()))?;
        Ok(Self { id, keyed })
    }

    /// The pepper's ID.
    pub const fn id(&self) -> PepperId {
        self.id
    }

    /// HMAC-SHA-256 of the key's bytes under this pepper.
    pub fn digest(&self, secret: impl AsRef<[u8]>) -> Digest {
        let bytes = self.keyed.clone().chain_update(secret).finalize().into_bytes().into();
        Digest { bytes, pepper: Some(self.id) }
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pepper").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The pepper is too short to be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPepper(());

impl fmt::Display for InvalidPepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pepper is too short: use at least 16 random bytes, preferably 32")
    }
}

impl std::error::Error for InvalidPepper {}

/// The peppers for new keys and for lookups. The default is [none](Self::none).
///
/// New keys use the current pepper. A lookup tries all peppers. During a rotation:
///
/// ```
/// use tollgate_core::key::{Pepper, PepperId, Peppers};
///
/// let old = Pepper::new(PepperId::new(1), "the pepper of last year ........")?;
/// let new = Pepper::new(PepperId::new(2), "the pepper of this year ........")?;
/// let peppers = Peppers::new(new).with_previous(old);
///
/// let digests = peppers.all("sk_live_a1B2c3D4");
/// assert_eq!(digests.len(), 2);
/// assert_eq!(digests.first(), Some(&peppers.current("sk_live_a1B2c3D4")));
/// # Ok::<(), tollgate_core::key::InvalidPepper>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Peppers {
    // Shared, so that a clone does not copy the secret.
    current: Option<Arc<Pepper>>,
    previous: Vec<Arc<Pepper>>,
    also_unpeppered: bool,
}

impl Peppers {
    /// No pepper: plain SHA-256.
    pub fn none() -> Self {
        Self::default()
    }

    /// Issues and finds keys with `current`.
    pub fn new(current: Pepper) -> Self {
        Self { current: Some(Arc::new(current)), ..Self::default() }
    }

    /// Also finds keys by a previous pepper. Add the most recent one first: lookups try them in this order. Each pepper needs
    /// its own ID: a store identifies the pepper of a digest only by the ID.
    pub fn with_previous(mut self, previous: Pepper) -> Self {
        self.previous.push(Arc::new(previous));
        self
    }

    /// Also finds keys by their plain digest, tried last. For a store that started without a pepper.
    pub fn with_unpeppered(mut self) -> Self {
        self.also_unpeppered = true;
        self
    }

    /// The digest to store for a new key.
    #[inline]
    pub fn current(&self, secret: impl AsRef<[u8]>) -> Digest {
        match &self.current {
            None => Digest::of(secret),
            Some(pepper) => pepper.digest(secret),
        }
    }

    /// The digest of a presented key, if there is only one to look up. This is the case outside a rotation. Same digest as
    /// [`all`](Self::all), without a list.
    ///
    /// ```
    /// use tollgate_core::key::{Digest, Pepper, PepperId, Peppers};
    ///
    /// assert_eq!(Peppers::none().only("sk_live_a1B2c3D4"), Some(Digest::of("sk_live_a1B2c3D4")));
    ///
    /// let pepper = Pepper::new(PepperId::new(1), "32 bytes from a secrets manager.")?;
    /// assert_eq!(Peppers::new(pepper).with_unpeppered().only("sk_live_a1B2c3D4"), None);
    /// # Ok::<(), tollgate_core::key::InvalidPepper>(())
    /// ```
    #[inline]
    pub fn only(&self, secret: impl AsRef<[u8]>) -> Option<Digest> {
        let is_only = self.previous.is_empty() && !(self.also_unpeppered && self.current.is_some());
        is_only.then(|| self.current(secret))
    }

    /// The digests to look up for a presented key, the current one first. Does not allocate for one or two.
    pub fn all(&self, secret: impl AsRef<[u8]>) -> Digests {
        let secret = secret.as_ref();
        let mut digests = SmallVec::new();
        digests.push(self.current(secret));
        digests.extend(self.previous.iter().map(|pepper| pepper.digest(secret)));
        if self.also_unpeppered && self.current.is_some() {
            digests.push(Digest::of(secret));
        }
        Digests(digests)
    }
}

/// The digests to look up for a presented key, from [`Peppers::all`]. Never empty.
#[derive(Clone, Debug)]
pub struct Digests(SmallVec<[Digest; 2]>);

impl Deref for Digests {
    type Target = [Digest];

    fn deref(&self) -> &[Digest] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Pepper, PepperId, Peppers};

    fn pepper(id: u16) -> Pepper {
        Pepper::new(PepperId::new(id), format!("a pepper of many bytes, number {id}")).unwrap()
    }

    fn hex(digest: Digest) -> String {
        use std::fmt::Write;
        digest.as_bytes().iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    /// FIPS 180-2, appendices B.1 and B.2.
    #[test]
    fn a_plain_digest_is_sha_256() {
        assert_eq!(
            hex(Digest::of("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hex(Digest::of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
        assert_eq!(Digest::of("abc").pepper(), None);
    }

    /// RFC 4231, test cases 1, 6 and 7.
    #[test]
    fn a_peppered_digest_is_hmac_sha_256() {
        let short = Pepper::new(PepperId::new(7), [0x0b; 20]).unwrap();
        let long = Pepper::new(PepperId::new(8), [0xaa; 131]).unwrap();
        assert_eq!(
            hex(short.digest("Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            hex(long.digest("Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        let data = "This is a test using a larger than block-size key and a larger than block-size data. \
                    The key needs to be hashed before being used by the HMAC algorithm.";
        let expected = "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2";
        assert_eq!(hex(long.digest(data)), expected);
        assert_eq!(hex(long.digest(data)), expected, "a pepper is not used up");
        assert_eq!(long.digest(data).pepper(), Some(PepperId::new(8)));
    }

    #[test]
    fn digests_under_different_peppers_differ_even_if_their_bytes_do_not() {
        let bytes = *Digest::of("key").as_bytes();
        assert_ne!(Digest::from_parts(bytes, None), Digest::from_parts(bytes, Some(PepperId::new(0))));
    }

    #[test]
    fn refuses_a_short_pepper() {
        assert!(Pepper::new(PepperId::new(1), [0; 16]).is_ok());
        let error = Pepper::new(PepperId::new(1), [0; 15]).unwrap_err();
        assert!(error.to_string().contains("at least 16"), "{error}");
    }

    #[test]
    fn without_a_pepper_there_is_one_plain_digest() {
        for peppers in [Peppers::none(), Peppers::default(), Peppers::none().with_unpeppered()] {
            assert_eq!(peppers.current("key"), Digest::of("key"));
            assert_eq!(*peppers.all("key"), [Digest::of("key")]);
        }
    }

    #[test]
    fn issues_with_the_current_pepper_and_looks_up_with_all_in_order() {
        let peppers =
            Peppers::new(pepper(3)).with_unpeppered().with_previous(pepper(2)).with_previous(pepper(1));
        assert_eq!(peppers.current("key"), pepper(3).digest("key"));
        assert_eq!(
            *peppers.all("key"),
            [pepper(3).digest("key"), pepper(2).digest("key"), pepper(1).digest("key"), Digest::of("key")]
        );
    }

    #[test]
    fn a_previous_pepper_is_looked_up_but_not_used_for_new_keys() {
        let peppers = Peppers::none().with_previous(pepper(1));
        assert_eq!(peppers.current("key"), Digest::of("key"));
        assert_eq!(*peppers.all("key"), [Digest::of("key"), pepper(1).digest("key")]);
    }

    #[test]
    fn two_digests_do_not_allocate() {
        let peppers = Peppers::new(pepper(2)).with_previous(pepper(1));
        assert!(!peppers.all("key").0.spilled());
    }

    #[test]
    fn debug_hides_the_pepper_and_the_digest() {
        let peppers = Peppers::new(pepper(2)).with_unpeppered();
        assert_eq!(format!("{:?}", pepper(2)), "Pepper { id: PepperId(2), .. }");
        assert_eq!(
            format!("{peppers:?}"),
            "Peppers { current: Some(Pepper { id: PepperId(2), .. }), previous: [], also_unpeppered: true }"
        );
        assert_eq!(format!("{:?}", peppers.all("key")), "Digests([Digest(..), Digest(..)])");
    }
}
