//! Keys: their format, how they are generated, and what is stored of them.
//!
//! A [`KeyFormat`] generates and parses keys. An [`ApiKey`] holds a new key, so that it can be shown to its owner once. A store
//! holds only the key's [`Digest`].

mod api_key;
mod digest;
mod format;
mod sha256;

use std::fmt;
use std::str::FromStr;

pub use api_key::ApiKey;
pub use digest::{Digest, Digests, InvalidPepper, Pepper, PepperId, Peppers};
pub use format::{InvalidKeyFormat, KeyFormat, MalformedKey, ParsedKey, RandomnessUnavailable};

/// What a key acts on: real data or test data.
///
/// ```
/// use tollgate_core::key::Environment;
///
/// assert_eq!(Environment::Live.to_string(), "live");
/// assert_eq!("test".parse(), Ok(Environment::Test));
/// assert!("production".parse::<Environment>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Environment {
    /// Real data: `live`.
    Live,
    /// Test data: `test`.
    Test,
}

impl Environment {
    const ALL: [Self; 2] = [Self::Live, Self::Test];

    /// The environment's name as it appears in keys: `live` or `test`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Environment {
    type Err = InvalidEnvironment;

    /// Parses an environment's name, exactly as [`as_str`](Self::as_str) writes it.
    ///
    /// # Errors
    /// [`InvalidEnvironment`] for any other text, including other letter case.
    fn from_str(name: &str) -> Result<Self, InvalidEnvironment> {
        Self::ALL.into_iter().find(|environment| environment.as_str() == name).ok_or(InvalidEnvironment(()))
    }
}

/// The text is not the name of an [`Environment`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidEnvironment(());

impl fmt::Display for InvalidEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown environment: write `live` or `test`, in lower case")
    }
}

impl std::error::Error for InvalidEnvironment {}

#[cfg(test)]
mod tests {
    use super::Environment;

    #[test]
    fn every_environment_reads_its_own_name() {
        for environment in Environment::ALL {
            assert_eq!(environment.to_string().parse(), Ok(environment));
        }
    }

    #[test]
    fn refuses_other_names_and_says_which_exist() {
        for name in ["", "LIVE", " live", "prod"] {
            let error = name.parse::<Environment>().unwrap_err().to_string();
            assert!(error.contains("`live` or `test`"), "{error}");
        }
    }
}
