//! The arguments of the commands about credits.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use tollgate::credits::Refill;

use super::values;

#[derive(Debug, Subcommand)]
pub(crate) enum Credits {
    Grant(Grant),

    /// Shows the balance of a tenant, and its grants in the order in which they are spent.
    ///
    /// Reserved credits belong to requests that have not ended yet.
    Show {
        /// The tenant.
        #[arg(value_parser = values::word)]
        tenant: String,
    },

    History(History),

    /// Takes back what is left of a grant, and ends its refills. What requests have reserved of it can still be charged.
    ///
    /// Asks for confirmation. If standard input is not a terminal, --yes is required. To withdraw a grant that has ended is no error.
    Withdraw {
        /// The tenant.
        #[arg(value_parser = values::word)]
        tenant: String,
        /// The identifier of the grant.
        #[arg(value_parser = values::word)]
        grant: String,
        /// Withdraws without confirmation.
        #[arg(long, short)]
        yes: bool,
    },

    /// Computes the credits of a tenant anew from its ledger, and compares. The exit code is 1 if they differ.
    Check {
        /// The tenant.
        #[arg(value_parser = values::word)]
        tenant: String,
    },

    /// Releases the reservations of all tenants that have expired, and ends the grants that have expired.
    ///
    /// Each use of a tenant's credits does this for the tenant. Run this command if the ledger is to have it sooner.
    Sweep,
}

const AFTER_GRANT: &str = "\
Examples:
  tollgate credits grant acme 500 --id invoice_17 --note \"invoice 17\"
  tollgate credits grant acme 100 --id monthly --refill monthly:31 --priority -1
  tollgate credits grant acme 50 --id trial --expires-in 14d";

/// Grants credits to a tenant. A debt of the tenant is paid first.
///
/// With --id, a repeated command grants once: use it in scripts, and repeat a command that was interrupted.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_GRANT)]
pub(crate) struct Grant {
    /// The tenant. It need not have keys yet.
    #[arg(value_parser = values::word)]
    pub(crate) tenant: String,

    /// The amount: of each period, with --refill.
    pub(crate) amount: u64,

    /// An identifier of your own, such as that of an invoice. Default: a random one.
    #[arg(long, value_parser = values::word)]
    pub(crate) id: Option<String>,

    /// Grants of a lower number are spent first. Of equal ones, the one that ends first.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) priority: i32,

    /// When what is left lapses: 2027-01-31T00:00:00Z. Default: never.
    #[arg(long, value_name = "INSTANT", value_parser = values::instant)]
    pub(crate) expires: Option<SystemTime>,

    /// When what is left lapses, from now: 90d, 12h.
    #[arg(long, value_name = "DURATION", value_parser = values::duration, conflicts_with = "expires")]
    pub(crate) expires_in: Option<Duration>,

    /// When the grant is filled up again, in UTC: `daily`, or `monthly:DAY`. What is left of the period before lapses.
    ///
    /// In a month without this day: on its last day. Default: never.
    #[arg(long, value_name = "WHEN", value_parser = values::refill)]
    pub(crate) refill: Option<Refill>,

    /// A note for the ledger: invoice 17.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = values::word)]
    pub(crate) note: String,
}

/// Shows the ledger of a tenant, the latest entry first.
///
/// The sum of all amounts is what is available, less the debt. A request has an entry when it reserves credits, and another one if it is
/// charged less or more.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// The tenant.
    #[arg(value_parser = values::word)]
    pub(crate) tenant: String,

    /// The page size: 1 to 100.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: u32,

    /// Continues after the previous page.
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<String>,

    /// Shows all pages.
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    pub(crate) all: bool,
}
