//! `migrate` and `schema`.

use serde_json::json;
use tollgate_sql::{Migrated, migrations};

use crate::{
    arguments::{Global, Schema},
    failure::{Exit, Failure},
    output, store,
};

pub(super) async fn migrate(url: &str, global: &Global) -> Result<Exit, Failure> {
    let Migrated { from, to, .. } = store::migrate(url, global).await?;
    if global.json {
        output::json(&json!({ "from": from, "to": to }))?;
    } else {
        output::result(&match from {
            0 => format!("Created the tables with schema version {to}."),
            _ if from == to => format!("The tables are up to date with schema version {to}."),
            _ => format!("Updated the tables from schema version {from} to {to}."),
        })?;
    }
    Ok(Exit::Done)
}

pub(super) fn schema(schema: &Schema, is_json: bool) -> Result<Exit, Failure> {
    let migrations =
        migrations(schema.database_kind).iter().filter(|migration| migration.version > schema.after);
    if is_json {
        let migrations: Vec<_> = migrations
            .map(|migration| {
                json!({
                    "version": migration.version,
                    "file_name": migration.file_name,
                    "sql": migration.sql,
                })
            })
            .collect();
        output::json(&json!({ "migrations": migrations }))?;
    } else {
        let files: Vec<_> =
            migrations.map(|migration| format!("-- {}\n{}", migration.file_name, migration.sql)).collect();
        if files.is_empty() {
            output::note(&format!("There are no migrations after schema version {}.", schema.after));
        } else {
            output::result(&files.join("\n"))?;
        }
    }
    Ok(Exit::Done)
}
