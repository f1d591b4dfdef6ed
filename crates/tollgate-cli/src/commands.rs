//! One function for each command, over the backend traits of a store.

mod credits;
mod keys;
#[cfg(feature = "redis")]
mod limits;
mod prune;
mod schema;
mod tenants;
mod usage;
mod verify;

use std::{env, path::PathBuf, time::SystemTime};

use clap::CommandFactory as _;
use clap_complete::Shell;
use tollgate::{
    KeyFormat,
    clock::{Clock as _, SystemClock},
    manage::{Actor, KeyManager},
};
use zeroize::Zeroizing;

use crate::{
    arguments::{Arguments, Command, Global, Keys},
    failure::{Exit, Failure},
    input, output,
    store::{self, IfMissing, Store},
};

/// What a command needs.
struct Session {
    store: Store,
    /// The database file that was created.
    new_file: Option<PathBuf>,
    actor: Actor,
    is_json: bool,
}

impl Session {
    /// A manager whose new secrets have this format.
    fn manager(&self, format: KeyFormat) -> KeyManager {
        KeyManager::new(format, self.store.admin.clone())
    }

    /// A manager for commands that create no secrets.
    fn keyless_manager(&self) -> KeyManager {
        self.manager(KeyFormat::opaque())
    }
}

pub(crate) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { global, command } = arguments;
    match &command {
        Command::Completions { shell } => return completions(*shell),
        Command::Schema(arguments) => return schema::schema(arguments, global.json),
        #[cfg(feature = "redis")]
        Command::Limits(command) => return limits::run(command, &global).await,
        _ => {}
    }
    let url = url(&global)?;
    if let Command::Migrate = command {
        if global.no_migrate {
            return Err(Failure::new(Exit::Usage, "`tollgate migrate` cannot be combined with --no-migrate"));
        }
        return schema::migrate(url, &global).await;
    }
    if let Command::Verify(verify) = &command
        && !verify.misplaced.is_empty()
    {
        return Err(Failure::new(
            Exit::Usage,
            "the key must not be an argument, which other users of this machine can read: pass it on standard input",
        ));
    }
    // Before the database is opened, so that no connection is idle while the user types.
    let secret = match command {
        Command::Verify(_) => input::secret().await?,
        _ => Zeroizing::default(),
    };
    let if_missing = match command {
        Command::Keys(Keys::Create(_)) => IfMissing::Create,
        _ => IfMissing::Fail,
    };
    let (database, new_file) = store::open(url, if_missing, &global).await?;
    let store = Store::of(database.clone());
    let session = Session { store, new_file, actor: actor(&global), is_json: global.json };
    let outcome = match command {
        Command::Keys(command) => keys::run(command, session).await,
        Command::Tenants(command) => tenants::run(command, session).await,
        Command::Credits(command) => credits::run(command, session).await,
        Command::Prune(command) => prune::run(command, &database, session.is_json).await,
        Command::Verify(command) => verify::run(command, &secret, session).await,
        Command::Migrate | Command::Schema(_) | Command::Completions { .. } => Ok(Exit::Done),
        #[cfg(feature = "redis")]
        Command::Limits(_) => Ok(Exit::Done),
    };
    database.close().await;
    outcome
}

fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "tollgate", &mut script);
    output::result(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

fn url(global: &Global) -> Result<&str, Failure> {
    global.database.as_deref().filter(|url| !url.is_empty()).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            "no database URL: set TOLLGATE_DATABASE or --database to sqlite://keys.db or postgres://user@host/database",
        )
    })
}

/// The name in the history.
fn actor(global: &Global) -> Actor {
    let user = || ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(|name| env::var(name).ok());
    let name = global.operator.clone().or_else(user).filter(|name| !name.is_empty());
    // Users cannot change their user name for this, so it is adapted and not refused.
    let name: String = name.unwrap_or_else(|| "unknown".to_owned());
    let name: String = name.chars().filter(|character| !character.is_control()).take(100).collect();
    Actor::new(format!("cli:{name}"))
}

fn now() -> SystemTime {
    SystemClock.now()
}
