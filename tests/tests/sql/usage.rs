//! Usage counts.

use std::time::{Duration, UNIX_EPOCH};

use tollgate::{
    manage::{KeyAdmin as _, KeyChange, KeyQuery},
    usage::{HourlyUsage, UsageBatch, UsageCount, UsageQuery, UsageStore as _},
};

use super::{at, change, issue, key, on_each};

#[tokio::test]
async fn a_batch_is_added_once_and_deleted_with_its_key() {
    on_each(async |keys| {
        issue(&keys, key("key", None)).await.unwrap();
        let hour = |number: u64| UNIX_EPOCH + Duration::from_secs(3_600 * number);
        let batch = |number, requests, last| {
            let counts = vec![
                UsageCount::new("unknown", hour(7), 9, at(9)),
                UsageCount::new("key", hour(8), requests, at(last)),
                UsageCount::new("key", hour(7), 1, at(1)),
            ];
            UsageBatch::new(u128::MAX, number, counts)
        };
        for (number, requests, last) in [(1, 5, 5), (1, 5, 5), (2, 6, 3), (1, 5, 5)] {
            keys.add(batch(number, requests, last)).await.unwrap();
        }
        let used = async |from, until| {
            let query = UsageQuery::new("key", hour(from), hour(until));
            keys.usage(&query).await.unwrap().hours
        };
        assert_eq!(used(0, 100).await, [HourlyUsage::new(hour(7), 2), HourlyUsage::new(hour(8), 11)]);
        assert_eq!(used(7, 8).await, [HourlyUsage::new(hour(7), 2)]);
        let listed = keys.list(&KeyQuery::one("key")).await.unwrap().items.remove(0);
        assert_eq!(listed.last_used_at, Some(at(5)));
        let many = (0..1_234).map(|number| UsageCount::new("key", hour(100 + number), 1, at(6)));
        keys.add(UsageBatch::new(1, 1, many.collect::<Vec<_>>())).await.unwrap();
        assert_eq!(used(100, 5_000).await.len(), 1_234);
        change(&keys, KeyChange::Delete { id: "key".into() }).await.unwrap();
        issue(&keys, key("key", None)).await.unwrap();
        assert_eq!(used(0, 5_000).await, []);
    })
    .await;
}
