//! The life of keys and tenants.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tollgate::{
    clock::{Clock as _, SystemClock},
    manage::NewKey,
    usage::{UsageBatch, UsageCount, UsageStore as _},
};
use tollgate_sql::SqlKeys;

use crate::world::{Run, World, text};

#[test]
fn a_shell_can_capture_the_secret() {
    let world = World::new();
    let run = world.run(&["keys", "create", "--name", "deploy"]);
    assert_eq!(run.code, 0, "{run:?}");
    let secret = run.out.strip_suffix('\n').unwrap();
    assert!(secret.starts_with("sk_live_") && !secret.contains(char::is_whitespace), "{run:?}");
    assert!(run.err.contains("deploy") && run.err.contains("Copy the secret now"), "{run:?}");
    assert_eq!(world.run_on(secret, &["verify"]).code, 0);
}

#[test]
fn a_key_has_all_the_properties_it_was_created_with() {
    let world = World::new();
    let (id, secret) = world.issue(&[
        "--name=nightly build",
        "--tenant=acme",
        "--scope=jobs:read",
        "--scope=results:read jobs:create",
        "--plan=pro",
        "--lapsed",
        "--environment=test",
        "--expires=2100-01-31T00:00:00+01:00",
        "--quota=default=60/minute,1000/hour",
        "--quota=search=10/second",
        "--quota=default=5000/day",
        "--metadata={\"region\": \"eu\"}",
        "--role=admin",
        "--prefix=acme_v2",
    ]);
    assert!(secret.starts_with("acme_v2_test_"));
    let mut key = world.show(&id);
    let created_at = key.as_object_mut().unwrap().remove("created_at").unwrap();
    assert!(text(&created_at).ends_with('Z'));
    assert_eq!(key["history"][0]["action"], "issued");
    assert_eq!(key["history"][0]["operator"], "cli:ada");
    key.as_object_mut().unwrap().remove("history");
    let expected = json!({
        "id": id,
        "name": "nightly build",
        "prefix": &secret[..secret.find("_test_").unwrap() + "_test_".len() + 4],
        "tenant": "acme",
        "scopes": ["jobs:create", "jobs:read", "results:read"],
        "plan": { "tier": "pro", "active": false },
        "plan_source": "key",
        "allowed_networks": [],
        "environment": "test",
        "role": "admin",
        "quotas": { "default": "60 per minute, 1000 per hour, 5000 per day", "search": "10 per second" },
        "metadata": { "region": "eu" },
        "status": "active",
        "expires_at": "2100-01-30T23:00:00Z",
        "last_used_at": null,
        "revoked_at": null,
        "former_until": null,
    });
    assert_eq!(key, expected);

    let shown = world.run(&["keys", "show", &id]);
    for said in [
        "nightly build",
        "pro (lapsed)",
        "2100-01-30 23:00:00 UTC",
        "search: 10 per second",
        "issued",
        "cli:ada",
    ] {
        assert!(shown.out.contains(said), "{said}: {shown:?}");
    }
}

#[test]
fn a_key_expires_after_a_duration() {
    let world = World::new();
    let before = SystemClock.now();
    let (id, _) = world.issue(&["--name=trial", "--expires-in=14d"]);
    let expires_at: jiff::Timestamp = text(&world.show(&id)["expires_at"]).parse().unwrap();
    let fortnight = Duration::from_hours(14 * 24);
    let earliest = before + fortnight - Duration::from_micros(1);
    let expires_at = SystemTime::try_from(expires_at).unwrap();
    assert!(earliest <= expires_at && expires_at <= SystemClock.now() + fortnight);
}

#[test]
fn known_scopes_restrict_the_scopes_of_keys() {
    let world = World::new();
    let create = |scopes: &str, name: &str| -> Run {
        let mut command = world.command(&["keys", "create", "--name", name, "--scope", scopes]);
        Run::of(&command.env("TOLLGATE_SCOPES", "jobs:read jobs:create").output().unwrap())
    };
    assert_eq!(create("jobs:read", "one").code, 0);
    create("jobs:raed", "two")
        .fails(6, "unknown scope `jobs:raed`: known scopes are `jobs:create`, `jobs:read`");
    assert_eq!(world.names(&[]), ["one"]);
}

#[tokio::test]
async fn lists_have_filters_and_pages() {
    let world = World::new();
    let expired = NewKey::named("expired").with_expiry(UNIX_EPOCH + Duration::from_secs(2));
    world.issue_at(UNIX_EPOCH, expired).await;
    world.issue(&["--name=build", "--tenant=acme"]);
    world.issue(&["--name=batch", "--tenant=acme"]);
    let (revoked, _) = world.issue(&["--name=deploy"]);
    world.json(&["keys", "revoke", &revoked]);
    world.issue(&["--name=held", "--tenant=umbrella"]);
    world.json(&["tenants", "suspend", "umbrella"]);

    assert_eq!(world.names(&[]), ["held", "deploy", "batch", "build", "expired"]);
    assert_eq!(world.names(&["--tenant=acme"]), ["batch", "build"]);
    assert_eq!(world.names(&["--search=bu"]), ["build"]);
    assert_eq!(world.names(&["--search=sk_live_"]).len(), 5);
    for (status, names) in [
        ("active", &["batch", "build"][..]),
        ("expired", &["expired"]),
        ("revoked", &["deploy"]),
        ("suspended", &["held"]),
    ] {
        assert_eq!(world.names(&["--status", status]), names, "{status}");
    }

    let first = world.json(&["keys", "list", "--limit=2"]);
    let cursor = text(&first["next"]);
    assert_eq!(world.names(&["--limit=2"]), ["held", "deploy"]);
    assert_eq!(world.names(&["--limit=2", "--after", &cursor]), ["batch", "build"]);
    let table = world.run(&["keys", "list", "--limit=2"]);
    assert!(table.err.contains(&cursor), "{table:?}");
    assert_eq!(world.json(&["keys", "list", "--all"])["next"], Value::Null);

    let table = world.run(&["keys", "list"]).out;
    let first_words = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(first_words(table.lines().next().unwrap()), ["ID", "NAME"]);
    assert_eq!(table.lines().count(), 6, "{table}");
    assert!(!table.contains("SCOPES"), "no key has any: {table}");
}

#[tokio::test]
async fn all_lists_all_pages() {
    let world = World::new();
    // One more than the largest page of a store.
    let keys = (0..1_001).map(|number| NewKey::named(format!("key {number}")));
    world.issue_all_at(UNIX_EPOCH, keys).await;
    let names: BTreeSet<_> = world.names(&["--all"]).into_iter().collect();
    assert_eq!(names.len(), 1_001);
    assert_eq!(world.run(&["keys", "list", "--all"]).out.lines().count(), 1 + 1_001);
}

#[test]
fn a_key_is_renamed() {
    let world = World::new();
    let (id, _) = world.issue(&["--name=before"]);
    let renamed = world.run(&["keys", "rename", &id, "after"]);
    assert_eq!((renamed.code, renamed.out), (0, format!("{id} was renamed to \"after\".\n")));
    assert_eq!(world.show(&id)["name"], "after");
    assert_eq!(world.json(&["keys", "rename", &id, "later"])["name"], "later");
}

#[test]
fn an_update_changes_only_the_given_options() {
    let world = World::new();
    let (id, secret) = world.issue(&[
        "--name=deploy",
        "--scope=jobs:read",
        "--plan=basic",
        "--network=10.0.0.0/8",
        "--expires-in=14d",
        "--quota=default=60/minute",
        "--quota=search=10/second",
        "--metadata={\"region\": \"eu\"}",
    ]);
    let before = world.show(&id);
    let update = |arguments: &[&str]| {
        let mut updated = world.json(&[&["keys", "update", &id], arguments].concat());
        // Keeps what has changed.
        updated.as_object_mut().unwrap().retain(|member, value| *value != before[member]);
        updated
    };
    let every = [
        "--name=build",
        "--scope=jobs:create jobs:read",
        "--scope=results:read",
        "--plan=pro",
        "--lapsed",
        "--expires=2100-01-31T00:00:00+01:00",
        "--quota=default=600/minute",
        "--quota=default=5000/day",
        "--network=192.0.2.1",
        "--metadata={\"team\": 7}",
    ];
    let expected = json!({
        "name": "build",
        "scopes": ["jobs:create", "jobs:read", "results:read"],
        "plan": { "tier": "pro", "active": false },
        "expires_at": "2100-01-30T23:00:00Z",
        "quotas": { "default": "600 per minute, 5000 per day" },
        "allowed_networks": ["192.0.2.1/32"],
        "metadata": { "team": 7 },
    });
    assert_eq!(update(&every), expected);

    let cleared =
        ["--no-scopes", "--no-plan", "--no-expiry", "--no-quotas", "--no-networks", "--no-metadata"];
    let expected = json!({
        "name": "build", "scopes": [], "plan": null, "plan_source": null, "expires_at": null, "quotas": {},
        "allowed_networks": [], "metadata": {},
    });
    assert_eq!(update(&cleared), expected);
    assert_eq!(
        update(&["--name=deploy", "--plan=basic"])["plan"],
        Value::Null,
        "the plan is the same as before"
    );
    assert_eq!(world.show(&id)["plan"], before["plan"]);

    let history = world.show(&id)["history"].clone();
    let latest = r#"name: "build" -> "deploy", plan: none -> "basic""#;
    assert_eq!(
        (history[0]["action"].clone(), history[0]["detail"].clone()),
        (json!("updated"), json!(latest))
    );
    assert_eq!(history.as_array().unwrap().len(), 4);
    assert_eq!(world.run_on(secret, &["verify"]).code, 0, "the secret stays");
}

/// `--scope a,b` made one scope, which granted neither `a` nor `b`.
#[test]
fn scopes_can_be_separated_by_commas() {
    let world = World::new();
    let (id, _) = world.issue(&[
        "--name=deploy",
        "--scope=jobs:read,jobs:create",
        "--known-scopes=jobs:read,jobs:create",
    ]);
    assert_eq!(world.show(&id)["scopes"], json!(["jobs:create", "jobs:read"]));
}

/// A name with such characters could hide itself on a terminal, or reverse the text after it.
#[test]
fn stored_text_is_shown_without_control_and_bidirectional_characters() {
    let world = World::new();
    let strange = "a\u{202e}b\u{2066}c\u{9b}";
    let (id, secret) = world.issue(&[
        "--name=a\u{202e}b",
        "--tenant=\u{2066}acme",
        "--plan=p\u{200f}",
        "--lapsed",
        "--role=r\u{202e}",
    ]);
    let runs = [
        world.run(&["keys", "list"]),
        world.run(&["--json", "keys", "list"]),
        world.run(&["keys", "update", &id, "--plan=q\u{202e}"]),
        world.run(&["keys", "rename", &id, "z\u{202e}"]),
        world.run(&["keys", "show", &id, "--operator=ada\u{202e}"]),
        world.run(&["--json", "keys", "show", &id]),
        world.run_on(&secret, &["verify"]),
        world.run(&["tenants", "suspend", "\u{2066}acme"]),
        world.run(&["--json", "tenants", "suspend", strange]),
        world.run(&["keys", "show", &format!("key_{strange}")]),
        world.run(&["keys", "rotate", &id]),
        world.run(&["--json", "keys", "rotate", &id]),
        world.run(&["keys", "revoke", &id]),
        world.run(&["keys", "delete", &id, "--yes"]),
    ];
    let is_hidden = |character: char| {
        (character.is_control() && character != '\n')
            || ['\u{202e}', '\u{2066}', '\u{200f}'].contains(&character)
    };
    for run in &runs {
        assert!(!run.out.contains(is_hidden) && !run.err.contains(is_hidden), "{run:?}");
    }
    assert!(runs[0].out.contains("a\\u{202e}b"), "{:?}", runs[0]);
    assert_eq!(runs[1].json()["items"][0]["name"], "a\u{202e}b", "JSON has the same text");
}

#[test]
fn an_update_shows_the_key() {
    let world = World::new();
    let (id, _) = world.issue(&["--name=deploy"]);
    let run =
        world.run(&["keys", "update", &id, "--plan=pro", "--expires-in=30d", "--quota=search=10/second"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{run:?}");
    for said in ["The key was updated:\n", &id, "deploy", "pro", "search: 10 per second"] {
        assert!(run.out.contains(said), "{said}: {run:?}");
    }
    let again = world.run(&["keys", "update", &id, "--plan=pro"]);
    assert_eq!(again.code, 0, "an update to the same values succeeds: {again:?}");
    assert_eq!(world.show(&id)["history"].as_array().unwrap().len(), 2, "and is not recorded");
}

#[test]
fn a_rotation_ends_the_former_secret_at_once_or_after_the_overlap() {
    let world = World::new();
    let (id, first) = world.issue(&["--name=deploy", "--prefix=acme", "--environment=test"]);
    let prefix = ["--prefix=acme"];
    let verify = |secret: &str| world.run_on(secret, &[&["verify"], &prefix[..]].concat()).code;

    let rotated = world.run(&["keys", "rotate", &id, "--overlap=24h"]);
    let second = rotated.out.trim_end();
    assert!(second.starts_with("acme_test_"), "it has the prefix of the former one");
    assert!(rotated.err.contains("valid until"), "{rotated:?}");
    assert_eq!((verify(&first), verify(second)), (0, 0));

    let rotated = world.json(&["keys", "rotate", &id]);
    let third = text(&rotated["secret"]);
    assert_eq!(rotated["id"], id.as_str());
    assert_eq!((verify(&first), verify(second), verify(&third)), (1, 1, 0));
    assert_eq!(world.show(&id)["history"].as_array().unwrap().len(), 3);

    let moved = text(&world.json(&["keys", "rotate", &id, "--prefix=sk"])["secret"]);
    assert!(moved.starts_with("sk_test_"));
}

#[test]
fn a_revocation_is_final_and_can_be_repeated() {
    let world = World::new();
    let (id, secret) = world.issue(&["--name=deploy"]);
    let first = world.json(&["keys", "revoke", &id]);
    assert_eq!(first["status"], "revoked");
    let again = world.json(&["keys", "revoke", &id]);
    assert_eq!(again["revoked_at"], first["revoked_at"]);
    assert!(world.run(&["keys", "revoke", &id]).out.contains("is revoked since"));
    assert_eq!(world.run_on(secret, &["verify"]).code, 1);
}

#[test]
fn the_history_of_a_deleted_key_is_kept() {
    let world = World::new();
    let (id, secret) = world.issue(&["--name=deploy"]);
    let run = world.run(&["keys", "delete", &id, "--yes"]);
    assert_eq!((run.code, run.out), (0, format!("{id} \"deploy\" was deleted.\n")));
    assert_eq!(world.run_on(secret, &["verify"]).code, 1);
    world.run(&["keys", "show", &id]).fails(3, &format!("cli:ada deleted {id} at "));
    world.issue(&["--name=deploy"]);
}

#[test]
fn the_history_records_the_operator() {
    let world = World::new();
    let (id, _) = world.issue(&["--name=deploy", "--operator=Grace Hopper"]);
    let mut command = world.command(&["keys", "rename", &id, "build"]);
    command.env_remove("USER").env("TOLLGATE_OPERATOR", "ci").output().unwrap();
    world.command(&["keys", "revoke", &id]).env("USER", "eve\nroot\x1b[31m").output().unwrap();
    let history = world.show(&id)["history"].clone();
    let recorded: Vec<_> =
        history.as_array().unwrap().iter().map(|event| (&event["action"], &event["operator"])).collect();
    let [revoked, updated, issued] =
        [("revoked", "cli:everoot[31m"), ("updated", "cli:ci"), ("issued", "cli:Grace Hopper")]
            .map(|(action, actor)| (json!(action), json!(actor)));
    let expected = [revoked, updated, issued];
    assert_eq!(recorded, expected.iter().map(|(action, actor)| (action, actor)).collect::<Vec<_>>());
}

#[test]
fn a_suspension_applies_to_present_and_future_keys() {
    let world = World::new();
    let (_, before) = world.issue(&["--name=before", "--tenant=acme"]);
    let suspended = world.run(&["tenants", "suspend", "acme"]);
    assert_eq!(
        (suspended.code, suspended.out.as_str()),
        (0, "acme is suspended: all its keys are refused.\n")
    );
    let (_, after) = world.issue(&["--name=after", "--tenant=acme"]);
    let codes = || [&before, &after].map(|secret| world.run_on(secret, &["verify"]).code);
    assert_eq!(codes(), [1, 1]);
    let resumed = world.json(&["tenants", "resume", "acme"]);
    assert_eq!(resumed, json!({ "tenant": "acme", "plan": null, "suspended": false }));
    assert_eq!(codes(), [0, 0]);
}

#[test]
fn the_plan_of_a_tenant_is_that_of_its_keys() {
    let world = World::new();
    let (plain, _) = world.issue(&["--name=plain", "--tenant=acme"]);
    let (own, _) = world.issue(&["--name=own", "--tenant=acme", "--plan=basic"]);
    let pro = json!({ "tier": "pro", "active": true });
    let changed = world.json(&["tenants", "plan", "acme", "pro"]);
    assert_eq!(changed, json!({ "tenant": "acme", "plan": pro, "suspended": false }));
    assert_eq!(world.json(&["tenants", "show", "acme"]), changed);
    let (later, _) = world.issue(&["--name=later", "--tenant=acme"]);
    for id in [&plain, &later] {
        assert_eq!((&world.show(id)["plan"], &world.show(id)["plan_source"]), (&pro, &json!("tenant")));
    }
    assert_eq!(
        (&world.show(&own)["plan"]["tier"], &world.show(&own)["plan_source"]),
        (&json!("basic"), &json!("key"))
    );
    assert!(world.run(&["keys", "show", &plain]).out.contains("pro, of its tenant"));
    world.json(&["keys", "update", &own, "--no-plan"]);
    assert_eq!(world.show(&own)["plan"], pro);

    let lapsed = world.run(&["tenants", "plan", "acme", "pro", "--lapsed"]);
    assert_eq!(
        lapsed.out,
        "acme has the plan pro (lapsed). This applies to all its keys without a plan of their own.\n"
    );
    assert_eq!(world.show(&plain)["plan"]["active"], json!(false));
    let none = world.run(&["tenants", "plan", "acme", "--none"]);
    assert_eq!(none.out, "acme has no plan. This applies to all its keys without a plan of their own.\n");
    assert_eq!(
        (&world.show(&plain)["plan"], &world.show(&plain)["plan_source"]),
        (&json!(null), &json!(null))
    );
    for wrong in [&["acme"][..], &["acme", "pro", "--none"], &["acme", "--lapsed"]] {
        assert_eq!(world.run(&[&["tenants", "plan"], wrong].concat()).code, 2, "{wrong:?}");
    }
}

#[test]
fn a_key_may_be_restricted_to_networks() {
    let world = World::new();
    let (id, secret) = world.issue(&["--name=office", "--network=198.51.100.7", "--network=2001:db8::/32"]);
    assert_eq!(world.show(&id)["allowed_networks"], json!(["198.51.100.7/32", "2001:db8::/32"]));
    let valid = world.run_on(&secret, &["verify"]);
    assert!(valid.out.contains("it may be used only from 198.51.100.7/32 2001:db8::/32"), "{valid:?}");
    world.json(&["keys", "update", &id, "--network=10.0.0.0/8"]);
    assert_eq!(world.show(&id)["allowed_networks"], json!(["10.0.0.0/8"]));
    world.json(&["keys", "update", &id, "--name=home"]);
    assert_eq!(world.show(&id)["allowed_networks"], json!(["10.0.0.0/8"]));
    world.json(&["keys", "update", &id, "--no-networks"]);
    assert_eq!(world.show(&id)["allowed_networks"], json!([]));
    let wrong = world.run(&["keys", "update", &id, "--network=10.0.0.0/33"]);
    assert!(wrong.code == 2 && wrong.err.contains("or a network such as 198.51.100.0/24"), "{wrong:?}");
    let many: Vec<_> = (0..101).map(|number| format!("--network=10.0.0.{number}")).collect();
    let many: Vec<_> = ["keys", "update", &id].into_iter().chain(many.iter().map(String::as_str)).collect();
    let refused = world.run(&many);
    assert!(refused.code == 6 && refused.err.contains("more than 100 networks"), "{refused:?}");
}

#[tokio::test]
async fn usage_is_shown_by_hour_or_by_day() {
    let world = World::new();
    let (id, _) = world.issue(&["--name=deploy"]);
    let begin = UNIX_EPOCH + Duration::from_hours(24 * 10_000); // 1997-05-19
    let counts = (0..72).map(|hour| {
        let hour = begin + Duration::from_hours(hour);
        UsageCount::new(id.as_str(), hour, 2, hour)
    });
    let store = SqlKeys::connect(&world.url()).await.unwrap();
    store.add(UsageBatch::new(1, 1, counts.collect::<Vec<_>>())).await.unwrap();
    store.close().await;

    let usage = world.json(&["keys", "usage", &id, "--from=1997-05-19", "--until=1997-05-19T02:00:00Z"]);
    let hours = json!([
        { "hour": "1997-05-19T00:00:00Z", "requests": 2 },
        { "hour": "1997-05-19T01:00:00Z", "requests": 2 },
    ]);
    let expected = json!({
        "id": id, "from": "1997-05-19T00:00:00Z", "until": "1997-05-19T02:00:00Z", "total": 4, "hours": hours,
    });
    assert_eq!(usage, expected);

    let by_hour = world.run(&["keys", "usage", &id, "--from=1997-05-19", "--until=1997-05-20"]).out;
    assert_eq!(by_hour.lines().count(), 1 + 24 + 1, "{by_hour}");
    let by_day = world.run(&["keys", "usage", &id, "--from=1997-05-19", "--until=1997-06-01"]).out;
    let rows: Vec<Vec<_>> = by_day.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows[1..],
        [vec!["1997-05-19", "48"], vec!["1997-05-20", "48"], vec!["1997-05-21", "48"], vec!["total", "144"]]
    );

    let none = world.run(&["keys", "usage", &id]);
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert!(none.err.contains("was not used"), "{none:?}");
}

#[test]
fn only_one_of_two_concurrent_keys_gets_a_name() {
    let world = World::new();
    world.issue(&["--name=first"]);
    let spawn = || {
        let mut command = world.command(&["keys", "create", "--name", "deploy"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut codes: Vec<_> = [spawn(), spawn()].map(|mut child| child.wait().unwrap().code().unwrap()).into();
    codes.sort_unstable();
    assert_eq!(codes, [0, 4]);
}
