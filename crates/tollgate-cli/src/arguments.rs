//! The command line. The doc comments here are the program's help.

pub(crate) mod credits;
pub(crate) mod keys;
#[cfg(feature = "redis")]
pub(crate) mod limits;
mod parse;
mod prune;
mod schema;
pub(crate) mod values;
mod verify;

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

#[cfg(feature = "redis")]
pub(crate) use self::limits::Limits;
pub(crate) use self::{
    credits::Credits, keys::Keys, parse::parse, prune::Prune, schema::Schema, verify::Verify,
};

const GLOBAL: &str = "Global options";

const AFTER_HELP: &str = "\
Exit codes:
  0    success; `verify`: the key is valid
  1    `verify`: the key is invalid; `credits check`: the ledger differs; any command: not confirmed
  2    invalid command line
  3    key or grant not found
  4    conflict: the name is taken, or the key is revoked and cannot be changed
  5    database or Redis error: cannot be opened, does not answer, is locked, or has another schema version
  6    invalid value: an unknown scope, an expiry in the past, a name that is too long, no key to verify
  7    the output could not be written
  130  interrupted (SIGINT); 131 and 143 for SIGQUIT and SIGTERM

Examples:
  export TOLLGATE_DATABASE=sqlite://keys.db
  tollgate keys create --name deploy --scope jobs:read --expires-in 90d
  tollgate keys list --status active
  tollgate keys update key_0199… --plan pro --no-expiry
  tollgate keys rotate key_0199… --overlap 24h
  tollgate keys revoke key_0199…
  tollgate tenants plan acme pro
  tollgate credits grant acme 500 --id invoice_17 --note \"invoice 17\"
  tollgate credits show acme
  tollgate limits show --tenant acme --redis redis://127.0.0.1:6379
  printf %s \"$KEY\" | tollgate verify
  tollgate --json keys list --all | jq -r '.items[].id'
  tollgate prune --history-older-than 365d --usage-older-than 90d
  tollgate migrate --database postgres://admin@host/database

`keys create` and `keys rotate` write the secret, and nothing else, to standard output; all other text goes to standard
error. So this works: KEY=$(tollgate keys create --name deploy)

With --json, each command writes one JSON document on one line. An error is always one line on standard error.";

/// Manages the API keys, the credits and the limits of services that use Tollgate.
///
/// A command changes everything or nothing. The history of a key records each change with your name.
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
    /// The database URL: `sqlite://keys.db`, `postgres://user@host/database`.
    ///
    /// Prefer the environment variable if the URL contains a password: other users of this machine can read command lines.
    #[arg(long, global = true, value_name = "URL", help_heading = GLOBAL, env = "TOLLGATE_DATABASE", hide_env_values = true)]
    pub(crate) database: Option<String>,

    /// Writes one JSON document on one line instead of tables.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,

    /// Your name in the history, where it is written `cli:NAME`. Default: the user name.
    #[arg(long, global = true, value_name = "NAME", help_heading = GLOBAL, env = "TOLLGATE_OPERATOR", value_parser = values::operator)]
    pub(crate) operator: Option<String>,

    /// The time limit for opening the database or Redis, and for each query.
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

    /// Does not create or update tables: fails if their schema version is not the expected one.
    ///
    /// Without it, `keys create` creates the tables in a new file or an empty database, and every command updates older ones.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) no_migrate: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Creates, lists, shows, updates, rotates, revokes and deletes keys.
    #[command(subcommand)]
    Keys(Keys),

    /// Shows, suspends and resumes tenants, and sets their plans.
    #[command(subcommand)]
    Tenants(Tenants),

    /// Grants credits to tenants, and shows their balances and ledgers.
    #[command(subcommand)]
    Credits(Credits),

    /// Shows where the limits in Redis or Valkey stand, and resets them.
    #[cfg(feature = "redis")]
    #[command(subcommand)]
    Limits(Limits),

    Verify(Verify),

    /// Creates the database tables, or updates them to the schema version of this program.
    ///
    /// Does nothing if they are up to date. The database user needs the right to create and change tables; other commands, and
    /// services, then only need to read and write rows.
    #[command(after_long_help = "Example:\n  tollgate migrate --database postgres://admin@host/database")]
    Migrate,

    Prune(Prune),

    Schema(Schema),

    /// Prints a shell completion script.
    ///
    /// For bash: tollgate completions bash > ~/.local/share/bash-completion/completions/tollgate
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tenants {
    /// Shows the plan of a tenant, and whether it is suspended.
    Show {
        /// The tenant.
        #[arg(value_parser = values::word)]
        tenant: String,
    },

    /// Sets the plan of a tenant. All its keys have this plan, except keys with a plan of their own.
    ///
    /// Keys that are created later have it, too. The tenant need not have keys yet.
    #[command(override_usage = "tollgate tenants plan [OPTIONS] <TENANT> <TIER|--none>")]
    Plan {
        /// The tenant.
        #[arg(value_parser = values::word)]
        tenant: String,
        /// The tier of the plan.
        #[arg(required_unless_present = "none", value_parser = values::word)]
        tier: Option<String>,
        /// The plan has lapsed.
        #[arg(long, requires = "tier")]
        lapsed: bool,
        /// Removes the plan.
        #[arg(long, conflicts_with = "tier")]
        none: bool,
    },

    /// Suspends a tenant: its keys are refused, including keys that are created later.
    ///
    /// The tenant may have no keys yet.
    Suspend {
        /// The tenant.
        #[arg(value_parser = values::word)]
        tenant: String,
    },

    /// Resumes a suspended tenant: its keys are accepted again. Revoked keys stay revoked.
    Resume {
        /// The tenant.
        #[arg(value_parser = values::word)]
        tenant: String,
    },
}
