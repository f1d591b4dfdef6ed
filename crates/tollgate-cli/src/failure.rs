//! How the program ends: by an exit code, and one line if something went wrong.

use std::process::ExitCode;

use tollgate::{denial::Unavailable, manage::KeyAdminError};

use crate::output::table::visible;

/// The exit codes. `--help` lists them, and scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    /// What was asked has the answer no.
    No = 1,
    /// clap's own code for a command line that it does not understand.
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Database = 5,
    Refused = 6,
    Output = 7,
    /// 128 and the number of the signal, as shells have it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What went wrong, and what to do about it: one sentence that holds no secret.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) sentence: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self { exit, sentence: sentence.into() }
    }

    pub(crate) fn no_such_key(id: &str) -> Self {
        // A secret in the place of an identifier is a mistake to be told of, and not to be repeated.
        let sentence = if ["_live_", "_test_"].iter().any(|environment| id.contains(environment)) {
            "this is a secret, not an identifier: `tollgate verify` reads it from the standard input and tells whose it is"
                .to_owned()
        } else {
            format!("there is no key `{}`: `tollgate keys list` lists those that there are", visible(id))
        };
        Self::new(Exit::NotFound, sentence)
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

impl From<Unavailable> for Failure {
    fn from(error: Unavailable) -> Self {
        KeyAdminError::from(error).into()
    }
}
