//! JSON, closed pipes, full disks, completions, help.

use std::{fs::File, io, process::Stdio};

use crate::world::{Run, World};

#[test]
fn every_command_writes_one_line_of_json() {
    let world = World::new();
    let (id, _) = world.issue(&["--name=deploy", "--tenant=acme"]);
    let id = id.as_str();
    for arguments in [
        &["migrate"][..],
        &["schema", "--database-kind=postgres"],
        &["keys", "list"],
        &["keys", "list", "--search=unknown"],
        &["keys", "show", id],
        &["keys", "rename", id, "build"],
        &["keys", "update", id, "--scope=jobs:read"],
        &["keys", "rotate", id],
        &["keys", "usage", id],
        &["tenants", "suspend", "acme"],
        &["tenants", "resume", "acme"],
        &["keys", "revoke", id],
        &["keys", "delete", id, "--yes"],
    ] {
        let run = world.run(&[arguments, &["--json"]].concat());
        assert!(run.json().is_object(), "{run:?}");
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let world = World::new();
    let (id, secret) = world.issue(&["--name=deploy"]);
    for arguments in
        [&["keys", "list"][..], &["keys", "show", &id], &["keys", "revoke", &id], &["completions", "bash"]]
    {
        let run = run_into_a_closed_pipe(&world, arguments);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{arguments:?}");
    }
    assert_eq!(world.run_on(secret, &["verify"]).code, 1, "the key was revoked");
}

#[test]
fn a_secret_that_cannot_be_written_is_7_and_can_be_replaced() {
    let world = World::new();
    let run = run_into_a_closed_pipe(&world, &["keys", "create", "--name=deploy"]);
    assert_eq!(run.code, 7, "{run:?}");
    let message = run.err.lines().last().unwrap();
    let command = message.split('`').nth(1).unwrap().strip_prefix("tollgate ").unwrap();
    let rotated = world.run(&command.split(' ').collect::<Vec<_>>());
    assert_eq!(world.run_on(rotated.out, &["verify"]).code, 0);

    let full =
        run_into(&world, &["keys", "create", "--name=build", "--json"], File::create("/dev/full").unwrap());
    assert_eq!(full.code, 7, "{full:?}");
}

#[test]
fn a_full_disk_is_7() {
    let world = World::new();
    world.issue(&["--name=deploy"]);
    run_into(&world, &["keys", "list"], File::create("/dev/full").unwrap())
        .fails(7, "cannot write the output");
}

fn run_into_a_closed_pipe(world: &World, arguments: &[&str]) -> Run {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    run_into(world, arguments, writer)
}

fn run_into(world: &World, arguments: &[&str], out: impl Into<Stdio>) -> Run {
    let child = world.command(arguments).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
    Run::of(&child.wait_with_output().unwrap())
}

#[test]
fn completions_need_no_database() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = world.command(&["completions", shell]).env_remove("TOLLGATE_DATABASE").output().unwrap();
        let run = Run::of(&output);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{shell}");
        for word in ["tollgate", "rotate", "suspend", "overlap", "update", "no-quotas", "migrate", "schema"] {
            assert!(run.out.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn the_help_lists_the_exit_codes() {
    let world = World::new();
    let help = world.run(&["--help"]).out;
    for code in [0, 1, 2, 3, 4, 5, 6, 7, 130] {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(&format!("{code} "))),
            "{code}: {help}"
        );
    }
    for command in [
        &["keys"][..],
        &["keys", "create"],
        &["keys", "update"],
        &["keys", "rotate"],
        &["tenants"],
        &["verify"],
        &["migrate"],
        &["schema"],
        &["completions"],
    ] {
        assert_eq!(world.run(&[command, &["--help"]].concat()).code, 0);
    }
}

#[test]
fn without_a_terminal_there_are_no_colours_or_spinners() {
    let world = World::new();
    let run = world.run(&["keys", "create", "--name=deploy"]);
    assert!(!run.err.contains('\x1b'), "{run:?}");
    assert!(!world.run(&["keys", "list"]).out.contains('\x1b'));
}
