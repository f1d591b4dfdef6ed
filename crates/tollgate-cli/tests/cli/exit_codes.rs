//! The exit code and message of each failure. The code 1 of `verify` is tested in `verify`.

use std::fs::{self, File};

use crate::world::{Run, World};

#[test]
fn an_invalid_command_line_is_2() {
    let world = World::new();
    for arguments in [
        &[][..],
        &["keys"],
        &["keys", "create"],
        &["keys", "create", "--name=a", "--expires=tomorrow"],
        &["keys", "create", "--name=a", "--expires=2100-01-01T00:00:00Z", "--expires-in=1d"],
        &["keys", "create", "--name=a", "--expires-in=-1d"],
        &["keys", "create", "--name=a", "--lapsed"],
        &["keys", "create", "--name=a", "--environment=prod"],
        &["keys", "create", "--name=a", "--quota=60/minute"],
        &["keys", "create", "--name=a", "--metadata=[]"],
        &["keys", "create", "--name=a", "--scope=a\"b"],
        &["keys", "create", "--name=a", "--prefix=SK"],
        &["keys", "update", "--name=a"],
        &["keys", "update", "key_1"],
        &["keys", "update", "key_1", "--known-scopes=a b"],
        &["keys", "update", "key_1", "--lapsed"],
        &["keys", "update", "key_1", "--scope=a", "--no-scopes"],
        &["keys", "update", "key_1", "--plan=pro", "--no-plan"],
        &["keys", "update", "key_1", "--expires=2100-01-01T00:00:00Z", "--no-expiry"],
        &["keys", "update", "key_1", "--expires-in=1d", "--no-expiry"],
        &["keys", "update", "key_1", "--quota=default=1/day", "--no-quotas"],
        &["keys", "update", "key_1", "--metadata={}", "--no-metadata"],
        &["keys", "list", "--limit=0"],
        &["keys", "list", "--all", "--limit=7"],
        &["keys", "list", "--status=nonsense"],
        &["keys", "list", "--operator=\n"],
        &["keys", "usage"],
        &["completions", "csh"],
        &["schema"],
        &["schema", "--database-kind=mysql"],
    ] {
        let run = world.run(arguments);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{arguments:?}: {run:?}");
        assert!(!run.err.is_empty());
    }
    assert!(!world.path("keys.db").exists(), "no database was opened");
    let mut command = world.command(&["keys", "list"]);
    Run::of(&command.env_remove("TOLLGATE_DATABASE").output().unwrap()).fails(2, "no database URL");
    world.run(&["keys", "list", "--database=mysql://host/keys"]).fails(2, "invalid database URL");
    world.run(&["migrate", "--no-migrate"]).fails(2, "`tollgate migrate` cannot be combined with");
    world.run(&["keys", "list", "--timeout=2h"]).fails(2, "the deadline of a key store");
}

#[test]
fn an_update_without_changes_is_2_and_lists_the_options() {
    let world = World::new();
    // TOLLGATE_SCOPES is not a change.
    let mut command = world.command(&["keys", "update", "key_1"]);
    let run = Run::of(&command.env("TOLLGATE_SCOPES", "jobs:read").output().unwrap());
    assert_eq!((run.code, run.out.as_str()), (2, ""), "{run:?}");
    let said: Vec<_> = run.err.split(|letter: char| letter != '-' && !letter.is_ascii_lowercase()).collect();
    for option in ["name", "scope", "plan", "expires", "expires-in", "quota", "metadata"] {
        assert!(said.contains(&format!("--{option}").as_str()), "{option}: {run:?}");
    }
    for option in ["scopes", "plan", "expiry", "quotas", "metadata"] {
        assert!(said.contains(&format!("--no-{option}").as_str()), "{option}: {run:?}");
    }
}

#[test]
fn without_a_terminal_delete_needs_yes() {
    let world = World::new();
    let (id, _) = world.issue(&["--name=deploy"]);
    world.run(&["keys", "delete", &id]).fails(2, "cannot ask for confirmation");
    world.run_on("y\n", &["keys", "delete", &id]).fails(2, "cannot ask for confirmation");
    assert_eq!(world.show(&id)["status"], "active");
}

#[test]
fn an_unknown_key_is_3() {
    let world = World::new();
    world.issue(&["--name=deploy"]);
    for arguments in [
        &["keys", "show", "key_1"][..],
        &["keys", "rename", "key_1", "build"],
        &["keys", "update", "key_1", "--plan=pro"],
        &["keys", "rotate", "key_1"],
        &["keys", "rotate", "key_1", "--prefix=sk"],
        &["keys", "revoke", "key_1"],
        &["keys", "delete", "key_1", "--yes"],
        &["keys", "usage", "key_1"],
    ] {
        world.run(arguments).fails(3, "key not found: `key_1`; `tollgate keys list` lists");
    }
}

#[test]
fn a_conflict_is_4() {
    let world = World::new();
    let (id, _) = world.issue(&["--name=deploy", "--tenant=acme"]);
    let taken = "another key has this name";
    world.run(&["keys", "create", "--name=deploy", "--tenant=acme"]).fails(4, taken);
    world.issue(&["--name=deploy"]);
    let (other, _) = world.issue(&["--name=build", "--tenant=acme"]);
    world.run(&["keys", "rename", &other, "deploy"]).fails(4, taken);
    world.run(&["keys", "update", &other, "--name=deploy", "--plan=pro"]).fails(4, taken);
    assert!(world.show(&other)["plan"].is_null(), "a failed update changes nothing");
    world.json(&["keys", "revoke", &id]);
    world.run(&["keys", "rename", &id, "former"]).fails(4, "the key is revoked");
    world.run(&["keys", "update", &id, "--no-expiry"]).fails(4, "the key is revoked");
    world.run(&["keys", "rotate", &id]).fails(4, "the key is revoked");
}

#[test]
fn a_missing_database_is_5_and_is_not_created() {
    let world = World::new();
    for arguments in [&["keys", "list"][..], &["keys", "revoke", "key_1"], &["tenants", "suspend", "acme"]] {
        world.run(arguments).fails(5, "the database file does not exist");
    }
    world.run_on("sk_live_x", &["verify"]).fails(5, "the database file does not exist");
    world.run(&["keys", "create", "--name=a", "--no-migrate"]).fails(5, "the database file does not exist");
    let creating = format!("{}?mode=rwc", world.url());
    world.run(&["keys", "list", "--database", &creating]).fails(5, "the database file does not exist");
    assert!(!world.path("keys.db").exists());
    let nowhere = format!("sqlite://{}", world.path("nowhere/keys.db").display());
    world.run(&["keys", "create", "--name=a", "--database", &nowhere]).fails(5, "cannot open the key store");
    world
        .run(&["keys", "list", "--database=postgres://ada@127.0.0.1:1/keys"])
        .fails(5, "cannot open the key store");
}

#[tokio::test]
async fn a_file_of_another_program_is_5_and_stays_unchanged() {
    let world = World::new();
    fs::write(
        world.path("keys.db"),
        "This file is longer than the header of a database, but it is only a letter to a friend.",
    )
    .unwrap();
    let letter = world.bytes();
    world.run(&["keys", "list"]).fails(5, "the file is not a SQLite database");
    world.run(&["keys", "create", "--name=a"]).fails(5, "the file is not a SQLite database");
    assert_eq!(world.bytes(), letter);

    let world = World::new();
    File::create(world.path("keys.db")).unwrap();
    world
        .run(&["keys", "list"])
        .fails(5, "this database has no Tollgate tables: check the URL; `tollgate migrate` creates");
    drop(world.execute("CREATE TABLE notes (text TEXT)").await);
    let notes = world.bytes();
    for arguments in [&["keys", "list"][..], &["keys", "create", "--name=a"]] {
        world
            .run(arguments)
            .fails(5, "this database has no Tollgate tables, but those of another program: check the URL");
        assert_eq!(world.bytes(), notes, "no tables were created, and no write-ahead log");
    }
    world.json(&["migrate"]);
    world.issue(&["--name=deploy"]);
}

#[test]
fn a_new_database_is_announced() {
    let world = World::new();
    let created = world.run(&["keys", "create", "--name=deploy"]);
    let note = format!("Created a new database: {}\n", world.path("keys.db").display());
    assert!(created.code == 0 && created.err.starts_with(&note), "{created:?}");
    assert_eq!(created.out.lines().count(), 1, "only the secret");
    let second = world.run(&["keys", "create", "--name=build"]);
    assert!(second.code == 0 && !second.err.contains("new database"), "{second:?}");
}

#[tokio::test]
async fn a_newer_schema_is_5() {
    let world = World::new();
    world.issue(&["--name=deploy"]);
    drop(world.execute("INSERT INTO tollgate_schema (version) VALUES (99)").await);
    for arguments in [&["keys", "list"][..], &["keys", "create", "--name=a"]] {
        world.run(arguments).fails(
            5,
            "the tables of the key store have schema version 99, and this program only knows versions up to",
        );
    }
}

/// Every command took the write lock when it opened the database.
#[tokio::test]
async fn a_locked_database_can_be_read() {
    let world = World::new();
    let (id, secret) = world.issue(&["--name=deploy"]);
    let _writer = world.execute("BEGIN IMMEDIATE").await;
    assert_eq!(world.names(&[]), ["deploy"]);
    assert_eq!(world.show(&id)["status"], "active");
    assert_eq!(world.run_on(&secret, &["verify"]).code, 0);
    world.json(&["keys", "usage", &id]);
}

#[tokio::test]
async fn a_locked_database_is_5_for_changes() {
    let world = World::new();
    let (id, _) = world.issue(&["--name=deploy"]);
    let writer = world.execute("BEGIN IMMEDIATE").await;
    let revoke = ["keys", "revoke", &id];
    // Enough to open the database on a busy machine.
    let run = world.run(&[&revoke[..], &["--timeout=2s"]].concat());
    assert_eq!((run.code, run.out.as_str(), run.err.lines().count()), (5, "", 1), "{run:?}");
    assert!(run.err.contains("locked"), "{run:?}");
    drop(writer);
    assert_eq!(world.run(&revoke).code, 0);
}

#[test]
fn a_read_only_database_is_5() {
    let world = World::new();
    world.issue(&["--name=deploy"]);
    let url = format!("{}?mode=ro", world.url());
    world
        .run(&["keys", "create", "--name=a", "--database", &url])
        .fails(5, "the database of the key store is read-only");
}

#[test]
fn an_invalid_value_is_6() {
    let world = World::new();
    let long = "n".repeat(101);
    for (arguments, beginning) in [
        (&["--name", &long][..], "a key's name is 1 to 100 characters"),
        (&["--name", "a\nb"], "a key's name is 1 to 100 characters"),
        (&["--name", "a", "--tenant", ""], "a tenant is 1 to 200 bytes"),
        (&["--name", "a", "--plan", ""], "the name of the plan is empty"),
        (&["--name", "a", "--expires-in", "3000000d"], "the expiry is not before the year 9999"),
        (&["--name", "a", "--expires", "2001-01-01T00:00:00Z"], "the expiry is in the past"),
        (&["--name", "a", "--scope", "b", "--known-scopes", "a"], "unknown scope `b`"),
    ] {
        world.run(&[&["keys", "create"], arguments].concat()).fails(6, beginning);
    }
    let (id, _) = world.issue(&["--name=deploy"]);
    world.run(&["keys", "rename", &id, ""]).fails(6, "a key's name");
    for (arguments, beginning) in [
        (&["--name="][..], "a key's name"),
        (&["--expires=2001-01-01T00:00:00Z"], "the expiry is in the past"),
        (&["--scope=b", "--known-scopes=a"], "unknown scope `b`"),
    ] {
        world.run(&[&["keys", "update", &id], arguments].concat()).fails(6, beginning);
    }
    world.run(&["keys", "rotate", &id, "--overlap=400d"]).fails(6, "the overlap is longer than 366 days");
    world.run(&["keys", "list", "--after=nonsense"]).fails(6, "invalid cursor");
    world
        .run(&["keys", "usage", &id, "--from=2026-01-02", "--until=2026-01-02"])
        .fails(6, "the usage range is empty");
    world.run(&["tenants", "suspend", ""]).fails(6, "a tenant is");
    for nothing in ["", "\n"] {
        world.run_on(nothing, &["verify"]).fails(6, "no key to verify");
    }
}
