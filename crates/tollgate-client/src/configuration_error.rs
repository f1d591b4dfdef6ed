//! Configuration errors.

use std::{borrow::Cow, convert::Infallible, error::Error, fmt};

/// The configuration is invalid. The message says what to change, and contains no key.
#[derive(Clone, Debug)]
pub struct ConfigurationError(Cow<'static, str>);

impl ConfigurationError {
    pub(crate) fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConfigurationError {}

// `Origin: TryInto<Origin>` cannot fail.
impl From<Infallible> for ConfigurationError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
