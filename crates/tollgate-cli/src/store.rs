//! Opens the key store, and runs migrations.

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tollgate::{credits::CreditAdmin, manage::KeyAdmin, store::KeyStore, usage::UsageStore};
use tollgate_sql::{ConnectError, Migrated, SqlKeys, SqlKeysBuilder};

use crate::{
    arguments::Global,
    failure::{Exit, Failure},
};

/// A spinner is shown after this time.
const SPINNER_DELAY: Duration = Duration::from_millis(200);

/// The store behind its backend traits.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) admin: Arc<dyn KeyAdmin>,
    pub(crate) keys: Arc<dyn KeyStore>,
    pub(crate) usage: Arc<dyn UsageStore>,
    pub(crate) credits: Arc<dyn CreditAdmin>,
}

impl Store {
    pub(crate) fn of(store: SqlKeys) -> Self {
        Self {
            admin: Arc::new(store.clone()),
            keys: Arc::new(store.clone()),
            credits: Arc::new(store.credits()),
            usage: Arc::new(store),
        }
    }
}

/// What to do if there are no tables yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMissing {
    /// Creates them in a new file, and in an empty database. They are not added to a database of another program, because the URL may
    /// be mistyped.
    Create,
    /// Creates neither a file nor tables: a mistyped URL must not look like an empty store.
    Fail,
}

/// Opens the store. Also returns the file that it has created.
pub(crate) async fn open(
    url: &str,
    if_missing: IfMissing,
    global: &Global,
) -> Result<(SqlKeys, Option<PathBuf>), Failure> {
    let creates = if_missing == IfMissing::Create && !global.no_migrate;
    let missing = missing_file(url);
    let opening = async {
        if creates && missing.is_some() {
            return builder(global).connect(url).await;
        }
        let url = without_creation(url);
        match builder(global).without_migration().connect(&url).await {
            Err(ConnectError::OlderSchema { .. }) if !global.no_migrate => {
                builder(global).connect(&url).await
            }
            Err(ConnectError::MissingSchema { is_empty: true, .. }) if creates => {
                builder(global).connect(&url).await
            }
            opened => opened,
        }
    };
    let opened = show_waiting("Opening the database", opening).await;
    let store = opened.map_err(|error| match error {
        ConnectError::MissingSchema { is_empty: true, .. } if !global.no_migrate => Failure::new(
            Exit::Database,
            "this database has no Tollgate tables: check the URL; `tollgate migrate` creates the tables, and so does \
             `tollgate keys create`",
        ),
        ConnectError::MissingSchema { .. } if !global.no_migrate => Failure::new(
            Exit::Database,
            "this database has no Tollgate tables, but those of another program: check the URL; `tollgate migrate` adds the tables",
        ),
        ConnectError::Unreachable(_) if missing.is_some() && !creates => Failure::new(
            Exit::Database,
            "the database file does not exist: check the URL; `tollgate migrate` creates it, and so does `tollgate keys create`",
        ),
        error => failure(&error),
    })?;
    Ok((store, missing))
}

/// Creates or updates the tables.
pub(crate) async fn migrate(url: &str, global: &Global) -> Result<Migrated, Failure> {
    let migrating = builder(global).migrate(url);
    show_waiting("Migrating the database", migrating).await.map_err(|error| failure(&error))
}

fn builder(global: &Global) -> SqlKeysBuilder {
    // A command runs one query at a time.
    let limit = global.timeout;
    let builder = SqlKeys::builder().with_deadline(limit).with_credit_deadline(limit);
    builder.with_admin_deadline(limit).with_connections(1)
}

fn failure(error: &ConnectError) -> Failure {
    let exit = match error {
        ConnectError::InvalidUrl(_) | ConnectError::InvalidSetting(_) | ConnectError::NotBuiltIn { .. } => {
            Exit::Usage
        }
        _ => Exit::Database,
    };
    Failure::new(exit, error.to_string())
}

/// The URL that opens a file only if it exists. URLs of servers stay unchanged.
fn without_creation(url: &str) -> String {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let is_file = path.starts_with("sqlite:") && !path.ends_with(":memory:");
    match query {
        _ if !is_file => url.to_owned(),
        _ if query.split('&').any(|pair| pair == "mode=rwc") => {
            format!("{path}?{}", query.replace("mode=rwc", "mode=rw"))
        }
        _ if query.split('&').any(|pair| pair.starts_with("mode=")) => url.to_owned(),
        "" => format!("{path}?mode=rw"),
        query => format!("{path}?{query}&mode=rw"),
    }
}

/// The file that the URL names, if it does not exist.
#[cfg(feature = "sqlite")]
fn missing_file(url: &str) -> Option<PathBuf> {
    use tollgate_sql::sqlx::sqlite::SqliteConnectOptions;

    let options = url.starts_with("sqlite:").then(|| url.parse::<SqliteConnectOptions>().ok()).flatten()?;
    let path = options.get_filename();
    let is_in_memory =
        url.contains("mode=memory") || path.as_os_str().as_encoded_bytes().starts_with(b"file:");
    (!is_in_memory && !path.as_os_str().is_empty() && !path.exists()).then(|| path.to_owned())
}

#[cfg(not(feature = "sqlite"))]
fn missing_file(_: &str) -> Option<PathBuf> {
    None
}

/// Waits for some work, and shows a spinner on a terminal if it takes long.
pub(crate) async fn show_waiting<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(outcome) = tokio::time::timeout(SPINNER_DELAY, &mut work).await {
        return outcome;
    }
    // Hidden unless standard error is a terminal.
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        .with_style(ProgressStyle::default_spinner())
        .with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(100));
    let outcome = work.await;
    spinner.finish_and_clear();
    outcome
}

#[cfg(test)]
mod tests {
    use super::without_creation;

    #[test]
    fn only_urls_of_files_get_a_mode() {
        for (given, opened) in [
            ("sqlite://keys.db", "sqlite://keys.db?mode=rw"),
            ("sqlite://keys.db?cache=private", "sqlite://keys.db?cache=private&mode=rw"),
            ("sqlite://keys.db?mode=rwc", "sqlite://keys.db?mode=rw"),
            ("sqlite://keys.db?mode=ro", "sqlite://keys.db?mode=ro"),
            ("sqlite://mode=2.db", "sqlite://mode=2.db?mode=rw"),
            ("sqlite::memory:", "sqlite::memory:"),
            ("postgres://ada@host/keys", "postgres://ada@host/keys"),
        ] {
            assert_eq!(without_creation(given), opened);
        }
    }
}
