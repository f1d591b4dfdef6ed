//! The arguments of `verify`.

use std::ffi::OsString;

use clap::{Args, ValueHint};
use tollgate::{Environment, KeyFormat};

use super::values;

const AFTER_HELP: &str = "\
Exit codes: 0 if the key is valid, 1 if it is invalid, 6 if there is no key to verify, 5 for a database error.

Examples:
  tollgate verify                                      prompts for the key, without echo
  printf %s \"$KEY\" | tollgate verify --environment live
  tollgate --json verify < key.txt | jq -r .reason";

/// Verifies a key, and says why it is invalid.
///
/// Reads the key from standard input, without one trailing newline. On a terminal, prompts for it without echo. The key is never
/// an argument, which other users of this machine could read.
///
/// The result is that of a service which verifies keys with this database. A lapsed plan or a missing scope does not make a key
/// invalid: those are checked for each route.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Verify {
    /// The prefix of keys, before `_live_` and `_test_`. Repeat it for a service that accepts several.
    #[arg(long, env = "TOLLGATE_PREFIX", default_value = "sk", value_parser = values::prefix)]
    pub(crate) prefix: Vec<KeyFormat>,

    /// Also accepts keys without version and checksum.
    #[arg(long)]
    pub(crate) without_checksum: bool,

    /// The environment that the key must have: live or test.
    #[arg(long, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<Environment>,

    // Accepted, and then refused: clap would repeat it in its message.
    #[arg(hide = true, value_hint = ValueHint::Other)]
    pub(crate) misplaced: Vec<OsString>,
}
