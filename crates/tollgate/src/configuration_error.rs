//! Configuration errors.

use std::{borrow::Cow, error::Error, fmt};

/// The configuration is invalid. The message says what to change. Reported at start-up, before the first request.
#[derive(Clone, Debug)]
pub struct ConfigurationError(Cow<'static, str>);

impl ConfigurationError {
    /// For start-up checks of your own. The message names what is wrong, and says what to change.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConfigurationError {}
