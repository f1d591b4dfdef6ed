//! How often a key was used, and when last.

use std::time::{Duration, SystemTime};

use tests::suite::at;
use tollgate::usage::{UsageBatch, UsageCount, UsageQuery};

use crate::world::{World, root};

const HOUR: Duration = Duration::from_hours(1);

async fn add(world: &World, writer: u128, number: u64, counts: &[(&str, SystemTime, u64, SystemTime)]) {
    let counts: Vec<_> = counts
        .iter()
        .map(|(key, hour, requests, last)| UsageCount::new(*key, *hour, *requests, *last))
        .collect();
    world.store.add(UsageBatch::new(writer, number, counts)).await.unwrap();
}

async fn used(world: &World, key: &str, from: SystemTime, until: SystemTime) -> Vec<(SystemTime, u64)> {
    let stored = world.store.usage(&UsageQuery::new(key, from, until)).await.unwrap();
    stored.hours.iter().map(|hour| (hour.hour, hour.requests)).collect()
}

pub(crate) async fn what_was_used_is_counted_by_the_hour_and_once(world: &World) {
    let key = world.issue("a").await.details.id;
    let other = world.issue("b").await.details.id;
    let (first, second) = (at(0), at(0) + HOUR);
    add(world, 7, 1, &[(&*key, first, 3, at(30)), (&*key, second, 4, at(3_700)), (&*other, first, 1, at(9))])
        .await;
    add(world, 7, 1, &[(&*key, first, 3, at(30))]).await;
    add(world, 8, 1, &[(&*key, first, 10, at(20))]).await;
    add(world, 7, 2, &[(&*key, first, 100, at(40))]).await;
    add(world, 7, 1, &[(&*key, first, 1_000, at(50))]).await;
    let all = used(world, &key, at(0), at(0) + 9 * HOUR).await;
    assert_eq!(all, [(first, 113), (second, 4)], "a batch that comes again, or late, counts nothing");
    assert_eq!(used(world, &key, first, second).await, [(first, 113)]);
    assert_eq!(used(world, &key, at(1), at(0) + HOUR + Duration::from_secs(1)).await, [(second, 4)]);
    assert_eq!(used(world, &key, second, first).await, []);
    assert_eq!(used(world, &other, at(0), at(0) + HOUR).await, [(first, 1)]);

    let query = UsageQuery::new(&key, at(0), at(1));
    let stored = world.store.usage(&query.with_writer(7)).await.unwrap();
    assert_eq!((stored.hours.len(), stored.last_number), (1, 2));
    let stored = world.store.usage(&query.with_writer(9)).await.unwrap();
    assert_eq!(stored.last_number, 0);

    let last_use = async || world.manager.show(&key, &root()).await.unwrap().last_used_at;
    assert_eq!(last_use().await, Some(at(3_700)), "the latest, though others came later");
    add(world, 8, 2, &[(&*key, first, 1, at(60))]).await;
    assert_eq!(last_use().await, Some(at(3_700)), "only ever forward");
    world.manager.revoke(&key, &root()).await.unwrap();
    assert_eq!(used(world, &key, first, second).await, [(first, 114)], "a revoked key keeps its usage");
    assert_eq!(world.actions(&key).await, ["revoked", "issued"], "which is no change of the key");
}

pub(crate) async fn what_unknown_and_deleted_keys_used_is_dropped(world: &World) {
    let key = world.issue("a").await.details.id;
    add(world, 7, 1, &[(&*key, at(0), 3, at(30)), ("key_nobody", at(0), 3, at(30))]).await;
    assert_eq!(used(world, "key_nobody", at(0), at(1)).await, []);
    assert_eq!(used(world, &key, at(0), at(1)).await, [(at(0), 3)]);
    world.manager.delete(&key, &root()).await.unwrap();
    assert_eq!(used(world, &key, at(0), at(1)).await, []);
    add(world, 7, 2, &[(&*key, at(0), 3, at(30))]).await;
    assert_eq!(used(world, &key, at(0), at(1)).await, [], "nor afterwards");
}
