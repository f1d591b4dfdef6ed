//! What all operations of a store share.

use tokio::runtime::Handle as Runtime;

use crate::{database::Database, notifier::Notifier, queues::Queues, settings::Settings};

/// The parts of a store. Its handles and its background task hold it.
pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) notifier: Notifier,
    pub(crate) settings: Settings,
    /// The PostgreSQL channel for notifications. SQLite has none.
    pub(crate) channel: Option<String>,
    /// Changes of accounts of credits.
    pub(crate) queues: Queues,
    pub(crate) runtime: Runtime,
}
