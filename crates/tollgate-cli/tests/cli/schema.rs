//! Migrations.

use std::{fs::File, io::Write as _};

use serde_json::json;
use tollgate_sql::{DatabaseKind, migrations};

use crate::world::{World, text};

/// The newest schema version.
fn newest() -> usize {
    migrations(DatabaseKind::Sqlite).len()
}

#[test]
fn migrate_creates_the_tables() {
    let (world, newest) = (World::new(), newest());
    let created = format!("Created the tables with schema version {newest}.\n");
    assert_eq!(world.run(&["migrate"]).out, created);
    let up_to_date = format!("The tables are up to date with schema version {newest}.\n");
    assert_eq!(world.run(&["migrate"]).out, up_to_date);
    assert_eq!(world.json(&["migrate"]), json!({ "from": newest, "to": newest }));
    assert_eq!(world.names(&["--no-migrate"]), [] as [&str; 0]);
}

#[tokio::test]
async fn tables_from_the_printed_schema_are_recognized() {
    let world = World::new();
    let mut command = world.command(&["schema", "--database-kind=sqlite"]);
    let printed = command.env_remove("TOLLGATE_DATABASE").output().unwrap();
    assert!(printed.status.success());
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.starts_with("-- 0001_keys.sql\n"), "{printed}");
    File::create(world.path("keys.db")).unwrap();
    drop(world.execute(printed.leak()).await);
    world.json(&["keys", "create", "--name=deploy", "--no-migrate"]);
    assert_eq!(world.names(&["--no-migrate"]), ["deploy"]);
    assert_eq!(world.json(&["migrate"]), json!({ "from": newest(), "to": newest() }));
}

#[test]
fn schema_prints_the_migrations_after_a_version() {
    let world = World::new();
    let printed = world.json(&["schema", "--database-kind=postgres"]);
    assert_eq!(
        (&printed["migrations"][0]["version"], printed["migrations"].as_array().unwrap().len()),
        (&json!(1), newest())
    );
    assert!(text(&printed["migrations"][0]["sql"]).contains("BYTEA"));
    let later = world.json(&["schema", "--database-kind=postgres", "--after=1"]);
    assert_eq!(later["migrations"][0]["version"], json!(2));
    let after = &format!("--after={}", newest());
    assert_eq!(world.json(&["schema", "--database-kind=postgres", after])["migrations"], json!([]));
    let none = world.run(&["schema", "--database-kind=sqlite", after]);
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert!(none.err.contains(&format!("no migrations after schema version {}", newest())), "{none:?}");
}

#[tokio::test]
async fn without_migration_a_missing_or_newer_schema_is_an_error_that_says_what_to_run() {
    let world = World::new();
    File::create(world.path("keys.db")).unwrap().flush().unwrap();
    for arguments in [&["keys", "list", "--no-migrate"][..], &["keys", "create", "--name=a", "--no-migrate"]]
    {
        let run = world.run(arguments);
        run.fails(5, "the database has no Tollgate tables");
        assert!(run.err.contains("run `tollgate migrate`"), "{run:?}");
    }
    world.json(&["migrate"]);
    drop(world.execute("INSERT INTO tollgate_schema (version) VALUES (99)").await);
    world
        .run(&["keys", "list", "--no-migrate"])
        .fails(5, "the tables of the key store have schema version 99");
    world.run(&["migrate"]).fails(5, "the tables of the key store have schema version 99");
}
