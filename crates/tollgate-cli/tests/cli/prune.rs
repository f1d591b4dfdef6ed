//! What `prune` deletes, and what it prints before.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tollgate::{
    clock::{Clock as _, SystemClock},
    manage::NewKey,
    usage::{UsageBatch, UsageCount, UsageStore as _},
};
use tollgate_sql::SqlKeys;

use crate::world::World;

/// Two keys of 1970, one of now, and usage of 1970 and of now.
async fn world() -> (World, String) {
    let world = World::new();
    world.issue_all_at(UNIX_EPOCH, ["a", "b"].map(NewKey::named)).await;
    let (id, _) = world.issue(&["--name=c"]);
    let store = SqlKeys::connect(&world.url()).await.unwrap();
    let now = SystemClock.now();
    let hours = [UNIX_EPOCH, UNIX_EPOCH + Duration::from_hours(1), now];
    let counts = hours.map(|hour| UsageCount::new(id.as_str(), hour, 2, hour));
    store.add(UsageBatch::new(1, 1, counts)).await.unwrap();
    store.close().await;
    (world, id)
}

const BOTH: [&str; 3] = ["prune", "--history-older-than=365d", "--usage-older-than=90d"];

#[tokio::test]
async fn without_yes_it_says_what_it_would_delete_and_deletes_nothing() {
    let (world, id) = world().await;
    for _ in 0..2 {
        let run = world.run(&BOTH);
        let lines: Vec<_> = run.out.lines().collect();
        assert_eq!((run.code, lines.len()), (0, 2), "{run:?}");
        assert!(lines[0].starts_with("Would delete 2 entries of the history from before "), "{run:?}");
        assert!(lines[1].starts_with("Would delete 2 hours of usage from before "), "{run:?}");
        assert_eq!(run.err, "Nothing was deleted: pass --yes to delete.\n");
    }
    assert_eq!(usage(&world, &id), 6);
}

#[tokio::test]
async fn with_yes_it_deletes_old_entries_and_keeps_keys_and_newer_entries() {
    let (world, id) = world().await;
    let history_only = world.json(&["prune", "--history-older-than=365d", "--yes"]);
    assert_eq!((&history_only["history"]["rows"], &history_only["usage"]), (&json!(2), &Value::Null));
    assert_eq!(usage(&world, &id), 6);
    let both = world.json(&[&BOTH[..], &["--yes"]].concat());
    assert_eq!(
        (&both["history"]["rows"], &both["usage"]["rows"], &both["deleted"]),
        (&json!(0), &json!(2), &json!(true))
    );
    assert_eq!(usage(&world, &id), 2);
    assert_eq!(world.names(&[]).len(), 3, "no key is deleted");
    assert_eq!(world.show(&id)["history"][0]["action"], "issued");
}

#[test]
fn it_needs_an_age_and_a_database() {
    let world = World::new();
    assert_eq!(world.run(&["prune"]).code, 2);
    assert_eq!(world.run(&["prune", "--yes"]).code, 2);
    world.run(&["prune", "--usage-older-than=90d"]).fails(5, "the database file does not exist");
    assert!(!world.path("keys.db").exists());
}

fn usage(world: &World, id: &str) -> u64 {
    world.json(&["keys", "usage", id, "--from=1970-01-01", "--until=2100-01-01"])["total"].as_u64().unwrap()
}
