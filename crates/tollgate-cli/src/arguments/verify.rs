//! The arguments of `verify`.

use std::ffi::OsString;

use clap::{Args, ValueHint};
use tollgate::{Environment, KeyFormat};

use super::values;

const AFTER_HELP: &str = "\
Exit codes: 0 if the key is good, 1 if it is not, 6 if there is none to verify, 5 if the database does not answer.

Examples:
  tollgate verify                                      asks for the key, and does not show it
  printf %s \"$KEY\" | tollgate verify --environment live
  tollgate --json verify < key.txt | jq -r .reason";

/// Says whether a key is good, and why not.
///
/// The key is read from the standard input, where one newline at its end is left out; from a terminal it is asked for, and not
/// shown. It is never an argument, which others on this machine could read.
///
/// The answer is that of a service which verifies against this database. That its plan has lapsed, or that it lacks scopes,
/// makes no key bad: whether it may do something, the layers say.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Verify {
    /// What keys begin with, before `_live_` and `_test_`; repeated for services that know several.
    #[arg(long, env = "TOLLGATE_PREFIX", default_value = "sk", value_parser = values::prefix)]
    pub(crate) prefix: Vec<KeyFormat>,

    /// Takes keys without version and checksum, too, as some published contracts have them.
    #[arg(long)]
    pub(crate) without_checksum: bool,

    /// The environment that the key must be for: live or test.
    #[arg(long, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<Environment>,

    // Taken so that it is refused without being repeated, as clap would.
    #[arg(hide = true, value_hint = ValueHint::Other)]
    pub(crate) misplaced: Vec<OsString>,
}
