//! What can go wrong with a database, in messages without secrets.

use std::fmt;

use tollgate_core::{credits::CreditAdminError, denial::Unavailable, manage::KeyAdminError};

/// A failed operation on the database.
#[derive(Debug)]
pub(crate) enum Fault {
    /// An error of the database, or of the connection to it.
    Database(sqlx::Error),
    /// The deadline has passed.
    TimedOut,
    /// The database holds a value that this version cannot read.
    Unreadable(&'static str),
    /// Entries of the history were pruned before this process has read them.
    #[cfg(feature = "sqlite")]
    Pruned,
    /// The file of a SQLite database was replaced or removed.
    #[cfg(feature = "sqlite")]
    FileReplaced,
    /// The store was closed, or its tokio runtime has ended.
    Stopped,
}

impl Fault {
    /// Whether a row violates a unique constraint.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_unique_violation())
    }

    /// The error code of the database.
    pub(crate) fn code(&self) -> Option<String> {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.code().map(Into::into),
            _ => None,
        }
    }

    /// SQLite's primary result code. PostgreSQL's codes have five characters.
    pub(crate) fn sqlite_code(&self) -> Option<i32> {
        let code = self.code().filter(|code| code.len() < 5)?;
        code.parse::<i32>().ok().map(|code| code & 0xff)
    }

    /// Whether another process has locked the SQLite database: `SQLITE_BUSY`.
    pub(crate) fn is_busy(&self) -> bool {
        self.sqlite_code() == Some(5)
    }

    /// Whether the connection is lost, or was before the query.
    pub(crate) fn is_connection_lost(&self) -> bool {
        let Self::Database(error) = self else { return false };
        match error {
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
            // Codes such as `admin_shutdown`: the server is going down.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
            _ => false,
        }
    }
}

impl fmt::Display for Fault {
    /// Includes a message of sqlx only if it cannot contain the connection URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the database did not answer in time"),
            Self::Unreadable(what) => write!(
                f,
                "cannot read {what} in the database, which a newer version may have written: upgrade this program"
            ),
            #[cfg(feature = "sqlite")]
            Self::Pruned => {
                f.write_str("entries of the history were pruned before this process has read them")
            }
            #[cfg(feature = "sqlite")]
            Self::FileReplaced => f.write_str(
                "the database file was replaced or removed while it was in use: if this program uses a pool of its own for it, \
                 restart the program",
            ),
            Self::Stopped => f.write_str("the key store is closed"),
            Self::Database(error) => match error {
                sqlx::Error::Database(error) => write!(f, "database error: {}", error.message()),
                sqlx::Error::Io(error) => write!(f, "the database cannot be reached: {error}"),
                sqlx::Error::Tls(error) if cfg!(feature = "postgres-tls") => {
                    write!(f, "TLS connection to the database failed: {error}")
                }
                sqlx::Error::Tls(error) => write!(
                    f,
                    "TLS connection to the database failed: {error}; enable the feature `postgres-tls` of tollgate-sql"
                ),
                sqlx::Error::PoolTimedOut => f.write_str(
                    "all database connections are in use: the deadline passed while waiting for one",
                ),
                sqlx::Error::PoolClosed => f.write_str("the key store is closed"),
                sqlx::Error::WorkerCrashed => f.write_str("the SQLite worker thread has crashed"),
                sqlx::Error::Protocol(_) => f.write_str("protocol error on the connection to the database"),
                _ => f.write_str("the tables of the key store do not have the expected columns"),
            },
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            // PostgreSQL's `query_canceled`: its `statement_timeout` has passed just before our own deadline.
            sqlx::Error::Database(error) if error.code().as_deref() == Some("57014") => Self::TimedOut,
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
            // PostgreSQL's `program_limit_exceeded`: an index entry has at most 2,700 bytes.
            Some("54000") => Self::Invalid("a text is too long for the database: shorten it".into()),
            _ => Self::Unavailable(fault.into()),
        }
    }
}

impl From<Fault> for CreditAdminError {
    fn from(fault: Fault) -> Self {
        Self::Unavailable(fault.into())
    }
}
