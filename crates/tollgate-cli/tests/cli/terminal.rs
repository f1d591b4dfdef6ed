//! Questions, colours and Ctrl-C, on a terminal of `script`.

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::world::{PROGRAM, World};

const CTRL_C: &str = "\x03";

/// A shell on a terminal.
struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: ChildStdout,
    seen: String,
}

impl Terminal {
    /// Runs a line of shell with a function `tollgate`.
    fn run(world: &World, line: &str) -> Self {
        let script = format!("tollgate() {{ {PROGRAM} \"$@\"; }}; {line}");
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &script, "/dev/null"]);
        command
            .env("TOLLGATE_DATABASE", world.url())
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .env_remove("NO_COLOR");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keyboard, screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, keyboard, screen, seen: String::new() }
    }

    /// Waits until the screen shows this.
    fn sees(&mut self, text: &str) {
        let mut byte = [0];
        let mut bytes = self.seen.clone().into_bytes();
        while !String::from_utf8_lossy(&bytes).contains(text) {
            assert_eq!(self.screen.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&bytes));
            bytes.push(byte[0]);
        }
        self.seen = String::from_utf8(bytes).unwrap();
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// All that the screen has shown, and the exit code.
    fn ends(mut self) -> (String, i32) {
        let mut rest = Vec::new();
        self.screen.read_to_end(&mut rest).unwrap();
        self.seen.push_str(&String::from_utf8(rest).unwrap());
        (self.seen, self.child.wait().unwrap().code().unwrap())
    }
}

#[test]
fn delete_asks_for_confirmation() {
    let world = World::new();
    let (id, _) = world.issue(&["--name=deploy"]);
    for (answer, code) in [("n\n", 1), ("\n", 1), ("yellow\n", 1), ("yes\n", 0)] {
        assert_eq!(world.show(&id)["status"], "active");
        let mut terminal = Terminal::run(&world, &format!("tollgate keys delete {id}"));
        terminal.sees(&format!("Delete {id} \"deploy\" permanently? [y/N] "));
        terminal.types(answer);
        let (seen, ended) = terminal.ends();
        assert_eq!(ended, code, "{seen}");
    }
    assert_eq!(world.run(&["keys", "show", &id]).code, 3);
}

#[test]
fn ctrl_c_at_the_question_deletes_nothing() {
    let world = World::new();
    let (id, _) = world.issue(&["--name=deploy"]);
    let mut terminal = Terminal::run(&world, &format!("tollgate keys delete {id}"));
    terminal.sees("[y/N] ");
    terminal.types(CTRL_C);
    let (seen, code) = terminal.ends();
    assert_eq!(code, 130, "{seen}");
    assert!(seen.contains("tollgate: interrupted"), "{seen}");
    assert_eq!(world.show(&id)["status"], "active");
}

#[test]
fn a_typed_key_is_not_echoed() {
    let world = World::new();
    let (_, secret) = world.issue(&["--name=deploy"]);
    let mut terminal = Terminal::run(&world, "tollgate verify");
    terminal.sees("Key: ");
    terminal.types(&format!("{secret}\r"));
    let (seen, code) = terminal.ends();
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("The key is valid.") && !seen.contains(&secret), "{seen}");
}

#[test]
fn ctrl_c_restores_the_terminal() {
    let world = World::new();
    world.issue(&["--name=deploy"]);
    let mut terminal = Terminal::run(&world, "trap : INT; tollgate verify; echo code $?; stty -a");
    terminal.sees("Key: ");
    terminal.types(CTRL_C);
    let (seen, _) = terminal.ends();
    assert!(seen.contains("code 130") && seen.contains(" echo "), "{seen}");
    assert!(seen.contains(" icanon") && !seen.contains("-icanon") && !seen.contains("-isig"), "{seen}");
}

/// A signal that ended the program left the terminal without echo.
#[test]
fn every_signal_that_ends_the_program_restores_the_terminal() {
    for (signal, code) in [("TERM", 143), ("QUIT", 131), ("INT", 130)] {
        let world = World::new();
        world.issue(&["--name=deploy"]);
        // In the foreground, so that it may read; `kill` waits until the prompt has turned the echo off.
        let line = format!(
            "trap : {signal}; (while stty -a < /dev/tty | grep -q ' echo '; do :; done; kill -{signal} $(pgrep -P $$ -x tollgate)) & \
             {PROGRAM} verify; echo code $?; stty -a"
        );
        let (seen, _) = Terminal::run(&world, &line).ends();
        assert!(seen.contains(&format!("code {code}")) && seen.contains(" echo "), "{signal}: {seen}");
    }
}

#[test]
fn a_terminal_gets_colours_unless_they_are_turned_off() {
    let world = World::new();
    world.issue(&["--name=deploy"]);
    let seen = |line| Terminal::run(&world, line).ends().0;
    assert!(seen("tollgate keys list").contains("\x1b["));
    assert!(!seen("NO_COLOR=1 tollgate keys list").contains("\x1b["));
    assert!(!seen("TERM=dumb tollgate keys list").contains("\x1b["));
    assert!(!seen("tollgate keys list | cat").contains("\x1b["));
}

#[test]
fn a_table_fits_the_terminal_and_identifiers_are_not_wrapped() {
    let world = World::new();
    let (id, _) = world.issue(&[
        "--name=a name that is rather long, and has to be wrapped",
        "--scope=jobs:read jobs:create",
    ]);
    let (seen, code) = Terminal::run(&world, "stty cols 100; NO_COLOR=1 tollgate keys list").ends();
    assert_eq!(code, 0);
    assert!(seen.contains(&id), "{seen}");
    assert!(seen.lines().all(|line| line.trim_end().chars().count() <= 100), "{seen}");
}
