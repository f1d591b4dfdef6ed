//! What goes wrong with a database, in words that hold no secret.

use std::fmt;

use tollgate_core::{denial::Unavailable, manage::KeyAdminError};

/// A question to the database that got no answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The database, or the way to it.
    Database(sqlx::Error),
    /// It took longer than it may.
    TooSlow,
    /// A row holds what this version does not understand.
    Unreadable(&'static str),
    /// What keeps the store going has stopped with its runtime.
    Stopped,
}

impl Fault {
    /// Whether a row cannot be written since another one has the same of something.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_unique_violation())
    }

    /// The database's own code for what went wrong, if it was the database.
    pub(crate) fn code(&self) -> Option<String> {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.code().map(Into::into),
            _ => None,
        }
    }

    /// Whether the connection was dead before the question could be asked.
    pub(crate) fn is_of_the_connection(&self) -> bool {
        let Self::Database(error) = self else { return false };
        match error {
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
            // Class 57, "operator intervention": the server goes down.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
            _ => false,
        }
    }
}

impl fmt::Display for Fault {
    /// sqlx's words only where it is known what they hold: a connection URL must never get into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSlow => f.write_str("the database did not answer in time"),
            Self::Unreadable(what) => write!(
                f,
                "this version does not understand {what} in the database: update it to that of the program that wrote it"
            ),
            Self::Stopped => f.write_str("the key store was stopped"),
            Self::Database(error) => match error {
                sqlx::Error::Database(error) => write!(f, "the database says: {}", error.message()),
                sqlx::Error::Io(error) => write!(f, "the database cannot be reached: {error}"),
                sqlx::Error::Tls(error) if cfg!(feature = "postgres-tls") => {
                    write!(f, "no TLS connection to the database: {error}")
                }
                sqlx::Error::Tls(error) => write!(
                    f,
                    "no TLS connection to the database: {error}; build with the feature `postgres-tls` of tollgate-sql"
                ),
                sqlx::Error::PoolTimedOut => f.write_str("no connection to the database came free in time"),
                sqlx::Error::PoolClosed => f.write_str("the key store was closed"),
                sqlx::Error::WorkerCrashed => f.write_str("SQLite's thread has crashed"),
                sqlx::Error::Protocol(_) => f.write_str("the connection to the database is disturbed"),
                _ => f.write_str("the database does not hold the tables that this version expects"),
            },
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            // PostgreSQL's `query_canceled`: the limit that it was told (see `postgres::Pool`) was over before ours was noticed.
            sqlx::Error::Database(said) if said.code().as_deref() == Some("57014") => Self::TooSlow,
            _ => Self::Database(error),
        }
    }
}

impl From<Fault> for Unavailable {
    fn from(fault: Fault) -> Self {
        Self::new(fault.to_string())
    }
}

impl From<Fault> for KeyAdminError {
    fn from(fault: Fault) -> Self {
        match fault.code().as_deref() {
            // PostgreSQL's `program_limit_exceeded`: what it looks up by an index has 2,700 bytes at most.
            Some("54000") => Self::Invalid("a text is too long for the database: make it shorter".into()),
            _ => Self::Unavailable(fault.into()),
        }
    }
}
