//! The arguments of `prune`.

use std::time::Duration;

use clap::{ArgGroup, Args};

use super::values;

const AFTER_HELP: &str = "\
Examples:
  tollgate prune --history-older-than 365d --usage-older-than 90d          says what would be deleted
  tollgate prune --history-older-than 365d --usage-older-than 90d --yes    deletes it";

/// Deletes old entries of the history and old usage. Without --yes, only says how much it would delete.
///
/// Nothing else deletes them, so run this command regularly. Keys stay, even revoked and expired ones. The command deletes in short
/// transactions, so that it does not delay services and other commands. It can be interrupted and repeated. The entries of the last
/// 24 hours, and the latest one, are always kept. Reservations of credits that ended more than 24 hours ago are deleted, too. The
/// ledger is never deleted.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").args(["history_older_than", "usage_older_than"]).required(true).multiple(true)))]
#[command(override_usage = "tollgate prune [OPTIONS] <WHAT>...", after_long_help = AFTER_HELP)]
pub(crate) struct Prune {
    /// Deletes entries of the history that are older: 365d. A day has 24 hours.
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) history_older_than: Option<Duration>,

    /// Deletes the usage of hours that ended longer ago: 90d.
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) usage_older_than: Option<Duration>,

    /// Deletes. Without it, nothing is deleted.
    #[arg(long, short)]
    pub(crate) yes: bool,
}
