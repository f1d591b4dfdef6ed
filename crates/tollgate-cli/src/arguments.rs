//! What can be said on the command line. The comments here are the program's help.

pub(crate) mod keys;
pub(crate) mod values;
mod verify;

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use self::{keys::Keys, verify::Verify};

const GLOBAL: &str = "Options of all commands";

const AFTER_HELP: &str = "\
Exit codes:
  0    done; `verify`: the key is good
  1    no: `verify`: the key is not good; `keys delete`: the question was answered with no
  2    the command line is not understood, or says too little
  3    there is no such key
  4    conflict: the name is taken, or the key is revoked and cannot be changed any more
  5    the database cannot be opened, does not answer, is locked, or was made by a newer version
  6    refused: an unknown scope, an expiry in the past, a name that is too long, no key to verify
  7    the output could not be written
  130  interrupted

Examples:
  export TOLLGATE_DATABASE=sqlite://keys.db
  tollgate keys create --name deploy --scope jobs:read --expires-in 90d
  tollgate keys list --status active
  tollgate keys update key_0199… --plan pro --no-expiry
  tollgate keys rotate key_0199… --overlap 24h
  tollgate keys revoke key_0199…
  printf %s \"$KEY\" | tollgate verify
  tollgate --json keys list --all | jq -r '.items[].id'

A new secret is written to the standard output, once, and nowhere else; whatever else there is to
say of it goes to the standard error. So this works: KEY=$(tollgate keys create --name deploy)

With --json each command writes one JSON document, on one line. Errors are one line on the standard
error all the same.";

/// Manages the API keys of services behind Tollgate.
///
/// Each command is one change, made wholly or not at all, and stands in the key's history under your name.
#[derive(Debug, Parser)]
#[command(name = "tollgate", bin_name = "tollgate", version, max_term_width = 110, after_long_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The database of the keys: `sqlite://keys.db`, `postgres://user@host/database`.
    ///
    /// Rather set the environment variable, above all if the URL holds a password: others on this machine can read command
    /// lines.
    #[arg(long, global = true, value_name = "URL", help_heading = GLOBAL, env = "TOLLGATE_DATABASE", hide_env_values = true)]
    pub(crate) database: Option<String>,

    /// Writes JSON in place of tables: one document, on one line.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,

    /// Who does this, for the history, where it stands as `cli:NAME`; the user's name if it is absent.
    #[arg(long, global = true, value_name = "NAME", help_heading = GLOBAL, env = "TOLLGATE_OPERATOR", value_parser = values::operator)]
    pub(crate) operator: Option<String>,

    /// How long to wait for the database, at each step.
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        help_heading = GLOBAL,
        env = "TOLLGATE_TIMEOUT",
        default_value = "5s",
        value_parser = values::duration
    )]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Issues, lists, shows, renames, changes, rotates, revokes and deletes keys.
    #[command(subcommand)]
    Keys(Keys),

    /// Suspends and resumes tenants.
    #[command(subcommand)]
    Tenants(Tenants),

    Verify(Verify),

    /// Writes the script that completes commands in a shell.
    ///
    /// For bash: tollgate completions bash > ~/.local/share/bash-completion/completions/tollgate
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tenants {
    /// Suspends a tenant: all its keys are refused, those issued later included.
    ///
    /// A tenant that has no keys yet can be suspended, too.
    Suspend {
        /// The tenant.
        tenant: String,
    },

    /// Lifts the suspension of a tenant. Keys that are revoked stay revoked.
    Resume {
        /// The tenant.
        tenant: String,
    },
}
