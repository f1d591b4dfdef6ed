//! The format of keys: generates them from the operating system's randomness, and validates them without asking a store.
//!
//! ```text
//! sk_live_0123456789ABCDEFGHIJKLMNOP12ANzld
//! └┬┘└─┬─┘└────────────┬───────────┘│└─┬──┘
//!  │   │    26 random characters    │  CRC-32 of everything before it
//!  │   environment                  version of this layout
//!  prefix
//! ```

mod base62;
mod checksum;
mod random;

use std::fmt;
use std::ops::RangeInclusive;

use zeroize::Zeroizing;

pub use self::random::RandomnessUnavailable;
use self::{checksum::Checksum, random::push_random};
use super::{ApiKey, Environment};
use crate::ascii;

const LONGEST_PREFIX: usize = 16;

/// 62^21 < 2^128 < 62^22: fewer characters cannot hold 128 random bits.
const SHORTEST_RANDOM: usize = 22;
/// More than 154 bits. With any prefix the key has at most 55 bytes, which SHA-256 hashes in a single block.
const DEFAULT_RANDOM: usize = 26;
const LONGEST_RANDOM: usize = 64;

const VERSION: u8 = b'1';
const TAIL_LENGTH: usize = 1 + base62::DIGITS;

const LONGEST_GENERATED: usize = LONGEST_PREFIX + "_live_".len() + LONGEST_RANDOM + TAIL_LENGTH;

/// The number of random characters in a display prefix: 24 bits. 130 bits stay hidden by default, at least 107 for any length.
const DISPLAYED_RANDOM: usize = 4;

/// The format of a service's keys. Default: `sk_live_`, 26 random characters, a version and a checksum.
///
/// - **Prefix and environment come first**, so that people, logs and secret scanners recognise the key.
/// - **The random part** is 26 characters `[0-9A-Za-z]`, uniform and from the operating system: more than 154 bits.
/// - **The version** is `1`, the only version so far.
/// - **The checksum** is the CRC-32 (as in zlib) of everything before it, written as six base62 digits `0-9A-Za-z` with
///   the most significant first, as in GitHub's tokens. It detects every single wrong character, and all but one in 2^32
///   of other errors. This saves store lookups. **It is not security**: computing it needs no secret. A key is valid only
///   if the store knows its digest.
///
/// A secret scanner can match such keys with `sk_(live|test)_[0-9A-Za-z]{22,64}1[0-9A-Za-z]{6}`.
///
/// With a random part of the default length, a key consists of the prefix and its underscore (at most 17 bytes), the
/// environment and its underscore (5 bytes) and 33 characters: at most 55 bytes, which SHA-256 hashes in a single block.
///
/// ```
/// use tollgate_core::key::{Environment, KeyFormat};
///
/// let format = KeyFormat::new("sk")?;
/// let key = format.generate(Environment::Live)?;
///
/// let parsed = format.parse(key.expose_secret())?;
/// assert_eq!(parsed.environment(), Some(Environment::Live));
/// assert_eq!(parsed.display_prefix(), key.display_prefix());
///
/// assert!(format.parse("sk_live_0123456789ABCDEFGHIJKLMNOP12ANzld").is_ok());
/// assert!(format.parse("sk_live_0123456789ABCDEFGHIJKLMNOQ12ANzld").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Keys that were issued with another format keep working with a less strict one:
///
/// ```
/// use tollgate_core::key::{Environment, KeyFormat};
///
/// let published = KeyFormat::new("psk")?.without_checksum();
/// let parsed = published.parse("psk_test_8f3k-29dk_fj20")?;
/// assert_eq!(parsed.environment(), Some(Environment::Test));
///
/// assert!(KeyFormat::opaque().parse("f81d4fae-7dec-11d0-a765-00a0c91e6bf6").is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFormat {
    /// Includes the final underscore. Empty if keys have no prefix.
    prefix: Box<str>,
    checksum: Checksum,
    spells_environment: bool,
    random_length: usize,
    body: Body,
}

/// The part after the prefix and the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// A random part, the version and the checksum.
    Checked,
    /// Only the set of characters is known.
    Unchecked,
    /// Nothing is known: any visible ASCII.
    Opaque,
}

impl Body {
    /// The lengths of a whole key, in bytes.
    const fn key_lengths(self) -> RangeInclusive<usize> {
        match self {
            Self::Checked => SHORTEST_RANDOM + TAIL_LENGTH..=LONGEST_GENERATED,
            Self::Unchecked => 8..=200,
            Self::Opaque => 8..=512,
        }
    }

    /// Whether all bytes are allowed in a body of this kind.
    fn allows(self, body: &[u8]) -> bool {
        match self {
            Self::Checked => ascii::is_alphanumeric(body),
            Self::Unchecked => {
                body.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
            }
            Self::Opaque => body.iter().all(u8::is_ascii_graphic),
        }
    }
}

impl KeyFormat {
    /// Keys with this prefix, an environment, 26 random characters, a version and a checksum.
    ///
    /// The prefix has 1 to 16 bytes: lower-case letters and digits, starting with a letter, in words separated by single
    /// underscores (`sk`, `acme_v2`).
    ///
    /// # Errors
    /// [`InvalidKeyFormat`] for any other prefix.
    pub fn new(prefix: &str) -> Result<Self, InvalidKeyFormat> {
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        if prefix.len() > LONGEST_PREFIX
            || !prefix.starts_with(|first: char| first.is_ascii_lowercase())
            || !prefix.split('_').all(is_word)
        {
            return Err(InvalidKeyFormat(
                "a key prefix has 1 to 16 characters a-z and 0-9, starting with a letter, in words separated by single \
                 underscores; write `sk`, not `sk_`: the last underscore is added",
            ));
        }
        let prefix = format!("{prefix}_").into_boxed_str();
        Ok(Self {
            checksum: Checksum::with_prefix(&prefix),
            prefix,
            spells_environment: true,
            random_length: DEFAULT_RANDOM,
            body: Body::Checked,
        })
    }

    /// Keys without a known structure: 8 to 512 bytes of visible ASCII. For keys that were issued without a format.
    ///
    /// Such keys do not contain their environment, and the store is asked about every one of them. Generated keys are random
    /// characters only, which secret scanners do not recognise: prefer [`new`](Self::new) for new keys.
    pub fn opaque() -> Self {
        Self {
            prefix: Box::default(),
            checksum: Checksum::with_prefix(""),
            spells_environment: false,
            random_length: DEFAULT_RANDOM,
            body: Body::Opaque,
        }
    }

    /// Generates keys with `length` random characters instead of 26.
    ///
    /// Keys of every permitted length remain valid, so you can change this while older keys are in use.
    ///
    /// # Errors
    /// [`InvalidKeyFormat`] if `length` is below 22 or above 64. A key needs at least 128 random bits, and
    /// 62^21 < 2^128 < 62^22.
    pub fn with_random_length(mut self, length: usize) -> Result<Self, InvalidKeyFormat> {
        if !(SHORTEST_RANDOM..=LONGEST_RANDOM).contains(&length) {
            return Err(InvalidKeyFormat(
                "the random part of a key has 22 to 64 characters; 22 are needed for 128 random bits",
            ));
        }
        self.random_length = length;
        Ok(self)
    }

    /// Omits the environment: `sk_`, then the random part. The environment is then not known from the key.
    pub fn without_environment(mut self) -> Self {
        self.spells_environment = false;
        self
    }

    /// Omits version and checksum. For a published contract whose keys have none, such as `psk_live_<random>`.
    ///
    /// Keys are then recognised by prefix and environment, followed by at least one of the characters `[A-Za-z0-9_-]`,
    /// 8 to 200 bytes in total. An [opaque](Self::opaque) format has no checksum and does not change.
    pub fn without_checksum(mut self) -> Self {
        if self.body == Body::Checked {
            self.body = Body::Unchecked;
        }
        self
    }

    /// Generates a new key for this environment from the operating system's randomness.
    ///
    /// # Errors
    /// [`RandomnessUnavailable`] if the operating system does not return random bytes. No key is generated then.
    pub fn generate(&self, environment: Environment) -> Result<ApiKey, RandomnessUnavailable> {
        self.generate_from(environment, getrandom::fill)
    }

    fn generate_from(
        &self,
        environment: Environment,
        fill: impl FnMut(&mut [u8]) -> Result<(), getrandom::Error>,
    ) -> Result<ApiKey, RandomnessUnavailable> {
        // Allocated once: a growing string would leave unwiped copies in freed memory.
        let mut secret = Zeroizing::new(String::with_capacity(LONGEST_GENERATED));
        secret.push_str(&self.prefix);
        if self.spells_environment {
            secret.push_str(environment.as_str());
            secret.push('_');
        }
        let display_length = secret.len() + DISPLAYED_RANDOM;
        push_random(&mut secret, self.random_length, fill)?;
        if self.body == Body::Checked {
            secret.push(char::from(VERSION));
            let checksum = self.checksum.of(secret.as_bytes().get(self.prefix.len()..).unwrap_or_default());
            secret.extend(base62::digits(checksum).map(char::from));
        }
        Ok(ApiKey::new(secret, display_length, environment))
    }

    /// Parses a key of this format, given as text or as bytes, without allocating. A key that parses is well formed, but not
    /// necessarily valid: only the store knows that.
    ///
    /// # Errors
    /// [`MalformedKey`] with the first error found. The length is checked first, which bounds the work.
    pub fn parse<'k>(
        &self,
        presented: &'k (impl AsRef<[u8]> + ?Sized),
    ) -> Result<ParsedKey<'k>, MalformedKey> {
        self.parse_bytes(presented.as_ref())
    }

    fn parse_bytes<'k>(&self, presented: &'k [u8]) -> Result<ParsedKey<'k>, MalformedKey> {
        if !self.body.key_lengths().contains(&presented.len()) {
            return Err(MalformedKey::LENGTH);
        }
        let unprefixed = presented.strip_prefix(self.prefix.as_bytes()).ok_or(MalformedKey::PREFIX)?;
        let (environment, body) = if self.spells_environment {
            split_environment(unprefixed).ok_or(MalformedKey::ENVIRONMENT)?
        } else {
            (None, unprefixed)
        };
        if !self.body.allows(body) {
            return Err(MalformedKey::CHARACTER);
        }
        let random_length = match self.body {
            Body::Checked => self.verify_tail(unprefixed, body.len())?,
            Body::Unchecked | Body::Opaque => body.len(),
        };
        if random_length == 0 {
            return Err(MalformedKey::LENGTH);
        }
        // At most half, so that part of a short key stays hidden.
        let shown = DISPLAYED_RANDOM.min(random_length / 2);
        // Always `Some`: it is shorter than the key.
        let displayed = presented.get(..presented.len() - body.len() + shown).unwrap_or_default();
        Ok(ParsedKey { environment, displayed })
    }

    /// Checks version and checksum of a key without its prefix. Returns the length of the random part.
    fn verify_tail(&self, unprefixed: &[u8], body_length: usize) -> Result<usize, MalformedKey> {
        let random_length = body_length.saturating_sub(TAIL_LENGTH);
        if !(SHORTEST_RANDOM..=LONGEST_RANDOM).contains(&random_length) {
            return Err(MalformedKey::LENGTH);
        }
        let (covered, found) = unprefixed.split_last_chunk().ok_or(MalformedKey::LENGTH)?;
        if covered.last() != Some(&VERSION) {
            return Err(MalformedKey::VERSION);
        }
        if base62::number(*found) != u64::from(self.checksum.of(covered)) {
            return Err(MalformedKey::CHECKSUM);
        }
        Ok(random_length)
    }
}

/// Splits the environment off a key without its prefix.
fn split_environment(unprefixed: &[u8]) -> Option<(Option<Environment>, &[u8])> {
    let (environment, body) = unprefixed.split_first_chunk()?;
    // Two array comparisons: a pattern would compare byte by byte.
    if environment == b"live_" {
        Some((Some(Environment::Live), body))
    } else if environment == b"test_" {
        Some((Some(Environment::Test), body))
    } else {
        None
    }
}

/// What a presented key says about itself. Does not hold the rest of the key.
#[derive(Clone, Copy)]
pub struct ParsedKey<'k> {
    environment: Option<Environment>,
    // ASCII. Converted to text only on demand.
    displayed: &'k [u8],
}

impl<'k> ParsedKey<'k> {
    /// The environment in the key, or `None` if the format has none.
    pub const fn environment(&self) -> Option<Environment> {
        self.environment
    }

    /// The beginning of the key, which is safe in lists and logs: prefix, environment and the first four of the
    /// characters that follow, such as `sk_live_a1B2`. At most half of those characters.
    pub fn display_prefix(&self) -> &'k str {
        std::str::from_utf8(self.displayed).unwrap_or_default()
    }
}

impl fmt::Debug for ParsedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParsedKey")
            .field("environment", &self.environment)
            .field("display_prefix", &self.display_prefix())
            .finish()
    }
}

/// The text is not a key of the format. Contains the reason, but no part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedKey {
    reason: &'static str,
}

impl MalformedKey {
    const LENGTH: Self =
        Self::new("its length does not match the format; check that it was copied completely");
    const PREFIX: Self =
        Self::new("it does not start with this service's prefix; check that it is the right key");
    const ENVIRONMENT: Self =
        Self::new("its prefix is not followed by `live_` or `test_`; check that it is the right key");
    const CHARACTER: Self =
        Self::new("it contains a character that keys do not use; look for spaces and quotes");
    const VERSION: Self = Self::new("its version is unknown; check that it was copied completely");
    const CHECKSUM: Self = Self::new("its checksum does not match; check it for typing errors");

    const fn new(reason: &'static str) -> Self {
        Self { reason }
    }

    /// The reason, as a clause about "it", the key.
    pub const fn reason(&self) -> &'static str {
        self.reason
    }
}

impl fmt::Display for MalformedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed key: {}", self.reason)
    }
}

impl std::error::Error for MalformedKey {}

/// The key format is invalid. The message says how to correct it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidKeyFormat(&'static str);

impl fmt::Display for InvalidKeyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidKeyFormat {}

#[cfg(test)]
mod tests;
