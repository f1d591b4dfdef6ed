//! Deletion of old history and usage, and the size of pages.

use std::time::{Duration, SystemTime};

use tollgate::{
    Scopes,
    manage::{HistoryQuery, KeyAdmin as _, KeyChange, KeyQuery, KeyUpdate},
    store::EndReason,
    usage::{UsageBatch, UsageCount, UsageQuery, UsageStore as _},
};
use tollgate_sql::{Retention, SqlKeys};

use super::{Folder, at, builder, change, eventually, find, issue, key, on_each, reason, revoke};

const HOUR: Duration = Duration::from_hours(1);

fn far() -> SystemTime {
    at(0) + 1_000_000 * HOUR
}

async fn rename(keys: &SqlKeys, id: &str, name: &str) {
    let update = Box::new(KeyUpdate::new().with_name(name));
    change(keys, KeyChange::Update { id: id.into(), update }).await.unwrap();
}

#[tokio::test]
async fn old_entries_are_deleted_and_newer_ones_are_kept() {
    on_each(async |keys| {
        // More than two steps.
        for number in 0..1_100_u64 {
            let mut key = key(&format!("key_{number}"), Some("acme"));
            key.created_at = at(number);
            issue_at(&keys, key, at(number)).await;
        }
        let hours = (0..1_200).map(|hour| {
            let id = format!("key_{}", hour % 3);
            UsageCount::new(id, at(0) + hour * HOUR, 1, at(0))
        });
        keys.add(UsageBatch::new(1, 1, hours.collect::<Vec<_>>())).await.unwrap();

        // The hour that is not over yet is kept.
        let retention = Retention::everything()
            .with_history_since(at(1_050))
            .with_usage_since(at(0) + 700 * HOUR + HOUR / 2);
        let counted = keys.count_prunable(retention).await.unwrap();
        assert_eq!((counted.history, counted.usage), (1_050, 700));
        assert_eq!(keys.count_prunable(retention).await.unwrap(), counted, "to count deletes nothing");
        assert_eq!(keys.prune(retention).await.unwrap(), counted);
        let again = keys.prune(retention).await.unwrap();
        assert_eq!((again.history, again.usage), (0, 0));
        assert_eq!(keys.prune(Retention::everything()).await.unwrap(), again);

        let history = keys.history(&HistoryQuery::all()).await.unwrap().items;
        assert_eq!(history.len(), 50);
        assert!(history.iter().all(|event| event.at >= at(1_050)));
        let mut used = Vec::new();
        for id in ["key_0", "key_1", "key_2"] {
            used.extend(keys.usage(&UsageQuery::new(id, at(0), far())).await.unwrap().hours);
        }
        assert_eq!(used.len(), 500);
        assert!(used.iter().all(|used| used.hour >= at(0) + 700 * HOUR));
        assert_eq!(keys.list(&KeyQuery::one("key_0")).await.unwrap().items.len(), 1, "keys are kept");
        assert!(find(&keys, "key_0").await.is_some());
    })
    .await;
}

async fn issue_at(keys: &SqlKeys, key: tollgate::manage::KeyDetails, instant: SystemTime) {
    let digest = super::digest(&key.id);
    let change = KeyChange::Issue { details: Box::new(key), digest };
    keys.change(tollgate::manage::Command::new(change, super::ada(), instant)).await.unwrap();
}

/// A process that polls seldom, as if it had been stopped: a key is revoked, and the entry of that is deleted before the next poll.
#[tokio::test]
async fn a_revocation_whose_entry_was_deleted_before_it_was_read_takes_effect_in_other_processes() {
    let folder = Folder::new();
    let keys = builder().connect(&folder.url()).await.unwrap();
    for id in ["a", "b"] {
        issue(&keys, key(id, None)).await.unwrap();
    }
    let slow = builder().with_poll_interval(Duration::from_secs(3)).connect(&folder.url()).await.unwrap();
    let (held, other) = (find(&slow, "a").await.unwrap(), find(&slow, "b").await.unwrap());
    revoke(&keys, "a").await.unwrap();
    rename(&keys, "b", "renamed").await;
    let pruned = keys.prune(Retention::everything().with_history_since(far())).await.unwrap();
    assert_eq!(pruned.history, 3, "the latest entry is kept");
    eventually("the principal ends", || reason(&held) == Some(EndReason::Revoked)).await;
    assert_eq!(reason(&other), None);
    revoke(&keys, "b").await.unwrap();
    eventually("later changes are followed", || reason(&other) == Some(EndReason::Revoked)).await;
}

/// A key of before the bounds can have 0.6 MB of scopes. A page of them has a bounded size, and all pages together have every key.
#[tokio::test]
async fn a_page_has_a_bounded_size_also_with_keys_that_exceed_the_bounds() {
    on_each(async |keys| {
        let scopes = Scopes::new((0..4_000).map(|number| format!("{number:0100}"))).unwrap();
        for number in 0..7_u64 {
            let mut key = key(&format!("key_{number}"), Some("acme"));
            key.created_at = at(number);
            if number != 3 {
                key.scopes = scopes.clone();
            }
            issue(&keys, key).await.unwrap();
        }
        let (mut query, mut found) = (KeyQuery::all(), Vec::new());
        loop {
            let page = keys.list(&query).await.unwrap();
            assert!((1..=3).contains(&page.items.len()), "{}", page.items.len());
            found.extend(page.items.into_iter().map(|key| (key.id, key.scopes.len())));
            let Some(next) = page.next else { break };
            query = query.with_after(next);
        }
        assert_eq!(found.len(), 7);
        assert!(found.iter().all(|(id, scopes)| *scopes == if &**id == "key_3" { 0 } else { 4_000 }));
        assert!(find(&keys, "key_0").await.is_some_and(|record| record.principal().scopes().len() == 4_000));
    })
    .await;
}
