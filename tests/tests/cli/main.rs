//! The command line on PostgreSQL. Its own crate tests it on SQLite. `management` compares its JSON with that of the management
//! routes, and `limits` shows and resets limits in Redis.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod limits;
mod management;

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tests::{postgres::Postgres, relay::Relay};
use tollgate::{
    clock::{Clock as _, SystemClock},
    key::Digest,
    store::{EndReason, KeyLookup, KeyStore as _},
    usage::{UsageBatch, UsageCount, UsageStore as _},
};
use tollgate_sql::{DatabaseKind, migrations};

/// The result of a run of the program.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the program without blocking the runtime of the test.
async fn run_on(input: &str, url: &str, arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cli"));
    command.env_clear().env("TOLLGATE_DATABASE", url).env("USER", "ada").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let run = move || {
        let mut child = command.spawn().unwrap();
        // A program that reads nothing may have ended.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

async fn run(url: &str, arguments: &[&str]) -> Run {
    run_on("", url, arguments).await
}

/// Runs a command that must succeed, and reads its JSON.
async fn json(url: &str, arguments: &[&str]) -> Value {
    let run = run(url, &[&["--json"], arguments].concat()).await;
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    serde_json::from_str(&run.out).unwrap()
}

async fn verify(url: &str, secret: &str) -> Option<i32> {
    run_on(secret, url, &["verify"]).await.code
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

impl Run {
    /// Asserts that the program has failed with a database error, on one line that contains this text.
    #[track_caller]
    fn fails_with_a_database_error(&self, text: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.lines().count()), (Some(5), "", 1), "{self:?}");
        assert!(self.err.contains(text) && !self.err.contains("hunter2"), "{self:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_on_postgres() {
    let postgres = Postgres::start().await;
    let url = &postgres.fresh_database().await;
    run(url, &["keys", "list"]).await.fails_with_a_database_error("this database has no Tollgate tables");

    let create = [
        "keys",
        "create",
        "--name=deploy",
        "--tenant=acme",
        "--scope=jobs:read",
        "--plan=pro",
        "--quota=default=60/minute",
        "--metadata={\"region\":\"eu\"}",
        "--expires-in=90d",
    ];
    let issued = json(url, &create).await;
    let (id, first) = (text(&issued["id"]), text(&issued["secret"]));
    assert_eq!(run(url, &create).await.code, Some(4), "the name is taken");
    assert_eq!(json(url, &["keys", "list", "--tenant=acme"]).await["items"][0]["id"], id.as_str());
    assert_eq!(verify(url, &first).await, Some(0));

    let second = text(&json(url, &["keys", "rotate", &id, "--overlap=1h"]).await["secret"]);
    assert_eq!((verify(url, &first).await, verify(url, &second).await), (Some(0), Some(0)));
    json(url, &["keys", "rename", &id, "build"]).await;
    let updated =
        json(url, &["keys", "update", &id, "--scope=jobs:create", "--no-expiry", "--no-quotas"]).await;
    assert_eq!(updated["scopes"], serde_json::json!(["jobs:create"]));
    assert!(updated["expires_at"].is_null() && updated["quotas"] == serde_json::json!({}), "{updated}");
    let plan = json(url, &["tenants", "plan", "acme", "max"]).await;
    assert_eq!(plan["plan"], serde_json::json!({ "tier": "max", "active": true }));
    let confined = json(url, &["keys", "update", &id, "--no-plan", "--network=10.0.0.0/8"]).await;
    assert_eq!((&confined["plan"], &confined["plan_source"]), (&plan["plan"], &"tenant".into()));
    assert_eq!(confined["allowed_networks"], serde_json::json!(["10.0.0.0/8"]));
    json(url, &["tenants", "suspend", "acme"]).await;
    assert_eq!(verify(url, &second).await, Some(1));
    json(url, &["tenants", "resume", "acme"]).await;
    assert_eq!(verify(url, &second).await, Some(0));

    let store = tests::patient_store().connect(url).await.unwrap();
    let now = SystemClock.now();
    store.add(UsageBatch::new(1, 1, vec![UsageCount::new(id.as_str(), now, 7, now)])).await.unwrap();
    store.close().await;
    assert_eq!(
        json(url, &["keys", "usage", &id, "--from=2020-01-01", "--until=2100-01-01"]).await["total"],
        7
    );

    json(url, &["keys", "revoke", &id]).await;
    assert_eq!(verify(url, &second).await, Some(1));
    let shown = json(url, &["keys", "show", &id]).await;
    let actions: Vec<_> =
        shown["history"].as_array().unwrap().iter().map(|event| text(&event["action"])).collect();
    assert_eq!(actions, ["revoked", "updated", "updated", "updated", "rotated", "issued"]);
    assert!(shown["last_used_at"].is_string());

    for secret in [&first, &second] {
        assert!(!dump(url).await.contains(&secret[12..]), "the database contains the secret");
    }
    json(url, &["keys", "delete", &id, "--yes"]).await;
    assert_eq!(run(url, &["keys", "show", &id]).await.code, Some(3));
}

/// The same commands have the same output on both databases, except for instants and random identifiers.
#[tokio::test(flavor = "multi_thread")]
async fn credits_are_shown_alike_on_postgres_and_sqlite() {
    let (postgres, folder) = (Postgres::start().await, tempfile::tempdir().unwrap());
    let urls =
        [postgres.fresh_database().await, format!("sqlite://{}", folder.path().join("keys.db").display())];
    let mut outputs = Vec::new();
    for url in &urls {
        let mut output = String::new();
        json(url, &["migrate"]).await;
        for line in [
            "grant acme 100 --id invoice_17 --note invoice",
            "grant acme 100 --id invoice_17",
            "grant acme 20 --id monthly --refill monthly:31 --priority -1",
            "show acme",
            "withdraw acme monthly --yes",
            "withdraw acme gone --yes",
            "history acme --limit 2",
            "history acme --all",
            "check acme",
            "sweep",
            "show unknown",
            "grant acme 0",
        ] {
            let arguments: Vec<_> = ["credits"].into_iter().chain(line.split(' ')).collect();
            let run = run(url, &arguments).await;
            write!(output, "> {line}\n{:?}\n{}{}", run.code, run.out, run.err).unwrap();
        }
        outputs.push(without_instants(&output));
    }
    assert_eq!(outputs[0], outputs[1]);
    assert!(outputs[0].contains("\nGranted 100 credits to acme as invoice_17.\n"), "{}", outputs[0]);
}

/// Replaces all digits of instants.
fn without_instants(output: &str) -> String {
    let is_of_instant = |word: &str| {
        word.len() > 7 && word.chars().all(|letter| letter.is_ascii_digit() || "-:.TZ\"".contains(letter))
    };
    let words = output.split_inclusive([' ', '\n', ',']);
    words
        .map(|word| if is_of_instant(word.trim_end_matches([' ', '\n', ','])) { "INSTANT " } else { word })
        .collect()
}

/// The rows of the tables about keys.
async fn dump(url: &str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let mut all = String::new();
    for table in [
        "SELECT k::text FROM tollgate_keys k",
        "SELECT encode(digest, 'escape') || d::text FROM tollgate_digests d",
        "SELECT h::text FROM tollgate_history h",
    ] {
        let rows: Vec<String> = sqlx::query_scalar(table).fetch_all(&mut connection).await.unwrap();
        assert!(!rows.is_empty(), "{table}");
        all.extend(rows);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_notified_of_a_revocation_by_the_command_line() {
    let postgres = Postgres::start().await;
    let url = &postgres.fresh_database().await;
    let issued = json(url, &["keys", "create", "--name=deploy"]).await;
    let service = tests::patient_store().connect(url).await.unwrap();
    let digest = Digest::of(text(&issued["secret"]));
    let record = service.find(&KeyLookup::new(&[digest], SystemClock.now())).await.unwrap().unwrap();
    let ended = record.principal().end_signal().wait();
    json(url, &["keys", "revoke", &text(&issued["id"])]).await;
    assert_eq!(ended.await, EndReason::Revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_is_5() {
    let mut postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    let id = text(&json(&url, &["keys", "create", "--name=deploy"]).await["id"]);
    let mut relay = Relay::to(postgres.address());
    let with_password = relay.reroute(&url).replace("postgres@", "postgres:hunter2@");
    let revoke = ["keys", "revoke", id.as_str()];

    relay.silence();
    let soon = [&revoke[..], &["--timeout=300ms"]].concat();
    run(&with_password, &soon).await.fails_with_a_database_error("");
    relay.mend();
    relay.cut().await;
    run(&with_password, &revoke).await.fails_with_a_database_error("cannot be reached");
    postgres.kill().await;
    run(&url, &revoke).await.fails_with_a_database_error("cannot be reached");
    postgres.restart().await;
    assert_eq!(json(&url, &["keys", "show", &id]).await["status"], "active");
    let nowhere = url.replace("/test_1", "/nowhere");
    run(&nowhere, &["keys", "create", "--name=deploy"]).await.fails_with_a_database_error("does not exist");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_or_locked_or_newer_database_is_5() {
    let postgres = Postgres::start().await;
    let url = &postgres.fresh_database().await;
    let id = text(&json(url, &["keys", "create", "--name=deploy"]).await["id"]);
    let read_only = format!("{url}?options[default_transaction_read_only]=on");
    run(&read_only, &["keys", "revoke", &id]).await.fails_with_a_database_error("is read-only");

    let mut other = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT * FROM tollgate_keys FOR UPDATE").execute(&mut other).await.unwrap();
    run(url, &["keys", "revoke", &id, "--timeout=1s"]).await.fails_with_a_database_error("time");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(
        json(url, &["keys", "show", &id]).await["status"],
        "active",
        "the transaction was rolled back"
    );

    sqlx::raw_sql("INSERT INTO tollgate_schema (version) VALUES (99)").execute(&mut other).await.unwrap();
    run(url, &["keys", "list"]).await.fails_with_a_database_error("have schema version 99");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_can_be_separate_from_the_use_of_the_tables() {
    let postgres = Postgres::start().await;
    let (migrated, applied) = (&postgres.fresh_database().await, &postgres.fresh_database().await);
    let newest = migrations(DatabaseKind::Postgres).len();
    assert_eq!(json(migrated, &["migrate"]).await, serde_json::json!({ "from": 0, "to": newest }));
    let printed = run("", &["schema", "--database-kind=postgres"]).await.out;
    let mut connection = PgConnection::connect(applied).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(printed)).execute(&mut connection).await.unwrap();
    assert_eq!(json(applied, &["migrate"]).await, serde_json::json!({ "from": newest, "to": newest }));
    for url in [migrated, applied] {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let grant = "DO $$ BEGIN CREATE ROLE service LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
                     REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
                     GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO service";
        sqlx::raw_sql(grant).execute(&mut connection).await.unwrap();
        let as_service = url.replace("postgres@", "service@");
        json(&as_service, &["keys", "create", "--name=deploy", "--no-migrate"]).await;
        assert_eq!(json(&as_service, &["keys", "list"]).await["items"][0]["name"], "deploy");
    }
}
