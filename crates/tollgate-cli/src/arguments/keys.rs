//! The arguments of `keys`.

use std::time::{Duration, SystemTime};

use clap::{
    ArgGroup, Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use tollgate::{
    Environment, KeyFormat, Quota, Scopes,
    manage::{KeyState, Metadata},
};

use super::values;

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    Create(Box<Create>),

    List(List),

    /// Shows a key and what happened to it, the latest first.
    Show {
        /// The key's identifier.
        id: String,
    },

    /// Calls a key something else.
    Rename {
        /// The key's identifier.
        id: String,
        /// What it is called from now on.
        name: String,
    },

    Update(Box<Update>),

    Rotate(Rotate),

    /// Revokes a key: it is refused from now on. Its record and its history are kept.
    ///
    /// A key that is revoked already stays so, which is no error.
    Revoke {
        /// The key's identifier.
        id: String,
    },

    /// Deletes a key and its record, for good. Its history is kept.
    ///
    /// Asks first. Where nobody can be asked, since the standard input is no terminal, nothing is deleted without --yes.
    Delete {
        /// The key's identifier.
        id: String,
        /// Deletes without asking.
        #[arg(long, short)]
        yes: bool,
    },

    Usage(Usage),
}

const AFTER_CREATE: &str = "\
Examples:
  tollgate keys create --name deploy --scope jobs:read --scope jobs:create
  tollgate keys create --name trial --tenant acme --plan basic --environment test --expires-in 14d
  tollgate keys create --name batch --quota default=600/minute,10000/hour --metadata '{\"team\":7}'
  KEY=$(tollgate keys create --name deploy)";

/// Issues a key, and shows its secret this once.
///
/// The secret goes to the standard output, all else to the standard error. The database gets the plain SHA-256 of it: a service
/// that verifies with peppers must take such digests, too (`Peppers::with_unpeppered`).
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_CREATE)]
pub(crate) struct Create {
    /// What the key is called: no two keys of a tenant have one name.
    #[arg(long)]
    pub(crate) name: String,

    /// The organization or account that owns it.
    #[arg(long)]
    pub(crate) tenant: Option<String>,

    /// Whether the key acts on live or on test data.
    #[arg(long, default_value = "live")]
    pub(crate) environment: Environment,

    #[command(flatten)]
    pub(crate) terms: Terms,

    /// Its role within the tenant, a word of the application's own.
    #[arg(long)]
    pub(crate) role: Option<String>,

    /// What the secret begins with, before `_live_` or `_test_`.
    #[arg(long, env = "TOLLGATE_PREFIX", default_value = "sk", value_parser = values::prefix)]
    pub(crate) prefix: KeyFormat,
}

/// What a key may do, how often, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Terms {
    /// What it may do; repeated for several scopes.
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Vec<Scopes>,

    /// The scopes that there are, with spaces between: others are refused. Without it, every well-formed scope is taken.
    #[arg(long, value_name = "SCOPES", env = "TOLLGATE_SCOPES")]
    pub(crate) known_scopes: Option<Scopes>,

    /// The tier that was bought.
    #[arg(long, value_name = "TIER")]
    pub(crate) plan: Option<String>,

    /// The plan is not in force.
    #[arg(long, requires = "plan")]
    pub(crate) lapsed: bool,

    /// The instant from which it is refused: 2027-01-31T00:00:00Z.
    #[arg(long, value_name = "INSTANT", value_parser = values::instant, conflicts_with = "expires_in")]
    pub(crate) expires: Option<SystemTime>,

    /// How long it is good: 30d, 12h, 1h30m. A day is 24 hours.
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) expires_in: Option<Duration>,

    /// A quota of its own in the place of that of a policy: default=60/minute,1000/hour. Repeated for several policies.
    #[arg(long, value_name = "POLICY=QUOTA", value_parser = values::quota)]
    pub(crate) quota: Vec<(String, Quota)>,

    /// Data of the application's own: a JSON object.
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<Metadata>,
}

/// Lists keys, the newest first.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only the keys of this tenant.
    #[arg(long)]
    pub(crate) tenant: Option<String>,

    /// Only those with this status.
    #[arg(long, value_parser = states())]
    pub(crate) status: Option<KeyState>,

    /// Only those whose name or display prefix begins like this. Case counts.
    #[arg(long, value_name = "BEGINNING")]
    pub(crate) search: Option<String>,

    /// How many keys are looked at: 1 to 1000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,

    /// Goes on where a list ended.
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<String>,

    /// Lists all of them.
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    pub(crate) all: bool,
}

fn states() -> impl TypedValueParser<Value = KeyState> {
    let names = PossibleValuesParser::new(KeyState::ALL.map(KeyState::as_str));
    names.try_map(|name| KeyState::from_name(&name).ok_or("it is no status of a key"))
}

const AFTER_UPDATE: &str = "\
Examples:
  tollgate keys update key_0199… --scope jobs:read --scope jobs:create
  tollgate keys update key_0199… --plan pro --quota default=600/minute,10000/hour
  tollgate keys update key_0199… --expires-in 30d
  tollgate keys update key_0199… --no-expiry --no-quotas";

/// Changes what a key is called, what it may do, how often, or for how long.
///
/// What is said takes the place of all that the key had of it: of all its scopes, of all its quotas. What is not said stays as it
/// is, and so does the secret. What is being streamed under the key goes on until the expiry that it began with.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own, and says no more than that it is there"
)]
#[derive(Debug, Args)]
#[command(override_usage = "tollgate keys update [OPTIONS] <CHANGE>... <ID>", after_long_help = AFTER_UPDATE)]
#[command(group(ArgGroup::new("changes").args(CHANGES).required(true).multiple(true)))]
pub(crate) struct Update {
    /// The key's identifier.
    pub(crate) id: String,

    /// What it is called from now on.
    #[arg(long)]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) terms: Terms,

    /// It may do nothing any more.
    #[arg(long, conflicts_with = "scope")]
    pub(crate) no_scopes: bool,

    /// It has no plan any more.
    #[arg(long, conflicts_with = "plan")]
    pub(crate) no_plan: bool,

    /// It never expires.
    #[arg(long, conflicts_with_all = ["expires", "expires_in"])]
    pub(crate) no_expiry: bool,

    /// It has no quota of its own any more: those of the policies hold.
    #[arg(long, conflicts_with = "quota")]
    pub(crate) no_quotas: bool,

    /// It has no data of the application's own any more.
    #[arg(long, conflicts_with = "metadata")]
    pub(crate) no_metadata: bool,
}

/// What can be changed, of which an update says at least one.
const CHANGES: [&str; 12] = [
    "name",
    "scope",
    "plan",
    "expires",
    "expires_in",
    "quota",
    "metadata",
    "no_scopes",
    "no_plan",
    "no_expiry",
    "no_quotas",
    "no_metadata",
];

/// Gives a key another secret, and shows that this once.
///
/// Everything else stays as it is: identifier, counters, usage, history. The former secret ends at the same moment, or once the
/// overlap is over; one that is still good from an earlier rotation ends in any case. The new one begins as the former one does,
/// but for the random part.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// The key's identifier.
    pub(crate) id: String,

    /// How long the former secret stays good, so that there is time to replace it: 24h.
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) overlap: Option<Duration>,

    /// What the new secret begins with, in place of what the former one begins with.
    #[arg(long, value_parser = values::prefix)]
    pub(crate) prefix: Option<KeyFormat>,
}

/// Tells how often a key was used: by hour, or by day if that is many hours.
#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// The key's identifier.
    pub(crate) id: String,

    /// From when on: 2027-01-31, or 2027-01-31T09:00:00Z. A week before the end if it is absent. Days begin at midnight UTC.
    #[arg(long, value_name = "INSTANT", value_parser = values::instant_or_day)]
    pub(crate) from: Option<SystemTime>,

    /// Until when; now if it is absent.
    #[arg(long, value_name = "INSTANT", value_parser = values::instant_or_day)]
    pub(crate) until: Option<SystemTime>,
}
