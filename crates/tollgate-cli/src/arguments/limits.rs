//! The arguments of the commands about limits.

use clap::{ArgGroup, Args, Subcommand};

use super::values;

const AFTER_HELP: &str = "\
What processes have borrowed of a quota counts as used, until they give back what is left of it: after half a second at most.

Examples:
  export TOLLGATE_REDIS_URL=redis://127.0.0.1:6379
  tollgate limits show --tenant acme
  tollgate limits show --subject key_0199…
  tollgate limits reset --tenant acme --policy default --subject key_0199…
  tollgate limits resets";

#[derive(Debug, Subcommand)]
pub(crate) enum Limits {
    /// Shows where the limits of a tenant or of a key stand.
    ///
    /// Counters of which nothing is used are left out. The command reads the names of all keys in Redis, in small steps: about a second
    /// for a million keys.
    #[command(override_usage = "tollgate limits show [OPTIONS] <--tenant <TENANT>|--subject <SUBJECT>>", after_long_help = AFTER_HELP)]
    Show {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        which: Which,
    },

    /// Removes counters, so that the whole quota is available again. Asks for confirmation.
    ///
    /// Redis keeps a record of it: who, when, and where the counters stood. If standard input is not a terminal, --yes is required.
    ///
    /// Services that know the quota to be used up refuse for up to one second more. What they have borrowed before is not counted
    /// afterwards, so they can admit as much more, once.
    #[command(override_usage = "tollgate limits reset [OPTIONS] <--tenant <TENANT>|--subject <SUBJECT>>", after_long_help = AFTER_HELP)]
    Reset {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        which: Which,
        /// Resets without confirmation.
        #[arg(long, short)]
        yes: bool,
    },

    /// Lists the recorded resets, the latest first: the last 1,000. All are forgotten 90 days after the latest one.
    #[command(after_long_help = AFTER_HELP)]
    Resets {
        #[command(flatten)]
        server: Server,
    },
}

/// Where the limits are counted.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// The URL of Redis or Valkey: `redis://user:password@host:6379`. With Sentinels: that of the primary.
    ///
    /// Prefer the environment variable if the URL contains a password: other users of this machine can read command lines.
    #[arg(long, value_name = "URL", env = "TOLLGATE_REDIS_URL", hide_env_values = true)]
    pub(crate) redis: Option<String>,

    /// The server is a node of a Redis Cluster.
    #[arg(long)]
    pub(crate) cluster: bool,

    /// What the names of all keys in Redis begin with: that of the services.
    #[arg(long, env = "TOLLGATE_REDIS_PREFIX", default_value = "tollgate", value_parser = values::word)]
    pub(crate) prefix: String,
}

/// Which counters.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").args(["tenant", "subject"]).required(true).multiple(true)))]
pub(crate) struct Which {
    /// The tenant: its own counters, and those of its keys. A Redis Cluster needs it.
    ///
    /// A key without a tenant is found by its identifier, an address by its text.
    #[arg(long, value_parser = values::word)]
    pub(crate) tenant: Option<String>,

    /// Only the counters of this key, address or other subject.
    #[arg(long, value_parser = values::word)]
    pub(crate) subject: Option<String>,

    /// Only the counters under this policy.
    #[arg(long, value_parser = values::word)]
    pub(crate) policy: Option<String>,
}
