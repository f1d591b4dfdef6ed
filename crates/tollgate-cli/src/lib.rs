//! `tollgate`, the command line of whoever manages API keys: the program, not a library to build on.
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
//! ```
//!
//! It works on the very tables that services verify against ([`tollgate_sql`]), by the very rules that a program's own management
//! follows ([`KeyManager`](tollgate::manage::KeyManager)). Services hear of what it changes: at once by PostgreSQL, within 100 ms by SQLite.
//!
//! # Secrets
//!
//! A new secret is written to the standard output once, and to nothing else: tables and hints go to the standard error, and the
//! database gets a digest. A key to be verified is read from the standard input, never from an argument, and never shown. No
//! message holds a secret, or the database's URL.
//!
//! Digests are plain SHA-256. A service that verifies with peppers takes such keys if it says
//! [`with_unpeppered`](tollgate::key::Peppers::with_unpeppered).
//!
//! # For scripts
//!
//! `--json` writes one document, on one line; keys look as they do in the answers of the management routes. Lists are
//! `{"items": […], "next": …}`. Errors are one line on the standard error, also then; what happened is told by the exit code:
//!
//! | code | |
//! |---|---|
//! | 0 | done; `verify`: the key is good |
//! | 1 | no: `verify`: the key is not good; `keys delete`: the question was answered with no |
//! | 2 | the command line is not understood, or says too little |
//! | 3 | there is no such key |
//! | 4 | conflict: the name is taken, or the key is revoked and cannot be changed any more |
//! | 5 | the database cannot be opened, does not answer, is locked, or was made by a newer version |
//! | 6 | refused: an unknown scope, an expiry in the past, a name that is too long, no key to verify |
//! | 7 | the output could not be written |
//! | 130 | interrupted |
//!
//! # The parts
//!
//! | part | idea |
//! |---|---|
//! | `arguments` | what can be said on the command line, and the help |
//! | `commands` | one function for each command, over the ports of the store |
//! | `store` | the database behind those ports |
//! | `input` | what is read: the key to be verified, the answer to a question |
//! | `output` | what is written: tables for people, JSON for programs, the secret once |
//! | `failure` | the exit codes, and what an error says |
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

use clap::Parser as _;
use tokio::runtime;

use arguments::Arguments;
use failure::{Exit, Failure};

/// Does what the command line says, and gives the exit code.
pub fn main() -> ExitCode {
    let exit = match run(Arguments::parse()) {
        Ok(exit) => exit,
        Err(failure) => {
            // On one line, whatever the database has put into it.
            output::note(&format!("tollgate: {}", output::table::visible(&failure.sentence)));
            failure.exit
        }
    };
    exit.into()
}

fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(Exit::Database, format!("the system gives no resources: {error}")))?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            // First, so that it is heard before anything is done.
            biased;
            () = interruption() => Err(Failure::new(
                Exit::Interrupted,
                "interrupted: a change that was under way is made wholly or not at all; look before trying again",
            )),
            outcome = commands::run(arguments) => outcome,
        }
    });
    // Whoever still waits for input is not waited for.
    runtime.shutdown_background();
    outcome
}

async fn interruption() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Nobody can be heard: the signal does what it does by default.
        std::future::pending::<()>().await;
    }
}
