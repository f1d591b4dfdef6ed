//! The arguments of the commands about keys.

use std::time::{Duration, SystemTime};

use clap::{
    ArgGroup, Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use tollgate::{
    Environment, KeyFormat, Quota, Scopes,
    manage::{KeyState, Metadata},
    network::Network,
};

use super::values;

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    Create(Box<Create>),

    List(List),

    /// Shows a key and its history, newest first.
    Show {
        /// The identifier of the key.
        id: String,
    },

    /// Renames a key.
    Rename {
        /// The identifier of the key.
        id: String,
        /// The new name.
        #[arg(value_parser = values::word)]
        name: String,
    },

    Update(Box<Update>),

    Rotate(Rotate),

    /// Revokes a key: it is refused from now on. The key and its history are kept.
    ///
    /// To revoke a revoked key is no error.
    Revoke {
        /// The identifier of the key.
        id: String,
    },

    /// Deletes a key permanently. Its history is kept.
    ///
    /// Asks for confirmation. If standard input is not a terminal, --yes is required.
    Delete {
        /// The identifier of the key.
        id: String,
        /// Deletes without confirmation.
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

/// Creates a key, and shows its secret once.
///
/// The secret goes to standard output, all other text to standard error. The database stores the SHA-256 digest without a
/// pepper: a service that verifies with peppers must also accept those (`Peppers::with_unpeppered`).
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_CREATE)]
pub(crate) struct Create {
    /// The name of the key, unique within its tenant.
    #[arg(long, value_parser = values::word)]
    pub(crate) name: String,

    /// The organization or account that owns the key.
    #[arg(long, value_parser = values::word)]
    pub(crate) tenant: Option<String>,

    /// The environment of the key: live or test.
    #[arg(long, default_value = "live")]
    pub(crate) environment: Environment,

    #[command(flatten)]
    pub(crate) terms: Terms,

    /// The role within the tenant, defined by the application.
    #[arg(long, value_parser = values::word)]
    pub(crate) role: Option<String>,

    /// The prefix of the secret, before `_live_` or `_test_`.
    #[arg(long, env = "TOLLGATE_PREFIX", default_value = "sk", value_parser = values::prefix)]
    pub(crate) prefix: KeyFormat,
}

/// The rights of a key, its quotas, and its expiry.
#[derive(Debug, Args)]
pub(crate) struct Terms {
    /// A scope. Repeat it for several, or separate them by commas.
    #[arg(long, value_name = "SCOPE", value_parser = values::scopes)]
    pub(crate) scope: Vec<Scopes>,

    /// The scopes that exist, separated by commas or spaces. Others are refused. Default: every well-formed scope is accepted.
    #[arg(long, value_name = "SCOPES", env = "TOLLGATE_SCOPES", value_parser = values::scopes)]
    pub(crate) known_scopes: Option<Scopes>,

    /// The tier of a plan of the key's own. Default: the plan of its tenant.
    #[arg(long, value_name = "TIER", value_parser = values::word)]
    pub(crate) plan: Option<String>,

    /// The plan has lapsed.
    #[arg(long, requires = "plan")]
    pub(crate) lapsed: bool,

    /// When the key expires: 2027-01-31T00:00:00Z. Before the year 9999. Default: never.
    #[arg(long, value_name = "INSTANT", value_parser = values::instant, conflicts_with = "expires_in")]
    pub(crate) expires: Option<SystemTime>,

    /// How long the key is valid: 30d, 12h, 1h30m. A day has 24 hours.
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) expires_in: Option<Duration>,

    /// A quota that replaces that of a policy: default=60/minute,1000/hour. Repeat it for several policies.
    #[arg(long, value_name = "POLICY=QUOTA", value_parser = values::quota)]
    pub(crate) quota: Vec<(String, Quota)>,

    /// A network from which the key may be used: 198.51.100.0/24. Repeat it for several. Default: from anywhere.
    ///
    /// A service must know the addresses of its clients for this (`VerifyLayer::with_client_address`), or it refuses the key.
    #[arg(long, value_name = "NETWORK", value_parser = values::network)]
    pub(crate) network: Vec<Network>,

    /// Application data: a JSON object.
    #[arg(long, value_name = "JSON", value_parser = values::metadata)]
    pub(crate) metadata: Option<Metadata>,
}

/// Lists keys, newest first.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Lists only keys of this tenant.
    #[arg(long, value_parser = values::word)]
    pub(crate) tenant: Option<String>,

    /// Lists only keys with this status.
    #[arg(long, value_parser = states())]
    pub(crate) status: Option<KeyState>,

    /// Lists only keys whose name or display prefix begins with this text. Case-sensitive.
    #[arg(long, value_name = "TEXT")]
    pub(crate) search: Option<String>,

    /// The page size, before the filter by status: 1 to 1000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,

    /// Continues after the previous page.
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<String>,

    /// Lists all pages.
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    pub(crate) all: bool,
}

fn states() -> impl TypedValueParser<Value = KeyState> {
    let names = PossibleValuesParser::new(KeyState::ALL.map(KeyState::as_str));
    names.try_map(|name| KeyState::from_name(&name).ok_or("unknown status"))
}

const AFTER_UPDATE: &str = "\
Examples:
  tollgate keys update key_0199… --scope jobs:read --scope jobs:create
  tollgate keys update key_0199… --plan pro --quota default=600/minute,10000/hour
  tollgate keys update key_0199… --expires-in 30d
  tollgate keys update key_0199… --no-expiry --no-quotas";

/// Changes the name, rights, quotas or expiry of a key.
///
/// --scope, --quota and --network replace all scopes, all quotas and all networks of the key. Everything else stays as it is,
/// including the secret. Open streams keep the expiry that they began with.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Args)]
#[command(override_usage = "tollgate keys update [OPTIONS] <CHANGE>... <ID>", after_long_help = AFTER_UPDATE)]
#[command(group(ArgGroup::new("changes").args(CHANGES).required(true).multiple(true)))]
pub(crate) struct Update {
    /// The identifier of the key.
    pub(crate) id: String,

    /// The new name.
    #[arg(long, value_parser = values::word)]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) terms: Terms,

    /// Removes all scopes.
    #[arg(long, conflicts_with = "scope")]
    pub(crate) no_scopes: bool,

    /// Removes the key's own plan: the plan of its tenant applies.
    #[arg(long, conflicts_with = "plan")]
    pub(crate) no_plan: bool,

    /// Removes the expiry: the key never expires.
    #[arg(long, conflicts_with_all = ["expires", "expires_in"])]
    pub(crate) no_expiry: bool,

    /// Removes all quotas: those of the policies apply.
    #[arg(long, conflicts_with = "quota")]
    pub(crate) no_quotas: bool,

    /// Removes all networks: the key may be used from anywhere.
    #[arg(long, conflicts_with = "network")]
    pub(crate) no_networks: bool,

    /// Removes the application data.
    #[arg(long, conflicts_with = "metadata")]
    pub(crate) no_metadata: bool,
}

/// The options of an update. At least one is required.
const CHANGES: [&str; 14] = [
    "name",
    "scope",
    "plan",
    "expires",
    "expires_in",
    "quota",
    "network",
    "metadata",
    "no_scopes",
    "no_plan",
    "no_expiry",
    "no_quotas",
    "no_networks",
    "no_metadata",
];

/// Replaces the secret of a key, and shows the new one once.
///
/// Everything else stays as it is: identifier, counters, usage, history. The former secret becomes invalid at once, or after the
/// overlap. The former secret of an earlier rotation becomes invalid in any case. The new secret has the prefix and environment of
/// the former one.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// The identifier of the key.
    pub(crate) id: String,

    /// How long the former secret stays valid: 24h. Default: not at all.
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) overlap: Option<Duration>,

    /// The prefix of the new secret. Default: that of the former one.
    #[arg(long, value_parser = values::prefix)]
    pub(crate) prefix: Option<KeyFormat>,
}

/// Shows the usage of a key by hour; by day for more than 48 hours.
#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// The identifier of the key.
    pub(crate) id: String,

    /// The start: 2027-01-31, or 2027-01-31T09:00:00Z. Default: a week before the end. A date means midnight UTC.
    #[arg(long, value_name = "INSTANT", value_parser = values::instant_or_day)]
    pub(crate) from: Option<SystemTime>,

    /// The end. Default: now.
    #[arg(long, value_name = "INSTANT", value_parser = values::instant_or_day)]
    pub(crate) until: Option<SystemTime>,
}
