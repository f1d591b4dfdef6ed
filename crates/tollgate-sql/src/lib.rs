//! Keys, their history and their usage in SQLite or PostgreSQL, for the Tollgate middleware family.
//!
//! [`SqlKeys`] is one store for both: its URL says which. It implements [`KeyStore`](tollgate_core::store::KeyStore), so that a
//! `KeyVerifier` finds keys in it; [`KeyAdmin`](tollgate_core::manage::KeyAdmin), by which keys are issued, changed, revoked and listed;
//! and [`UsageStore`](tollgate_core::usage::UsageStore). Only digests and display prefixes are stored, never a secret.
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
//! keys.change(Command::new(issue, Actor::new("cli:ada"), now)).wait().await?;
//!
//! let record = keys.find(&KeyLookup::new(&[digest], now)).wait().await?.expect("it was just issued");
//! assert_eq!(record.principal().tenant(), Some("acme"));
//!
//! let revoke = KeyChange::Revoke { id: "key_1".into() };
//! keys.change(Command::new(revoke, Actor::new("cli:ada"), now)).wait().await?;
//! assert_eq!(record.principal().end_signal().reason(), Some(EndReason::Revoked)); // open streams are cut
//! # keys.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! With settings of your own: [`SqlKeys::builder`].
//!
//! # How soon a change is seen
//!
//! A key that is revoked, deleted or rotated away, or whose tenant is suspended, is refused by the database from the commit on.
//! What was found before has ended:
//!
//! | where | how soon | |
//! |---|---|---|
//! | this process | before `change` returns | |
//! | another one, PostgreSQL | at once | by a notification that is sent with the commit |
//! | another one, a SQLite file | within the [poll interval](SqlKeysBuilder::with_poll_interval), 100 ms | |
//! | PostgreSQL, the link was closed | at once | watchers are told [`Disconnected`](tollgate_core::store::StoreEvent::Disconnected), and caches keep nothing |
//! | PostgreSQL, the link was cut silently | within two [heartbeats](SqlKeysBuilder::with_heartbeat), 2 s | watchers are told `Disconnected` then |
//! | SQLite, the file cannot be read | within the poll interval and the [deadline](SqlKeysBuilder::with_deadline) | watchers are told `Disconnected` then |
//!
//! While news are lost, each look-up asks the database and is right, or is [`Unavailable`](tollgate_core::denial::Unavailable). What
//! streams hold is looked at again as soon as the link is back, before watchers are told
//! [`Connected`](tollgate_core::store::StoreEvent::Connected): what has ended meanwhile ends then. [`SqlKeys::staleness_bound`] is the bound as a
//! number.
//!
//! What a rotation with an overlap leaves good goes on: a stream that was opened by the former secret is not cut when that
//! expires, as with any expiry; combine it with the principal's.
//!
//! # What goes wrong, and what happens then
//!
//! | what | what happens |
//! |---|---|
//! | the database does not answer within the [deadline](SqlKeysBuilder::with_deadline), 250 ms | the look-up is `Unavailable`: the key is refused with 503 |
//! | the connection breaks at the commit of a change | the change is `Unavailable`: look whether it was made. If it was, its news arrive as those of another process |
//! | whoever asked for a change gives up waiting | the change is made and told all the same |
//! | two programs begin at once | one makes the tables, the other waits |
//! | a newer program has changed the tables | [`ConnectError::NewerSchema`], and nothing is touched |
//!
//! # The databases
//!
//! SQLite runs with a write-ahead log and `synchronous=FULL`: what was revoked stays revoked, also if the power fails. The file must
//! lie on a local disk, as SQLite's documentation says of write-ahead logs. PostgreSQL is needed from version 10 on; the way there
//! must not lead through a pooler that hands out connections by transaction, since notifications do not pass it: that is
//! found out at once ([`ConnectError::NoNews`]). Tables have names that begin with `tollgate_`, and may stand beside others; with
//! PostgreSQL, `?options[search_path]=…` puts them into a schema of their own.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg(any(feature = "sqlite", feature = "postgres"))]

mod builder;
mod change;
mod connect_error;
mod database;
mod events;
mod fault;
mod find;
mod instant;
mod keys;
mod list;
mod record;
mod schema;
mod usage;

pub use builder::SqlKeysBuilder;
pub use connect_error::ConnectError;
pub use keys::SqlKeys;
