//! What all operations of a store share.

use tokio::runtime::Handle as Runtime;

use crate::{database::Database, notifier::Notifier, settings::Settings};

/// The parts of a store. Its handles and its background task hold it.
pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) notifier: Notifier,
    pub(crate) settings: Settings,
    /// The PostgreSQL channel for notifications. SQLite has none.
    pub(crate) channel: Option<String>,
    pub(crate) runtime: Runtime,
}
