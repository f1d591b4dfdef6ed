//! API keys, their history, their usage, and credits in SQLite or PostgreSQL, for the Tollgate middleware family.
//!
//! [`SqlKeys`] implements [`KeyStore`](tollgate_core::store::KeyStore), by which a `KeyVerifier` finds keys;
//! [`KeyAdmin`](tollgate_core::manage::KeyAdmin), which issues, changes, revokes and lists them; and
//! [`UsageStore`](tollgate_core::usage::UsageStore). The database contains digests and display prefixes of keys, and no secrets.
//! [`SqlCredits`] implements [`Credits`](tollgate_core::credits::Credits) and
//! [`CreditAdmin`](tollgate_core::credits::CreditAdmin) in the same database.
//!
//! ```
//! use std::time::SystemTime;
//! use tollgate_core::{
//!     clock::{Clock, SystemClock},
//!     key::{Digest, Environment, KeyFormat},
//!     manage::{Actor, Command, KeyAdmin, KeyChange, KeyDetails},
//!     store::{EndReason, KeyLookup, KeyStore},
//! };
//! use tollgate_sql::SqlKeys;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = SqlKeys::connect("sqlite::memory:").await?; // or `sqlite://keys.db`, `postgres://…`
//!
//! let (format, now) = (KeyFormat::new("sk")?, SystemClock.now());
//! let secret = format.generate(Environment::Live)?;
//! let mut details = KeyDetails::new("key_1", "build server", now);
//! details.tenant = Some("acme".into());
//! let digest = Digest::of(secret.expose_secret());
//! let issue = KeyChange::Issue { details: Box::new(details), digest };
//! keys.change(Command::new(issue, Actor::new("cli:ada"), now)).await?;
//!
//! let record = keys.find(&KeyLookup::new(&[digest], now)).await?.expect("the key exists");
//! assert_eq!(record.principal().tenant(), Some("acme"));
//!
//! let revoke = KeyChange::Revoke { id: "key_1".into() };
//! keys.change(Command::new(revoke, Actor::new("cli:ada"), now)).await?;
//! assert_eq!(record.principal().end_signal().reason(), Some(EndReason::Revoked)); // open streams end
//! # keys.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`SqlKeys::builder`] has the settings, and connects with sqlx's connection options or over a pool of the application's.
//!
//! # Migrations
//!
//! Opening a store creates its tables, or updates them. To run migrations separately:
//!
//! 1. Run `tollgate migrate --database URL`, or [`SqlKeysBuilder::migrate`], or apply the files that
//!    `tollgate schema --database-kind postgres` prints ([`migrations`]) with a tool of your own.
//! 2. Open the store with [`without_migration`](SqlKeysBuilder::without_migration). Its database user then only reads and writes
//!    rows.
//!
//! Table names begin with `tollgate_`, so the tables can share a database with others. In PostgreSQL,
//! `?options[search_path]=…` puts them into a schema of their own.
//!
//! # How soon a change takes effect
//!
//! The database refuses a key from the commit of its revocation, deletion or rotation, or of its tenant's suspension. Principals
//! that were found before end:
//!
//! | where | when | how |
//! |---|---|---|
//! | in the process that makes the change | before `change` returns | |
//! | in another process, PostgreSQL | at once | a notification is sent with the commit |
//! | in another process, SQLite file | within the [poll interval](SqlKeysBuilder::with_poll_interval), 100 ms | |
//!
//! If notifications cannot arrive, listeners get [`Disconnected`](tollgate_core::store::StoreEvent::Disconnected), and caches keep
//! nothing:
//!
//! | failure | noticed |
//! |---|---|
//! | PostgreSQL closes the connection | at once |
//! | the network to PostgreSQL fails in silence | within two [heartbeats](SqlKeysBuilder::with_heartbeat), 2 s |
//! | the SQLite file cannot be read | within the poll interval and the [deadline](SqlKeysBuilder::with_deadline) |
//! | the SQLite file, or its content, is replaced by a backup | within the poll interval |
//!
//! Until then, [`SqlKeys::staleness_bound`] limits how long an outdated principal stays valid. While disconnected, each lookup
//! reads the database. After a reconnect, the keys of all principals in use are read again, and those that ended meanwhile end;
//! then listeners get [`Connected`](tollgate_core::store::StoreEvent::Connected).
//!
//! A rotation with an overlap ends no stream that the former secret opened, not even when the overlap is over: like any expiry, it
//! ends no request that has begun. Limit streams by the principal's expiry for that.
//!
//! # Failures
//!
//! | failure | effect |
//! |---|---|
//! | the database does not answer within the [deadline](SqlKeysBuilder::with_deadline), 250 ms | the lookup is `Unavailable`, and the request gets status 503 |
//! | the connection breaks during the commit of a change | the change is `Unavailable`: check whether it was made. If it was, listeners are notified as of a change by another process |
//! | the caller of a change drops its future | the change is made, and listeners are notified |
//! | two programs start at the same time | one creates the tables, the other waits |
//! | a newer program has updated the tables | [`ConnectError::NewerSchema`]; nothing is changed |
//! | the SQLite file is replaced by a backup | the store opens new connections, and all principals end. Over an application's pool, the store is `Unavailable` until the program is restarted |
//!
//! # Retention
//!
//! The history, the usage and the reservations of credits grow until [`SqlKeys::prune`] or `tollgate prune` deletes old entries: run one of them regularly. Both
//! keep what a [`Retention`] says, and delete in short transactions. A process that has not read an entry of the history before it
//! was deleted notices that, and reads its keys again.
//!
//! # Databases
//!
//! SQLite uses a write-ahead log and `synchronous=FULL`: a committed revocation survives a power failure. The file must be on a local
//! disk, as SQLite requires for write-ahead logs. A new file can only be read by its owner (mode 0600). Usage is added in small
//! transactions, so that a revocation waits for some milliseconds at most.
//!
//! To restore a backup, move the file to the place of the former one, after removing the files `-wal` and `-shm` beside it; or use
//! `.restore` of the program `sqlite3`.
//!
//! PostgreSQL must be version 10 or later, and its round trip shorter than the [deadline](SqlKeysBuilder::with_deadline). A pooler in
//! transaction mode does not deliver notifications: the store does not open through one ([`ConnectError::NoNotifications`]).
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg(any(feature = "sqlite", feature = "postgres"))]

// Each group of modules uses the groups below it, never one above.

mod builder; // opens a store
mod credits; // credits beside the keys
mod keys; // the store, and the backend traits that it implements

mod change; // changes of keys and tenants
mod find; // key lookups
mod follow; // changes by other processes
mod list; // pages of keys and of the history
mod prune; // deletes old entries of the history, old usage, and forgotten reservations
mod usage; // counts by key and hour

mod shared; // what these operations share

mod migrations; // the SQL files, and how they run
mod notifier;
mod queues; // the order of changes of accounts of credits // listeners, and the ends of principals

mod event; // a change, as the history has it
mod message; // a change, as PostgreSQL's notifications have it
mod record; // a key, as the tables have it
mod tenant; // a tenant, as the tables have it

mod database; // connections, transactions and pools

mod connect_error; // why a store cannot be opened
mod fault; // a failed operation on the database
mod instant; // timestamps
mod kind; // the names of the databases
mod settings; // what a store is configured with

/// The version of sqlx whose connection options and pools this crate takes.
pub use sqlx;

pub use builder::SqlKeysBuilder;
pub use connect_error::ConnectError;
pub use credits::SqlCredits;
pub use keys::SqlKeys;
pub use kind::{DatabaseKind, UnknownDatabaseKind};
pub use migrations::{Migrated, Migration, migrations};
pub use prune::{Pruned, Retention};
