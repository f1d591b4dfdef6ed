//! The suite for the usage of managed keys.

use std::{sync::Arc, time::SystemTime};

use tollgate::{
    manage::KeyAdmin,
    store::KeyStore,
    usage::{UsageBatch, UsageCount, UsageStore},
};

use super::{
    key_admin::{Setup, root},
    run_cases,
    usage_store::{HOUR, used},
};
use crate::at;

/// Runs the suite for stores of keys and their usage: the last use of a key, and what becomes of its usage when it ends.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // In a test of its own, with your store in place of `MemoryKeys`:
/// tollgate_testing::suite::key_usage(async || tollgate::MemoryKeys::new()).await;
/// # }
/// ```
///
/// # Panics
/// If the store does not conform.
pub async fn key_usage<S: KeyStore + KeyAdmin + UsageStore>(open: impl AsyncFn() -> S) {
    let open = async || {
        let store = Arc::new(open().await);
        UsedKeys { keys: Setup::new(Arc::clone(&store)), usage: store }
    };
    run_cases!(
        "key_usage",
        open(),
        [
            the_last_use_of_a_key_moves_forward,
            a_revoked_key_keeps_its_usage,
            the_usage_of_unknown_and_deleted_keys_is_dropped,
        ]
    );
}

struct UsedKeys {
    keys: Setup,
    usage: Arc<dyn UsageStore>,
}

impl UsedKeys {
    async fn add(&self, writer: u128, number: u64, key: &str, hour: SystemTime, last: SystemTime) {
        let batch = UsageBatch::new(writer, number, [UsageCount::new(key, hour, 3, last)]);
        self.usage.add(batch).await.unwrap();
    }

    async fn last_use(&self, key: &str) -> Option<SystemTime> {
        self.keys.manager.show(key, &root()).await.unwrap().last_used_at
    }
}

async fn the_last_use_of_a_key_moves_forward(store: &UsedKeys) {
    let key = store.keys.issue("a").await.details.id;
    assert_eq!(store.last_use(&key).await, None, "a new key was not used");
    store.add(7, 1, &key, at(0), at(30)).await;
    assert_eq!(store.last_use(&key).await, Some(at(30)));
    store.add(7, 2, &key, at(0) + HOUR, at(3_700)).await;
    store.add(8, 1, &key, at(0), at(60)).await;
    assert_eq!(
        store.last_use(&key).await,
        Some(at(3_700)),
        "an earlier use that arrives later changes nothing"
    );
    assert_eq!(store.keys.actions(&key).await, ["issued"], "usage is not a change of the key");
}

async fn a_revoked_key_keeps_its_usage(store: &UsedKeys) {
    let key = store.keys.issue("a").await.details.id;
    store.add(7, 1, &key, at(0), at(30)).await;
    store.keys.manager.revoke(&key, &root()).await.unwrap();
    store.add(7, 2, &key, at(0), at(40)).await;
    assert_eq!(used(&*store.usage, &key, at(0), at(0) + HOUR).await, [(at(0), 6)]);
    assert_eq!(store.keys.actions(&key).await, ["revoked", "issued"], "usage is not a change of the key");
}

async fn the_usage_of_unknown_and_deleted_keys_is_dropped(store: &UsedKeys) {
    let key = store.keys.issue("a").await.details.id;
    let counts = [UsageCount::new(&*key, at(0), 3, at(30)), UsageCount::new("key_unknown", at(0), 3, at(30))];
    store.usage.add(UsageBatch::new(7, 1, counts)).await.unwrap();
    assert_eq!(used(&*store.usage, "key_unknown", at(0), at(1)).await, [], "an unknown key");
    assert_eq!(used(&*store.usage, &key, at(0), at(1)).await, [(at(0), 3)], "the other counts of the batch");
    store.keys.manager.delete(&key, &root()).await.unwrap();
    assert_eq!(used(&*store.usage, &key, at(0), at(1)).await, [], "a deleted key");
    store.add(7, 2, &key, at(0), at(30)).await;
    assert_eq!(used(&*store.usage, &key, at(0), at(1)).await, [], "usage that arrives after the deletion");
}
