//! Credits of tenants: grants, balances and ledgers.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tollgate::{
    clock::{Clock as _, SystemClock},
    credits::{Credits as _, Excess, ReserveRequest, Reserved, SettleAction, SettleRequest},
};
use tollgate_sql::SqlKeys;

use crate::world::{World, text};

/// A world whose database has tables.
fn world() -> World {
    let world = World::new();
    world.json(&["migrate"]);
    world
}

/// Makes a request that reserves 10 credits, and costs 3. Another one does not end: it holds 7 for an hour.
async fn use_credits(world: &World, now: SystemTime) {
    let store = SqlKeys::connect(&world.url()).await.unwrap();
    let credits = store.credits();
    let mut ids = Vec::new();
    for amount in [10, 7] {
        let request = ReserveRequest::new("acme", amount, now + Duration::from_hours(1), now);
        let Reserved::Held(held) = credits.reserve(&request).await.unwrap() else { unreachable!() };
        ids.push(held.id);
    }
    let action = SettleAction::Commit { actual: 3, excess: Excess::Cap };
    credits.settle(&SettleRequest::new("acme", ids[0], action, now)).await.unwrap();
    store.close().await;
}

fn amounts(entries: &Value) -> Vec<(String, i64)> {
    let entries = entries["items"].as_array().unwrap();
    entries.iter().map(|entry| (text(&entry["action"]), entry["amount"].as_i64().unwrap())).collect()
}

#[tokio::test]
async fn grants_balance_and_ledger_are_shown() {
    let world = world();
    let granted = world.json(&["credits", "grant", "acme", "100", "--id=invoice_17", "--note=invoice 17"]);
    assert_eq!(
        (&granted["id"], &granted["remaining"], &granted["expires_at"], &granted["refill"]),
        (&json!("invoice_17"), &json!(100), &Value::Null, &Value::Null)
    );
    let daily = ["credits", "grant", "acme", "5", "--priority=-1", "--refill=daily", "--expires-in=30d"];
    let random = text(&world.json(&daily)["id"]);
    assert!(random.starts_with("grant_"), "{random}");
    use_credits(&world, SystemClock.now()).await;

    let shown = world.json(&["credits", "show", "acme"]);
    assert_eq!(
        (&shown["tenant"], &shown["available"], &shown["reserved"], &shown["owed"]),
        (&json!("acme"), &json!(95), &json!(7), &json!(0))
    );
    let grants = shown["grants"].as_array().unwrap();
    assert_eq!(
        (&grants[0]["id"], &grants[0]["refill"]),
        (&json!(random), &json!("daily")),
        "it is spent first"
    );
    assert!(grants[0]["expires_at"].is_string());
    let out = world.run(&["credits", "show", "acme"]).out;
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..3], ["tenant     acme", "available  95", "reserved   7"], "{out}");
    assert!(lines[4].starts_with("GRANT  ") && lines[6].starts_with("invoice_17  "), "{out}");
    assert!(lines[6].ends_with("invoice 17"), "{out}");

    let ledger = world.json(&["credits", "history", "acme"]);
    let expected = [
        ("returned", 5),
        ("returned", 2),
        ("reserved", -7),
        ("reserved", -5),
        ("reserved", -5),
        ("granted", 5),
        ("granted", 100),
    ];
    let mut found = amounts(&ledger);
    found.sort_unstable();
    let mut expected = expected.map(|(action, amount)| (action.to_owned(), amount)).to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let first = ledger["items"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&first["number"], &first["operator"], &first["note"], &first["reservation"]),
        (&json!(1), &json!("cli:ada"), &json!("invoice 17"), &Value::Null)
    );
    let out = world.run(&["credits", "history", "acme"]).out;
    assert!(out.lines().count() == 8 && out.contains("  +100  ") && out.contains("cli:ada"), "{out}");
}

#[test]
fn a_grant_with_an_identifier_is_made_once() {
    let world = world();
    let grant = ["credits", "grant", "acme", "100", "--id=invoice_17"];
    assert_eq!(world.run(&grant).out, "Granted 100 credits to acme as invoice_17.\n");
    for other in [grant, ["credits", "grant", "acme", "7", "--id=invoice_17"]] {
        let again = world.run(&other);
        assert!(again.out.starts_with("acme has the grant invoice_17 of 100 credits since "), "{again:?}");
        assert!(again.code == 0 && again.out.ends_with(" Nothing was changed.\n"), "{again:?}");
    }
    assert_eq!(world.json(&["credits", "show", "acme"])["available"], 100);
}

#[test]
fn a_withdrawal_needs_yes_and_is_final() {
    let world = world();
    world.json(&["credits", "grant", "acme", "100", "--id=bonus"]);
    let withdraw = ["credits", "withdraw", "acme", "bonus"];
    world.run(&withdraw).fails(2, "cannot ask for confirmation");
    assert_eq!(world.json(&["credits", "show", "acme"])["available"], 100);
    for _ in 0..2 {
        let run = world.run(&[&withdraw[..], &["--yes"]].concat());
        assert_eq!(
            (run.code, run.out.as_str()),
            (0, "The grant bonus of acme has ended, and nothing is left of it.\n")
        );
    }
    let shown = world.run(&["credits", "show", "acme"]);
    assert!(shown.out.contains("available  0\n") && shown.err == "acme has no grants.\n", "{shown:?}");
    assert_eq!(world.json(&["credits", "withdraw", "acme", "bonus", "-y"])["remaining"], 0);
    let found = amounts(&world.json(&["credits", "history", "acme"]));
    assert_eq!(found, [("withdrawn".to_owned(), -100), ("granted".to_owned(), 100)]);
    world.run(&["credits", "withdraw", "acme", "gone", "--yes"]).fails(3, "the account has no such grant");
    world.run(&["credits", "withdraw", "other", "bonus", "--yes"]).fails(3, "the account has no such grant");
}

#[tokio::test]
async fn a_ledger_that_differs_is_1() {
    let world = world();
    world.json(&["credits", "grant", "acme", "100"]);
    let run = world.run(&["credits", "check", "acme"]);
    let expected = "The credits of acme and its ledger agree: 100 available, 0 owed, 100 by the ledger.\n";
    assert_eq!((run.code, run.out.as_str()), (0, expected));
    world.execute("UPDATE tollgate_credit_grants SET remaining = 101").await;
    let run = world.run(&["credits", "check", "acme"]);
    assert!(run.code == 1 && run.out.contains("differ: 101 available, 0 owed, 100 by"), "{run:?}");
    let run = world.run(&["credits", "check", "acme", "--json"]);
    let expected =
        json!({ "tenant": "acme", "agrees": false, "available": 101, "owed": 0, "net_by_ledger": 100 });
    assert_eq!((run.code, run.json()), (1, expected));
    assert_eq!(world.run(&["credits", "check", "unknown"]).code, 0, "a tenant without credits agrees");
}

#[tokio::test]
async fn a_sweep_releases_expired_reservations() {
    let world = world();
    world.json(&["credits", "grant", "acme", "100"]);
    use_credits(&world, SystemClock.now()).await;
    assert_eq!(world.run(&["credits", "sweep"]).out, "Released 0 expired reservations.\n");
    world.execute("UPDATE tollgate_credit_reservations SET expires_at = 0 WHERE state = 'held'").await;
    assert_eq!(world.json(&["credits", "sweep"]), json!({ "released": 1 }));
    let shown = world.json(&["credits", "show", "acme"]);
    assert_eq!((&shown["available"], &shown["reserved"]), (&json!(97), &json!(0)));

    world.execute("UPDATE tollgate_credit_reservations SET forgotten_at = 0").await;
    let prune = world.run(&["prune", "--usage-older-than=90d", "--yes"]);
    assert!(
        prune.out.ends_with("\nDeleted 2 reservations of credits that have no effect any more.\n"),
        "{prune:?}"
    );
}

#[test]
fn the_ledger_has_pages() {
    let world = world();
    for number in 0..5 {
        world.json(&["credits", "grant", "acme", "1", &format!("--id={number}")]);
    }
    let first = world.run(&["credits", "history", "acme", "--limit=2"]);
    assert_eq!(first.out.lines().count(), 3, "{first:?}");
    assert!(first.err.starts_with("There are more entries: continue with --after "), "{first:?}");
    let (mut numbers, mut after) = (Vec::new(), None);
    loop {
        let cursor: Option<String> = after.map(|after| format!("--after={after}"));
        let arguments = ["credits", "history", "acme", "--limit=2"].into_iter().chain(cursor.as_deref());
        let page = world.json(&arguments.collect::<Vec<_>>());
        numbers
            .extend(page["items"].as_array().unwrap().iter().map(|entry| entry["number"].as_u64().unwrap()));
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(numbers, [5, 4, 3, 2, 1]);
    let all = world.json(&["credits", "history", "acme", "--all"]);
    assert_eq!((all["items"].as_array().unwrap().len(), &all["next"]), (5, &Value::Null));
    let none = world.run(&["credits", "history", "unknown"]);
    assert_eq!((none.out.as_str(), none.err.as_str()), ("", "No entries found.\n"));
}

#[test]
fn invalid_grants_are_refused() {
    let world = world();
    for arguments in [
        &["credits"][..],
        &["credits", "grant", "acme"],
        &["credits", "grant", "acme", "-1"],
        &["credits", "grant", "acme", "1.5"],
        &["credits", "grant", "acme", "1", "--refill=weekly"],
        &["credits", "grant", "acme", "1", "--refill=monthly:32"],
        &["credits", "grant", "acme", "1", "--expires=tomorrow"],
        &["credits", "grant", "acme", "1", "--expires=2100-01-01T00:00:00Z", "--expires-in=1d"],
        &["credits", "history", "acme", "--limit=101"],
        &["credits", "history", "acme", "--limit=7", "--all"],
        &["credits", "withdraw", "acme"],
    ] {
        let run = world.run(arguments);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{arguments:?}: {run:?}");
    }
    let grant = ["credits", "grant", "acme"];
    for (arguments, beginning) in [
        (&["0"][..], "the amount of a grant is 1 to"),
        (&["1000000000000001"], "the amount of a grant is 1 to"),
        (&["1", "--expires=2001-01-01T00:00:00Z"], "the expiry of a grant is not in the future"),
        (&["1", "--id="], "the identifier of a grant is 1 to 200 bytes"),
        (&["1", "--note=a\nb"], "the note of a grant is at most 500 characters"),
    ] {
        world.run(&[&grant[..], arguments].concat()).fails(6, beginning);
    }
    world.run(&["credits", "history", "acme", "--after=nonsense"]).fails(6, "the cursor is not valid");
    let absent = World::new();
    absent.run(&["credits", "grant", "acme", "1"]).fails(5, "the database file does not exist");
    assert!(!absent.path("keys.db").exists());
}
