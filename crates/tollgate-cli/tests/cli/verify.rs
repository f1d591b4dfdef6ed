//! Valid and invalid keys.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tollgate::{Environment, KeyFormat, manage::NewKey};

use crate::world::{World, text};

/// Verifies a key, and returns the exit code and the answer.
fn verify(world: &World, secret: impl AsRef<[u8]>, arguments: &[&str]) -> (i32, Value) {
    let run = world.run_on(secret, &[&["verify", "--json"], arguments].concat());
    (run.code, run.json())
}

#[track_caller]
fn refuses(world: &World, secret: impl AsRef<[u8]>, reason: &str, detail: &str) {
    let (code, answer) = verify(world, &secret, &[]);
    assert_eq!((code, &answer["valid"], &answer["reason"]), (1, &json!(false), &json!(reason)), "{answer}");
    assert!(text(&answer["detail"]).starts_with(detail), "{answer}");
    let text_run = world.run_on(&secret, &["verify"]);
    assert!(text_run.out.starts_with(&format!("The key is invalid: {detail}")), "{text_run:?}");
    assert_eq!((text_run.code, text_run.err.as_str()), (1, ""));
}

#[test]
fn a_key_is_valid_with_or_without_one_newline() {
    let world = World::new();
    let (id, secret) = world.issue(&["--name=deploy", "--scope=jobs:read"]);
    for ending in ["", "\n", "\r\n"] {
        let (code, answer) = verify(&world, format!("{secret}{ending}"), &[]);
        assert_eq!((code, &answer["valid"], &answer["reason"]), (0, &json!(true), &Value::Null));
        assert_eq!(answer["key"]["id"], id.as_str());
        assert_eq!(answer["remarks"], json!([]));
    }
    let text_run = world.run_on(&secret, &["verify"]);
    assert!(
        text_run.out.starts_with("The key is valid.\n") && text_run.out.contains("jobs:read"),
        "{text_run:?}"
    );
    for more in [format!("{secret}\n\n"), format!(" {secret}"), format!("{secret}\0"), format!("{secret} ")] {
        assert_eq!(verify(&world, more, &[]).1["reason"], "credential_malformed");
    }
}

#[test]
fn a_malformed_key_is_explained() {
    let world = World::new();
    world.issue(&["--name=deploy"]);
    for (secret, detail) in [
        ("sk_live_short", "it is malformed: its length"),
        (
            "pk_live_0123456789ABCDEFGHIJKLMNOP12ANzld",
            "it is malformed: it does not start with this service's prefix",
        ),
        (
            "sk_prod_0123456789ABCDEFGHIJKLMNOP12ANzld",
            "it is malformed: its prefix is not followed by `live_` or `test_`",
        ),
        (
            "sk_live_0123456789ABCDEFGHIJKLMNO-12ANzld",
            "it is malformed: it contains a character that keys do not use",
        ),
        ("sk_live_0123456789ABCDEFGHIJKLMNOQ12ANzld", "it is malformed: its checksum does not match"),
        (
            "sk_live_0123456789ABCDEFG\nHIJKLMNOP12ANzl",
            "it is malformed: it contains a character that keys do not use",
        ),
    ] {
        refuses(&world, secret, "credential_malformed", detail);
    }
}

#[test]
fn a_key_that_was_not_issued_is_unknown() {
    let world = World::new();
    world.issue(&["--name=deploy"]);
    let elsewhere = KeyFormat::new("sk").unwrap().generate(Environment::Live).unwrap();
    refuses(&world, elsewhere.expose_secret(), "key_unknown", "it is unknown");
}

#[test]
fn a_revoked_key_shows_when_it_was_revoked() {
    let world = World::new();
    let (id, secret) = world.issue(&["--name=deploy"]);
    let revoked_at = text(&world.json(&["keys", "revoke", &id])["revoked_at"]);
    let at = revoked_at.get(.."2026-01-01T00:00:00".len()).unwrap().replace('T', " ");
    refuses(&world, secret, "key_revoked", &format!("it was revoked at {at} UTC"));
}

#[tokio::test]
async fn an_expired_key_shows_when_it_expired() {
    let world = World::new();
    let key = NewKey::named("trial").with_expiry(UNIX_EPOCH + Duration::from_hours(1));
    let issued = world.issue_at(UNIX_EPOCH, key).await;
    refuses(&world, issued.secret.expose_secret(), "key_expired", "it expired at 1970-01-01 01:00:00 UTC");
}

#[test]
fn a_suspended_tenant_is_named() {
    let world = World::new();
    let (_, secret) = world.issue(&["--name=deploy", "--tenant=acme"]);
    world.json(&["tenants", "suspend", "acme"]);
    refuses(&world, secret, "tenant_suspended", "its tenant acme is suspended");
}

#[test]
fn a_key_is_for_one_environment() {
    let world = World::new();
    let (_, secret) = world.issue(&["--name=deploy", "--environment=test"]);
    assert_eq!(verify(&world, &secret, &["--environment=test"]).0, 0);
    let (code, answer) = verify(&world, &secret, &["--environment=live"]);
    assert_eq!((code, &answer["reason"]), (1, &json!("wrong_environment")));
    assert_eq!(answer["detail"], "it is for test, not for live");
}

#[test]
fn a_key_with_a_lapsed_plan_is_valid() {
    let world = World::new();
    let (_, secret) = world.issue(&["--name=deploy", "--plan=pro", "--lapsed"]);
    let (code, answer) = verify(&world, secret, &[]);
    assert_eq!(code, 0);
    assert!(text(&answer["remarks"][0]).starts_with("its plan pro has lapsed"), "{answer}");
}

#[test]
fn a_former_secret_shows_when_it_ends() {
    let world = World::new();
    let (id, former) = world.issue(&["--name=deploy"]);
    let present = text(&world.json(&["keys", "rotate", &id, "--overlap=1h"])["secret"]);
    let (code, answer) = verify(&world, former, &[]);
    assert_eq!(code, 0);
    assert!(
        text(&answer["remarks"][0]).starts_with("this is the former secret, which is valid until "),
        "{answer}"
    );
    assert_eq!(verify(&world, present, &[]).1["remarks"], json!([]));
}

#[test]
fn several_prefixes_and_keys_without_checksum_are_accepted() {
    let world = World::new();
    let (_, old) = world.issue(&["--name=old", "--prefix=old"]);
    assert_eq!(verify(&world, &old, &[]).0, 1);
    assert_eq!(verify(&world, &old, &["--prefix=sk", "--prefix=old"]).0, 0);
    let run = world.command(&["verify"]).env("TOLLGATE_PREFIX", "old").output().unwrap();
    assert_eq!(run.status.code(), Some(6), "there was no key to read");

    let published = "psk_test_8f3k-29dk_fj20";
    assert_eq!(verify(&world, published, &["--prefix=psk"]).1["reason"], "credential_malformed");
    assert_eq!(verify(&world, published, &["--prefix=psk", "--without-checksum"]).1["reason"], "key_unknown");
}
