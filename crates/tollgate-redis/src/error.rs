//! Errors of a connection.

use std::{error::Error, fmt};

/// The settings are wrong, or the server cannot be reached. The text contains no password.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectError(String);

impl ConnectError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectError").field(&self.0).finish()
    }
}

impl Error for ConnectError {}
