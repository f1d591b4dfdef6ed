//! Why a store cannot be opened.

use std::{error::Error, fmt};

use crate::fault::Fault;

/// Why a store cannot be opened. No message contains the URL or a password.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is malformed, or names another kind of database. The text says how to write it.
    InvalidUrl(Box<str>),
    /// The program was built without support for this database.
    NotBuiltIn {
        /// The missing feature of this crate: `sqlite` or `postgres`.
        feature: &'static str,
    },
    /// A setting is out of range, or the application's pool lacks what the store needs. The text says what to change.
    InvalidSetting(Box<str>),
    /// The database does not exist, refuses this program, or does not answer.
    Unreachable(Box<str>),
    /// The database is read-only: keys could not be revoked.
    ReadOnly,
    /// The file is not a SQLite database.
    NotADatabase,
    /// There are no tables, and the store was opened [without migration](crate::SqlKeysBuilder::without_migration).
    MissingSchema {
        /// The version that this program needs.
        expected: i64,
        /// Whether the database has no tables at all. Otherwise it may be another program's: check the URL.
        is_empty: bool,
    },
    /// The tables have an earlier version, and the store was opened
    /// [without migration](crate::SqlKeysBuilder::without_migration).
    OlderSchema {
        /// The version of the tables.
        found: i64,
        /// The version that this program needs.
        expected: i64,
    },
    /// The tables have a later version, of a newer Tollgate. Nothing was changed.
    NewerSchema {
        /// The version of the tables.
        found: i64,
        /// The version that this program needs.
        expected: i64,
    },
    /// PostgreSQL's notifications do not arrive: there may be a connection pooler in transaction mode in between.
    NoNotifications(Box<str>),
}

impl ConnectError {
    pub(crate) fn from_fault(fault: &Fault) -> Self {
        // PostgreSQL's `read_only_sql_transaction`.
        if fault.code().as_deref() == Some("25006") {
            return Self::ReadOnly;
        }
        match fault.sqlite_code() {
            // SQLITE_READONLY
            Some(8) => Self::ReadOnly,
            // SQLITE_NOTADB
            Some(26) => Self::NotADatabase,
            // SQLITE_CANTOPEN
            Some(14) => Self::cannot_open_file(),
            _ if fault.is_busy() => {
                Self::Unreachable("the database is locked: wait for the other process, or end it".into())
            }
            _ => Self::Unreachable(fault.to_string().into()),
        }
    }

    pub(crate) fn cannot_open_file() -> Self {
        Self::Unreachable(
            "SQLite cannot open the file: check that its folder exists and that this program may write there"
                .into(),
        )
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidUrl(what) => write!(f, "invalid database URL: {what}"),
            Self::NotBuiltIn { feature } => write!(
                f,
                "this program was built without support for this database: enable the feature `{feature}` of tollgate-sql"
            ),
            Self::InvalidSetting(what) => f.write_str(what),
            Self::Unreachable(what) => write!(f, "cannot open the key store: {what}"),
            Self::ReadOnly => f.write_str(
                "the database of the key store is read-only: grant this program write access, or use the URL of the primary \
                 server",
            ),
            Self::NotADatabase => f.write_str("the file is not a SQLite database: check the path in the URL"),
            Self::MissingSchema { expected, is_empty } => {
                let other = if *is_empty { "" } else { ", but tables of another program: check the URL" };
                write!(
                    f,
                    "the database has no Tollgate tables (this program needs schema version {expected}){other}. To create them, \
                     run `tollgate migrate`, or apply what `tollgate schema` prints"
                )
            }
            Self::OlderSchema { found, expected } => write!(
                f,
                "the tables of the key store have schema version {found}, and this program needs version {expected}: run \
                 `tollgate migrate`, or apply what `tollgate schema --after {found}` prints"
            ),
            Self::NewerSchema { found, expected } => write!(
                f,
                "the tables of the key store have schema version {found}, and this program only knows versions up to \
                 {expected}: upgrade this program; nothing was changed"
            ),
            Self::NoNotifications(what) => write!(
                f,
                "notifications of PostgreSQL (LISTEN/NOTIFY) do not arrive ({what}): connect to PostgreSQL directly, or to a \
                 pooler in session mode"
            ),
        }
    }
}

impl Error for ConnectError {}
