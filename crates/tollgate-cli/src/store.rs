//! Opens the key store, and runs migrations.

use std::{path::Path, pin::pin, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tollgate::{manage::KeyAdmin, store::KeyStore, usage::UsageStore};
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
}

impl Store {
    pub(crate) fn of(store: impl KeyAdmin + KeyStore + UsageStore + Clone) -> Self {
        Self { admin: Arc::new(store.clone()), keys: Arc::new(store.clone()), usage: Arc::new(store) }
    }
}

/// What to do if there are no tables yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMissing {
    Create,
    /// Creates neither a file nor tables: a mistyped URL must not look like an empty store.
    Fail,
}

/// Opens the store.
pub(crate) async fn open(url: &str, if_missing: IfMissing, global: &Global) -> Result<SqlKeys, Failure> {
    let opening = async {
        match if_missing {
            IfMissing::Create if !global.no_migrate => builder(global).connect(url).await,
            IfMissing::Create => builder(global).without_migration().connect(url).await,
            IfMissing::Fail => {
                let url = without_creation(url);
                match builder(global).without_migration().connect(&url).await {
                    Err(ConnectError::OlderSchema { .. }) if !global.no_migrate => {
                        builder(global).connect(&url).await
                    }
                    opened => opened,
                }
            }
        }
    };
    show_waiting("Opening the database", opening).await.map_err(|error| match error {
        ConnectError::MissingSchema { .. } if !global.no_migrate => Failure::new(
            Exit::Database,
            "this database has no Tollgate tables: check the URL; `tollgate migrate` creates the tables, and so does \
             `tollgate keys create`",
        ),
        ConnectError::Unreachable(_) if if_missing == IfMissing::Fail && is_missing(url) => Failure::new(
            Exit::Database,
            "the database file does not exist: check the URL; `tollgate migrate` creates it, and so does `tollgate keys create`",
        ),
        error => failure(&error),
    })
}

/// Creates or updates the tables.
pub(crate) async fn migrate(url: &str, global: &Global) -> Result<Migrated, Failure> {
    let migrating = builder(global).migrate(url);
    show_waiting("Migrating the database", migrating).await.map_err(|error| failure(&error))
}

fn builder(global: &Global) -> SqlKeysBuilder {
    // A command runs one query at a time.
    let limit = global.timeout;
    SqlKeys::builder().with_deadline(limit).with_admin_deadline(limit).with_connections(1)
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
        _ if !is_file || query.split('&').any(|pair| pair.starts_with("mode=")) => url.to_owned(),
        "" => format!("{path}?mode=rw"),
        query => format!("{path}?{query}&mode=rw"),
    }
}

/// Whether the URL names a file that does not exist.
fn is_missing(url: &str) -> bool {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
    let path = path.map(|path| path.split('?').next().unwrap_or_default());
    path.is_some_and(|path| !path.is_empty() && !Path::new(path).exists())
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
            ("sqlite://keys.db?mode=rwc", "sqlite://keys.db?mode=rwc"),
            ("sqlite://mode=2.db", "sqlite://mode=2.db?mode=rw"),
            ("sqlite::memory:", "sqlite::memory:"),
            ("postgres://ada@host/keys", "postgres://ada@host/keys"),
        ] {
            assert_eq!(without_creation(given), opened);
        }
    }
}
