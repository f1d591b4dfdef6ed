//! Exit codes and error messages.

use std::process::ExitCode;

use tollgate::{credits::CreditAdminError, denial::Unavailable, manage::KeyAdminError};

use crate::output::visible;

/// The exit codes. `--help` lists them, and scripts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    /// The key is invalid, a ledger differs, or the user has not confirmed.
    No = 1,
    /// An invalid command line. clap uses the same code.
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Database = 5,
    Refused = 6,
    Output = 7,
    /// Ended by a signal: 128 plus its number, as in shells.
    Interrupted = 130,
    #[cfg(unix)]
    Quit = 131,
    #[cfg(unix)]
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error message, which says what to do and contains no secret, and its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(crate) fn no_such_key(id: &str) -> Self {
        // A secret in place of an identifier must not be repeated in the message.
        let message = if ["_live_", "_test_"].iter().any(|environment| id.contains(environment)) {
            "this is a secret, not an identifier: `tollgate verify` reads a secret from standard input and shows its key"
                .to_owned()
        } else if id.starts_with("key_") {
            format!("key not found: `{}`; `tollgate keys list` lists all keys", visible(id))
        } else {
            "key not found: no key has this identifier; `tollgate keys list` lists all keys".to_owned()
        };
        Self::new(Exit::NotFound, message)
    }
}

impl From<KeyAdminError> for Failure {
    fn from(error: KeyAdminError) -> Self {
        let exit = match error {
            KeyAdminError::NotFound => Exit::NotFound,
            KeyAdminError::NameTaken | KeyAdminError::KeyTaken | KeyAdminError::Revoked => Exit::Conflict,
            KeyAdminError::Unavailable(_) => Exit::Database,
            _ => Exit::Refused,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<CreditAdminError> for Failure {
    fn from(error: CreditAdminError) -> Self {
        let exit = match error {
            CreditAdminError::NotFound => Exit::NotFound,
            CreditAdminError::Unavailable(_) => Exit::Database,
            _ => Exit::Refused,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<Unavailable> for Failure {
    fn from(error: Unavailable) -> Self {
        KeyAdminError::from(error).into()
    }
}
