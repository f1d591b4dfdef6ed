//! The store: three ports, whatever is behind them.

use std::{path::Path, pin::pin, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tollgate::{manage::KeyAdmin, store::KeyStore, usage::UsageStore};
use tollgate_sql::{ConnectError, SqlKeys};

use crate::failure::{Exit, Failure};

/// Waits shorter than this are not worth a sign of life.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a store is asked for.
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

/// What may become of a database that is not there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMissing {
    Create,
    /// Neither a file nor tables are made: a mistyped URL must not look like a store without keys.
    Fail,
}

/// Opens the database, which has so much time for each step.
pub(crate) async fn open(url: &str, if_missing: IfMissing, limit: Duration) -> Result<SqlKeys, Failure> {
    // One command asks one thing after another.
    let builder = || SqlKeys::builder().with_deadline(limit).with_admin_deadline(limit).with_connections(1);
    let opening = async {
        if if_missing == IfMissing::Create {
            return builder().connect(url).await;
        }
        let url = without_creation(url);
        match builder().without_migration().connect(&url).await {
            // Tables that are there are brought up to date, as by every program that opens them.
            Err(ConnectError::OlderSchema { found: 1.., .. }) => builder().connect(&url).await,
            opened => opened,
        }
    };
    show_waiting("Opening the database", opening).await.map_err(|error| {
        let exit = match error {
            ConnectError::InvalidUrl(_) | ConnectError::InvalidSetting(_) | ConnectError::NotBuiltIn { .. } => Exit::Usage,
            _ => Exit::Database,
        };
        let sentence = match error {
            ConnectError::OlderSchema { found: 0, .. } => {
                "there are no keys in this database: check the URL; `tollgate keys create` issues the first one".into()
            }
            ConnectError::Unreachable(_) if if_missing == IfMissing::Fail && is_missing(url) => {
                "there is no such file: check the URL; `tollgate keys create` makes the file with the first key".into()
            }
            error => error.to_string(),
        };
        Failure::new(exit, sentence)
    })
}

/// The URL by which a file is opened only if it is there; a server's as it is.
fn without_creation(url: &str) -> String {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let is_file = path.starts_with("sqlite:") && !path.ends_with(":memory:");
    match query {
        _ if !is_file || query.split('&').any(|pair| pair.starts_with("mode=")) => url.to_owned(),
        "" => format!("{path}?mode=rw"),
        query => format!("{path}?{query}&mode=rw"),
    }
}

/// Whether there is no file where the URL says.
fn is_missing(url: &str) -> bool {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
    let path = path.map(|path| path.split('?').next().unwrap_or_default());
    path.is_some_and(|path| !path.is_empty() && !Path::new(path).exists())
}

/// Waits, and shows that on a terminal if it takes long.
pub(crate) async fn show_waiting<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(outcome) = tokio::time::timeout(PATIENCE, &mut work).await {
        return outcome;
    }
    // On standard error; hides itself where that is no terminal.
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
    fn only_a_file_is_opened_without_making_it() {
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
