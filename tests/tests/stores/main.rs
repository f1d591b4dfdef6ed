//! Every store of keys and of credits passes the conformance suites: ours, and two on tables of an application's own.
//!
//! | module | idea |
//! |---|---|
//! | `backends` | how each of our stores is opened |
//! | `bounds` | the guide's table of bounds |
//! | `credits` | the stores of credits |
//! | `careless` | a store that does not keep tenants apart |
//! | `own_table` | a store for reading on a table in SQLite, and one with events on a table in PostgreSQL |
#![expect(clippy::unwrap_used, reason = "a failed assertion panics")]

mod backends;
mod bounds;
mod careless;
mod credits;
mod own_table;

use tests::suite::at;
use tollgate::{
    MemoryKeys,
    key::Digest,
    manage::{Actor, Command, HistoryQuery, KeyAdmin, KeyAdminError, KeyChange, KeyDetails, KeyQuery},
};
use tollgate_testing::suite;

use self::backends::{PostgresKeys, SqliteFileKeys, sqlite_in_memory};

/// The tests of one kind of store. `$open` is an asynchronous function that opens a new one.
macro_rules! test_store {
    ($store:ident, $backend:expr, $open:expr) => {
        mod $store {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn conforms_as_a_store_that_manages_keys() {
                let backend = $backend;
                suite::key_admin(async || $open(&backend).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn conforms_as_a_store_of_keys_and_their_usage() {
                let backend = $backend;
                suite::key_usage(async || $open(&backend).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn conforms_as_a_usage_store() {
                let backend = $backend;
                let open = async || {
                    let store = $open(&backend).await;
                    for id in suite::KNOWN_KEYS {
                        issue(&store, id).await;
                    }
                    store
                };
                suite::usage_store(open).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn refuses_a_cursor_that_was_changed() {
                let backend = $backend;
                a_cursor_that_was_changed_is_refused(&$open(&backend).await).await;
            }
        }
    };
}

test_store!(memory, (), async |(): &()| MemoryKeys::new());
test_store!(sqlite_in_memory, (), async |(): &()| sqlite_in_memory().await);
test_store!(sqlite_file, SqliteFileKeys::new(), SqliteFileKeys::open);
test_store!(postgresql, PostgresKeys::start().await, PostgresKeys::open);

async fn issue(store: &impl KeyAdmin, id: &str) {
    let details = Box::new(KeyDetails::new(id, id, at(0)));
    let change = KeyChange::Issue { details, digest: Digest::of(id) };
    store.change(Command::new(change, Actor::new("root"), at(0))).await.unwrap();
}

async fn a_cursor_that_was_changed_is_refused(store: &impl KeyAdmin) {
    issue(store, "a").await;
    for cursor in ["", "x", ".", "18446744073709551616.key", "1", "' OR 1=1 --", "ö.ö"] {
        let list = store.list(&KeyQuery::all().with_after(cursor)).await;
        assert!(matches!(list, Err(KeyAdminError::InvalidCursor)), "{cursor}: {list:?}");
    }
    for cursor in ["", "x", "1.5", "18446744073709551616"] {
        let history = store.history(&HistoryQuery::all().with_after(cursor)).await;
        assert!(matches!(history, Err(KeyAdminError::InvalidCursor)), "{cursor}: {history:?}");
    }
}
