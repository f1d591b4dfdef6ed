//! The arguments of `schema`.

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use tollgate_sql::DatabaseKind;

const AFTER_HELP: &str = "\
Examples:
  tollgate schema --database-kind postgres > migrations/0001_tollgate.sql
  tollgate schema --database-kind postgres --after 1        only newer migrations
  tollgate schema --database-kind sqlite | sqlite3 -bail keys.db";

/// Prints the SQL migrations, to run them with another tool.
///
/// Needs no database. Run each migration in one transaction; its last statement records its version in `tollgate_schema`. Then
/// open the store with `without_migration`, and run commands with --no-migrate. `tollgate migrate` runs the migrations without
/// another tool.
///
/// With --json: `{"migrations": [{"version": …, "file_name": …, "sql": …}]}`.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Schema {
    /// The kind of database.
    #[arg(long, value_parser = kinds())]
    pub(crate) database_kind: DatabaseKind,

    /// Prints only the migrations after this schema version.
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub(crate) after: i64,
}

fn kinds() -> impl TypedValueParser<Value = DatabaseKind> {
    PossibleValuesParser::new(DatabaseKind::ALL.map(DatabaseKind::as_str))
        .try_map(|name| name.parse::<DatabaseKind>())
}
