//! Why a store cannot be opened.

use std::{error::Error, fmt};

use crate::fault::Fault;

/// Why a store cannot be opened. No message holds the URL, a password, or anything else of it that is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is none, or not one of a database that this crate knows. The sentence says how it is written.
    InvalidUrl(Box<str>),
    /// The program was built without this database.
    NotBuiltIn {
        /// The feature of this crate that is missing: `sqlite` or `postgres`.
        feature: &'static str,
    },
    /// A setting that makes no sense. The sentence says what to do.
    InvalidSetting(Box<str>),
    /// There is no such database, it does not let this program in, or it does not answer.
    Unreachable(Box<str>),
    /// The database may only be read, and a key that cannot be revoked is no key.
    ReadOnly,
    /// The file is no SQLite database.
    NotADatabase,
    /// The tables were made by a newer version of Tollgate. Nothing was changed.
    NewerSchema {
        /// The version of the tables.
        found: i64,
        /// The newest one that this program knows.
        known: i64,
    },
    /// The tables are missing or of an earlier version, and this program was told
    /// [not to change them](crate::SqlKeysBuilder::without_migration).
    OlderSchema {
        /// The version of the tables; 0 if there are none.
        found: i64,
        /// The one that this program needs.
        known: i64,
    },
    /// News of changes do not get through: a pooler that hands out connections by transaction stands between.
    NoNews(Box<str>),
}

impl ConnectError {
    pub(crate) fn from_fault(fault: &Fault) -> Self {
        match fault.code().as_deref() {
            // PostgreSQL's `read_only_sql_transaction`.
            Some("25006") => Self::ReadOnly,
            // SQLITE_READONLY and SQLITE_NOTADB, whatever their extended codes say on top.
            Some(code) if sqlite_code(code) == Some(8) => Self::ReadOnly,
            Some(code) if sqlite_code(code) == Some(26) => Self::NotADatabase,
            // SQLITE_CANTOPEN
            Some(code) if sqlite_code(code) == Some(14) => Self::Unreachable(
                "SQLite cannot open the file: check that its folder exists and that this program may write there".into(),
            ),
            // SQLITE_BUSY
            Some(code) if sqlite_code(code) == Some(5) => {
                Self::Unreachable("another process keeps the database locked: end it, or wait for it".into())
            }
            _ => Self::Unreachable(fault.to_string().into()),
        }
    }
}

/// The primary code of SQLite's; PostgreSQL's codes have five characters.
fn sqlite_code(code: &str) -> Option<i32> {
    (code.len() < 5).then(|| code.parse::<i32>().ok()).flatten().map(|code| code & 0xff)
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidUrl(what) => write!(f, "this is no URL of a key store: {what}"),
            Self::NotBuiltIn { feature } => write!(
                f,
                "this program was built without that database: build it with the feature `{feature}` of tollgate-sql"
            ),
            Self::InvalidSetting(what) => f.write_str(what),
            Self::Unreachable(what) => write!(f, "the key store cannot be opened: {what}"),
            Self::ReadOnly => f.write_str(
                "the database of the key store may only be read: give this program the right to write, or the URL of the \
                 primary server",
            ),
            Self::NotADatabase => f.write_str("the file is no SQLite database: check the path in the URL"),
            Self::NewerSchema { found, known } => write!(
                f,
                "the key store was made by a newer version of Tollgate (tables of version {found}, this program knows \
                 {known}): upgrade this program; nothing was changed"
            ),
            Self::OlderSchema { found, known } => write!(
                f,
                "the key store has tables of version {found} and this program needs {known}: let a program with the right \
                 to change tables open it first"
            ),
            Self::NoNews(what) => write!(
                f,
                "the database does not pass on news of changes ({what}): give a URL that leads to PostgreSQL itself, \
                 or through a pooler in session mode"
            ),
        }
    }
}

impl Error for ConnectError {}
