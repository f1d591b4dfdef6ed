//! `tollgate`, a command line tool that manages API keys, credits and limits. This is a program, not a library to build on.
//!
//! ```sh
//! cargo install tollgate-cli
//! export TOLLGATE_DATABASE=sqlite://keys.db           # or postgres://…
//!
//! KEY=$(tollgate keys create --name deploy --scope jobs:read --expires-in 90d)
//! tollgate keys list
//! printf %s "$KEY" | tollgate verify
//! tollgate keys update key_0199… --plan pro --no-expiry
//! tollgate keys rotate key_0199… --overlap 24h
//! tollgate keys revoke key_0199…
//! tollgate credits grant acme 500 --id invoice_17
//! tollgate limits show --tenant acme                  # in Redis: TOLLGATE_REDIS_URL
//! ```
//!
//! It uses the tables that services verify keys against ([`tollgate_sql`]), and the rules of
//! [`KeyManager`](tollgate::manage::KeyManager). Services are notified of its changes: at once with PostgreSQL, within 100 ms with
//! SQLite.
//!
//! # Tables
//!
//! `tollgate keys create` creates the tables in a new file or an empty database, and every command updates older ones. To keep that
//! separate, run `tollgate migrate`, or apply what `tollgate schema --database-kind postgres` prints with a tool of your own, and run
//! the other commands with `--no-migrate`.
//!
//! # Secrets
//!
//! A new secret is written once, to standard output. Tables and hints go to standard error, and the database gets a digest.
//! `tollgate verify` reads the key from standard input, never from an argument, and never shows it. No message contains a secret
//! or the database URL, and no error repeats what was written on the command line.
//!
//! Digests are SHA-256 without a pepper. A service that verifies with peppers accepts such keys with
//! [`with_unpeppered`](tollgate::key::Peppers::with_unpeppered).
//!
//! # Scripts
//!
//! With `--json`, a command writes one JSON document on one line. Keys have the format of the management routes. Lists are
//! `{"items": […], "next": …}`. An error is always one line on standard error. The exit codes:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | success; `verify`: the key is valid |
//! | 1 | `verify`: the key is invalid; `credits check`: the ledger differs; any command: not confirmed |
//! | 2 | invalid command line |
//! | 3 | key or grant not found |
//! | 4 | conflict: the name is taken, or the key is revoked and cannot be changed |
//! | 5 | database or Redis error: cannot be opened, does not answer, is locked, or has another schema version |
//! | 6 | invalid value: an unknown scope, an expiry in the past, a name that is too long, no key to verify |
//! | 7 | the output could not be written |
//! | 130 | interrupted (SIGINT); 131 and 143 for SIGQUIT and SIGTERM |
//!
//! # Modules
//!
//! | module | content |
//! |---|---|
//! | `arguments` | the command line and its help |
//! | `commands` | one function for each command, over the backend traits of the store |
//! | `store` | opens the store, and runs migrations |
//! | `input` | reads the key to verify, and the answer to a question |
//! | `output` | tables, JSON, and secrets |
//! | `failure` | exit codes and error messages |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg(any(feature = "sqlite", feature = "postgres"))]

mod arguments;
mod commands;
mod failure;
mod input;
mod output;
mod store;

use std::process::ExitCode;

use tokio::runtime;

use arguments::Arguments;
use failure::{Exit, Failure};

/// Runs the command line, and returns the exit code.
pub fn main() -> ExitCode {
    let exit = match run(arguments::parse()) {
        Ok(exit) => exit,
        Err(failure) => {
            // A message of the database can have several lines.
            output::note(&format!("tollgate: {}", output::visible(&failure.message)));
            failure.exit
        }
    };
    exit.into()
}

fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(Exit::Database, format!("cannot start the tokio runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            // Polled first, so that the signal handler exists before anything is done.
            biased;
            exit = interruption() => Err(Failure::new(
                exit,
                "interrupted: a change in progress was made completely or not at all; check before you repeat it",
            )),
            outcome = commands::run(arguments) => outcome,
        }
    });
    // Does not wait for a thread that reads standard input.
    runtime.shutdown_background();
    outcome
}

/// Waits for a signal that ends the program. Otherwise the signal would leave the terminal without echo.
#[cfg(unix)]
async fn interruption() -> Exit {
    use tokio::signal::unix::{SignalKind, signal};

    let wait_for = async |kind, exit| {
        match signal(kind) {
            Ok(mut signal) => signal.recv().await,
            // Without a handler, the signal ends the process.
            Err(_) => std::future::pending().await,
        };
        exit
    };
    tokio::select! {
        exit = wait_for(SignalKind::interrupt(), Exit::Interrupted) => exit,
        exit = wait_for(SignalKind::quit(), Exit::Quit) => exit,
        exit = wait_for(SignalKind::terminate(), Exit::Terminated) => exit,
    }
}

#[cfg(not(unix))]
async fn interruption() -> Exit {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    Exit::Interrupted
}
