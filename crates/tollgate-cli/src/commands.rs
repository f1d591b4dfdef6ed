//! What the commands do, over the ports of a store.

mod keys;
mod tenants;
mod usage;
mod verify;

use std::{env, time::SystemTime};

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

/// What a command works with.
struct Session {
    store: Store,
    actor: Actor,
    is_json: bool,
}

impl Session {
    /// Manages the keys, whose new secrets have this format.
    fn manager(&self, format: KeyFormat) -> KeyManager {
        KeyManager::new(format, self.store.admin.clone())
    }

    /// Manages the keys, and makes no secrets.
    fn keeper(&self) -> KeyManager {
        self.manager(KeyFormat::opaque())
    }
}

pub(crate) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { global, command } = arguments;
    if let Command::Completions { shell } = command {
        return completions(shell);
    }
    let url = url(&global)?;
    if let Command::Verify(verify) = &command
        && !verify.misplaced.is_empty()
    {
        return Err(Failure::new(
            Exit::Usage,
            "a key is never an argument, which others on this machine can read: write it to the standard input",
        ));
    }
    // Read first, so that no connection waits for somebody who types.
    let secret = match command {
        Command::Verify(_) => input::secret().await?,
        _ => Zeroizing::default(),
    };
    let if_missing = match command {
        Command::Keys(Keys::Create(_)) => IfMissing::Create,
        _ => IfMissing::Fail,
    };
    let database = store::open(url, if_missing, global.timeout).await?;
    let session = Session { store: Store::of(database.clone()), actor: actor(&global), is_json: global.json };
    let outcome = match command {
        Command::Keys(command) => keys::run(command, session).await,
        Command::Tenants(command) => tenants::run(command, session).await,
        Command::Verify(command) => verify::run(command, &secret, session).await,
        Command::Completions { .. } => Ok(Exit::Done),
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
            "which database? Set TOLLGATE_DATABASE, or say --database: sqlite://keys.db, postgres://user@host/database",
        )
    })
}

/// Who stands in the history.
fn actor(global: &Global) -> Actor {
    let user = || ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(|name| env::var(name).ok());
    let name = global.operator.clone().or_else(user).filter(|name| !name.is_empty());
    // A user's name is nobody's to choose here, so that it is made fit rather than refused.
    let name: String = name.unwrap_or_else(|| "unknown".to_owned());
    let name: String = name.chars().filter(|character| !character.is_control()).take(100).collect();
    Actor::new(format!("cli:{name}"))
}

fn now() -> SystemTime {
    SystemClock.now()
}
