//! Where secrets and passwords must not appear.

use crate::world::{World, holds, text};

/// The confidential part of a secret: all after its display prefix.
fn hidden(secret: &str) -> &str {
    secret.get("sk_live_a1B2".len()..).unwrap()
}

#[test]
fn a_secret_is_written_once_and_not_stored() {
    let world = World::new();
    let created = world.run(&["keys", "create", "--name=deploy", "--metadata={\"a\":1}"]);
    let first = created.out.trim_end().to_owned();
    let id = world.json(&["keys", "list"])["items"][0]["id"].as_str().unwrap().to_owned();
    let rotated = world.run(&["keys", "rotate", &id, "--overlap=1h"]);
    let second = rotated.out.trim_end().to_owned();
    assert!(!holds(&created.err, hidden(&first)) && !holds(&rotated.err, hidden(&second)));

    let third = world.json(&["keys", "rotate", &id, "--overlap=1h"]);
    let third_secret = text(&third["secret"]);
    assert_eq!(third.to_string().matches(hidden(&third_secret)).count(), 1);

    let mut runs = Vec::new();
    for arguments in [
        &["keys", "list"][..],
        &["--json", "keys", "list"],
        &["keys", "show", &id],
        &["--json", "keys", "show", &id],
        &["keys", "usage", &id],
        &["keys", "rename", &id, "build"],
        &["keys", "update", &id, "--plan=pro"],
        &["--json", "keys", "update", &id, "--plan=basic"],
    ] {
        runs.push(world.run(arguments));
    }
    for secret in [&first, &second, &third_secret] {
        runs.push(world.run_on(secret, &["verify"]));
        runs.push(world.run_on(secret, &["--json", "verify"]));
        runs.push(world.run_on(format!("{secret}x"), &["verify"]));
    }
    runs.push(world.run(&["keys", "delete", "--yes", &id]));
    for secret in [&first, &second, &third_secret] {
        for run in &runs {
            assert!(!run.out.contains(hidden(secret)) && !run.err.contains(hidden(secret)), "{run:?}");
        }
        assert!(!holds(world.bytes(), hidden(secret)), "the database contains the secret");
    }
    // The search finds what the database contains.
    assert!(holds(world.bytes(), &id));
}

#[test]
fn a_secret_as_an_argument_is_refused_and_not_repeated() {
    let world = World::new();
    let (_, secret) = world.issue(&["--name=deploy"]);
    let misplaced = world.run(&["verify", &secret]);
    misplaced.fails(2, "the key must not be an argument");
    assert!(!misplaced.err.contains(hidden(&secret)));
    for command in [
        &["keys", "show"][..],
        &["keys", "update", "--no-plan"],
        &["keys", "revoke"],
        &["keys", "rotate"],
        &["keys", "delete", "--yes"],
    ] {
        let mistaken = world.run(&[command, &[&secret]].concat());
        mistaken.fails(3, "this is a secret, not an identifier");
        assert!(!mistaken.err.contains(hidden(&secret)));
    }
}

/// clap's messages repeat arguments that it does not recognize.
#[test]
fn a_secret_in_place_of_a_word_is_not_repeated() {
    let world = World::new();
    let (_, secret) = world.issue(&["--name=deploy"]);
    let words = [secret.as_str(), "postgres://ada:hunter2@host/keys", "hunter2"];
    for word in words {
        let (option, value) = (format!("--{word}"), format!("--databse={word}"));
        for arguments in [
            &[word][..],
            &["keys", word],
            &["keys", "list", word],
            &["keys", "list", &option],
            &["keys", "list", &value],
            &["keys", "list", "--json", word],
            &["keys", "list", &format!("--json={word}")],
            &["keys", "list", "--limit", word],
            &["keys", "list", "--status", word],
            &["keys", "list", "--timeout", word],
            &["keys", "create", "--name=a", "--environment", word],
            &["keys", "create", "--name=a", "--expires", word],
            &["keys", "create", "--name=a", "--expires-in", word],
            &["keys", "create", "--name=a", "--quota", word],
            &["keys", "create", "--name=a", "--quota", &format!("default={word}")],
            &["keys", "create", "--name=a", "--metadata", word],
            &["keys", "create", "--name=a", "--scope", &format!("{word}\\")],
            &["keys", "create", "--name=a", "--prefix", &format!("{word}-")],
            &["keys", "usage", "--from", word, "key_1"],
            &["credits", "grant", "acme", word],
            &["credits", "grant", "acme", "1", "--refill", word],
            &["completions", word],
            &["schema", "--database-kind", word],
        ] {
            let run = world.run(arguments);
            assert_eq!(run.code, 2, "{run:?}");
            let confidential = if word == secret { hidden(word) } else { "hunter2" };
            assert!(!run.err.contains(confidential) && run.out.is_empty(), "{run:?}");
        }
        let run = world.run(&["keys", "show", word]);
        assert!(
            run.code == 3 && !run.err.contains("hunter2") && !run.err.contains(hidden(&secret)),
            "{run:?}"
        );
    }
    // Suggestions are words of the program.
    let run = world.run(&["kyes", "list"]);
    assert!(run.code == 2 && run.err.contains("'keys'") && run.err.contains("may be a secret"), "{run:?}");
    let run = world.run(&["keys", "list", "--staus=active"]);
    assert!(run.code == 2 && run.err.contains("'--status'"), "{run:?}");
}

#[test]
fn a_secret_in_place_of_a_name_is_not_stored() {
    let world = World::new();
    let (id, secret) = world.issue(&["--name=deploy"]);
    for arguments in [
        &["keys", "create", "--name"][..],
        &["keys", "create", "--name=a", "--tenant"],
        &["keys", "create", "--name=a", "--role"],
        &["keys", "create", "--name=a", "--plan"],
        &["keys", "create", "--name=a", "--scope"],
        &["keys", "rename", &id],
        &["keys", "update", &id, "--name"],
        &["keys", "list", "--operator"],
        &["tenants", "suspend"],
        &["credits", "grant", "acme", "1", "--id"],
        &["credits", "grant", "acme", "1", "--note"],
        &["credits", "show"],
    ] {
        let run = world.run(&[arguments, &[&secret]].concat());
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.err.contains("rotate the key") && !run.err.contains(hidden(&secret)), "{run:?}");
    }
    assert!(!holds(world.bytes(), hidden(&secret)));
}

#[test]
fn no_error_contains_a_password() {
    let world = World::new();
    for url in [
        "postgres://ada:hunter2@127.0.0.1:1/keys",
        "postgres://ada:hunter2@127.0.0.1:1/keys?sslmode=nonsense",
        "postgres://ada:hunter2@[nonsense/keys",
        "postgres://ada:a?hunter2@127.0.0.1:1/keys",
        "postgres://ada:a?hunter2=b@127.0.0.1:1/keys",
        "postgres://ada:a#hunter2@127.0.0.1:1/keys",
        "postgres://ada:1/hunter2@127.0.0.1:1/keys",
        "postgres://127.0.0.1:1/keys?pasword=hunter2",
        "mysql://ada:hunter2@127.0.0.1/keys",
        "hunter2",
        "sqlite://hunter2/keys.db",
    ] {
        for arguments in [&["keys", "list"][..], &["keys", "create", "--name=deploy"]] {
            let run = crate::world::Run::of(
                &world.command(arguments).env("TOLLGATE_DATABASE", url).output().unwrap(),
            );
            assert!(matches!(run.code, 2 | 5), "{run:?}");
            assert!(!run.err.contains("hunter2") && run.out.is_empty(), "{run:?}");
            assert_eq!(run.err.lines().count(), 1, "{run:?}");
        }
    }
    let help = world
        .command(&["--help"])
        .env("TOLLGATE_DATABASE", "postgres://ada:hunter2@host/keys")
        .output()
        .unwrap();
    assert!(!holds(help.stdout, "hunter2"));
}
