//! The two databases by name.

use std::{fmt, str::FromStr};

/// A kind of database that can hold keys. It is written `sqlite` or `postgres`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DatabaseKind {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl DatabaseKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];

    /// `sqlite` or `postgres`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

impl fmt::Display for DatabaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DatabaseKind {
    type Err = UnknownDatabaseKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or(UnknownDatabaseKind(()))
    }
}

/// A name that is not one of [`DatabaseKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownDatabaseKind(());

impl fmt::Display for UnknownDatabaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown kind of database: write `sqlite` or `postgres`")
    }
}

impl std::error::Error for UnknownDatabaseKind {}
