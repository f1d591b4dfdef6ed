//! Limits in Redis: where they stand, and their reset.

use std::{
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tests::redis::{Redis, RedisCluster, Setup};
use tollgate::{
    PerWindow as _, Quota,
    clock::{Clock as _, SystemClock},
    limit::{Charge, Decision, LimitRequest, Limiter as _, Window},
    manage::Actor,
};
use tollgate_redis::{Leases, LimitQuery, RedisLimiter, RedisLimits, RedisSettings};

use super::{Run, run, text};

/// What a service may do, and what an operator may do besides: see `docs/guides/redis.md`.
const OF_SERVICES: &str = "+ping +time +eval +evalsha +get +set +del";
const OF_OPERATORS: &str = "+scan +mget +xadd +xrevrange +expire";

/// A limiter like that of a service, and the command line.
struct World {
    redis: Redis,
    limiter: RedisLimiter,
}

impl World {
    async fn new() -> Self {
        let redis = Redis::start().await;
        let limiter = limiter(redis.url().into()).await;
        Self { redis, limiter }
    }

    async fn run(&self, arguments: &[&str]) -> Run {
        let url = format!("--redis={}", self.redis.url());
        run("", &[&["limits"], arguments, &[&*url]].concat()).await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let run = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
        serde_json::from_str(&run.out).unwrap()
    }

    async fn charge(
        &self,
        group: &str,
        policy: &'static str,
        subject: &str,
        quota: &Quota,
        cost: u64,
    ) -> Decision {
        charge(&self.limiter, group, policy, subject, quota, cost).await
    }
}

async fn connect(settings: RedisSettings) -> tollgate_redis::Redis {
    tollgate_redis::Redis::connect(settings.with_deadline(Duration::from_secs(5))).await.unwrap()
}

/// A limiter that asks Redis for each request that it admits.
async fn limiter(settings: RedisSettings) -> RedisLimiter {
    RedisLimiter::builder(connect(settings).await).with_leases(Leases::Off).build()
}

/// Counts this many units, if there are as many.
async fn charge(
    limiter: &RedisLimiter,
    group: &str,
    policy: &'static str,
    subject: &str,
    quota: &Quota,
    cost: u64,
) -> Decision {
    let charges = [Charge::new(policy, subject, group, quota).with_cost(cost)];
    limiter.acquire(&LimitRequest::new(&charges, SystemClock.now())).await.unwrap()
}

/// Policy, subject, quota, used and remaining of each counter.
fn counters(shown: &Value) -> Vec<(String, String, String, u64, u64)> {
    let items = shown.as_array().unwrap().iter();
    items
        .map(|item| {
            let number = |name: &str| item[name].as_u64().unwrap();
            let [policy, subject, quota] = ["policy", "subject", "quota"].map(|name| text(&item[name]));
            (policy, subject, quota, number("used"), number("remaining"))
        })
        .collect()
}

fn counter(
    policy: &str,
    subject: &str,
    quota: &str,
    used: u64,
    remaining: u64,
) -> (String, String, String, u64, u64) {
    (policy.to_owned(), subject.to_owned(), quota.to_owned(), used, remaining)
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_where_a_tenant_and_a_key_stand() {
    let world = World::new().await;
    let by_key = 100.per_day().and(1_000.per_day().sliding()).and(5_000.per(Window::month_from(17)));
    world.charge("acme", "key", "key_1", &by_key, 3).await;
    world.charge("acme", "key", "key_2", &by_key, 100).await;
    world.charge("acme", "organization", "acme", &1.per_hour().with_burst(50), 7).await;
    world.charge("other", "key", "key_3", &by_key, 1).await;

    let shown = world.json(&["show", "--tenant=acme"]).await;
    let of_key = |subject: &str, used| {
        [
            counter("key", subject, "100 per day", used, 100 - used),
            counter("key", subject, "1000 per sliding day", used, 1_000 - used),
            counter("key", subject, "5000 per month from day 17", used, 5_000 - used),
        ]
    };
    let bucket = [counter("organization", "acme", "1 per hour in bursts of 50", 7, 43)];
    let expected = [&of_key("key_1", 3)[..], &of_key("key_2", 100), &bucket].concat();
    assert_eq!(counters(&shown["items"]), expected);
    assert_eq!((&shown["items"][0]["tenant"], &shown["items"][6]["limit"]), (&json!("acme"), &json!(50)));
    for (arguments, number) in [
        (&["--tenant=acme", "--policy=organization"][..], 1),
        (&["--tenant=acme", "--subject=key_1"], 3),
        (&["--subject=key_3"], 3),
        (&["--tenant=acme", "--subject=key_3"], 0),
        (&["--tenant=nobody"], 0),
    ] {
        let shown = world.json(&[&["show"], arguments].concat()).await;
        assert_eq!(counters(&shown["items"]).len(), number, "{arguments:?}");
    }

    let table = world.run(&["show", "--tenant=acme", "--subject=key_2", "--policy=key"]).await.out;
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    for word in ["TENANT", "POLICY", "SUBJECT", "LIMIT", "USED", "REMAINING", "RESETS"] {
        assert!(lines.first().unwrap().contains(word), "{table}");
    }
    let words: Vec<_> = lines.get(1).unwrap().split_whitespace().collect();
    assert_eq!(words[..7], ["acme", "key", "key_2", "100", "per", "day", "100"], "{table}");
    let none = world.run(&["show", "--tenant=nobody"]).await;
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""));
    assert_eq!(none.err, "No counters found: nothing is used.\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_taken_as_they_are() {
    let world = World::new().await;
    let quota = 100.per_day();
    let names = ["a*", "ab", "a?", "[ab]*", "x:y", "y", "{x}:%", "\\*", "^a"];
    for (group, subject) in names.iter().flat_map(|group| names.map(|subject| (*group, subject))) {
        world.charge(group, "by:key", subject, &quota, 1).await;
    }
    for name in names {
        let shown = world.json(&["show", "--tenant", name]).await;
        assert_eq!(counters(&shown["items"]).len(), names.len(), "{name}");
        let shown = world.json(&["show", "--subject", name]).await;
        assert_eq!(counters(&shown["items"]).len(), names.len(), "{name}");
        let one = world.json(&["show", "--tenant", name, "--subject", name]).await;
        assert_eq!(counters(&one["items"]), [counter("by:key", name, "100 per day", 1, 99)]);
    }
    let before = world.redis.cli(&["DBSIZE"]).await.parse::<usize>().unwrap();
    world.json(&["reset", "--tenant=a*", "--yes"]).await;
    // The record of the reset is a key, too.
    assert_eq!(world.redis.cli(&["DBSIZE"]).await.parse::<usize>().unwrap(), before - names.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_gives_the_whole_quota_back_and_is_recorded() {
    let world = World::new().await;
    let quota = 10.per_day();
    for (policy, subject) in [("key", "key_1"), ("key", "key_2"), ("exports", "key_1")] {
        assert!(world.charge("acme", policy, subject, &quota, 10).await.is_allowed());
    }
    let reset = ["reset", "--tenant=acme", "--policy=key", "--subject=key_1"];
    let run = world.run(&reset).await;
    assert!(run.code == Some(2) && run.err.contains("cannot ask for confirmation"), "{run:?}");
    assert!(world.json(&["resets"]).await["items"].as_array().unwrap().is_empty());

    let run = world.run(&[&reset[..], &["--yes"]].concat()).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(
        run.out.starts_with("The counters of one subject were reset. They stood at:\n\nTENANT"),
        "{run:?}"
    );
    assert_eq!(run.err, "Services can refuse for up to one second more.\n");
    let left: Vec<_> = counters(&world.json(&["show", "--tenant=acme"]).await["items"]);
    let full = |policy, subject| counter(policy, subject, "10 per day", 10, 0);
    assert_eq!(left, [full("exports", "key_1"), full("key", "key_2")]);
    // Another process, which remembers no refusal.
    let other = limiter(world.redis.url().into()).await;
    assert!(charge(&other, "acme", "key", "key_1", &quota, 4).await.is_allowed());

    let all = world.json(&["reset", "--tenant=acme", "-y", "--operator=grace"]).await;
    assert_eq!(
        (&all["subjects"], &all["policy"], &all["operator"]),
        (&json!(3), &Value::Null, &json!("cli:grace"))
    );
    let resets = world.json(&["resets"]).await["items"].clone();
    let [latest, first] = &resets.as_array().unwrap()[..] else { panic!("{resets}") };
    assert_eq!(counters(&latest["before"]).len(), 3, "the latest first");
    assert_eq!(counters(&first["before"]), [full("key", "key_1")]);
    assert_eq!(
        (&first["operator"], &first["tenant"], &first["policy"], &first["subject"], &first["subjects"]),
        (&json!("cli:ada"), &json!("acme"), &json!("key"), &json!("key_1"), &json!(1))
    );
    let limits = RedisLimits::new(connect(world.redis.url().into()).await);
    let [_, recorded] = &limits.resets().await.unwrap()[..] else { panic!("two are recorded") };
    let time = world.redis.cli(&["TIME"]).await;
    let now = UNIX_EPOCH + Duration::from_secs(time.lines().next().unwrap().parse().unwrap());
    assert!(now.duration_since(recorded.at).unwrap_or_default() < Duration::from_mins(1), "by its clock");
    let table = world.run(&["resets"]).await.out;
    assert!(table.contains("cli:ada") && table.contains("key key_1: 10 of 10 per day"), "{table}");

    let nothing = world.run(&["reset", "--tenant=acme", "--yes"]).await;
    assert_eq!((nothing.code, nothing.err.as_str()), (Some(0), "No counters found: nothing was reset.\n"));
    assert_eq!(world.json(&["resets"]).await["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_resets_is_bounded() {
    let world = World::new().await;
    let limits = RedisLimits::new(connect(world.redis.url().into()).await);
    let (ada, quota) = (Actor::new("ada"), 10.per_day());
    // More subjects than a step of the scan and than an entry of the record.
    for number in 0..1_500 {
        world.charge("acme", "key", &format!("key_{number}"), &quota, 1).await;
    }
    let reset = limits.reset(&LimitQuery::of_group("acme"), &ada).await.unwrap();
    assert_eq!((reset.subjects, reset.before.len()), (1_500, 100));
    let [recorded] = &limits.resets().await.unwrap()[..] else { panic!("one is recorded") };
    assert_eq!((recorded.subjects, &recorded.query, &recorded.before), (1_500, &reset.query, &reset.before));
    for _ in 0..1_000 {
        world.charge("acme", "key", "key_1", &quota, 1).await;
        limits.reset(&LimitQuery::of_subject("key_1"), &ada).await.unwrap();
    }
    let resets = limits.resets().await.unwrap();
    assert!(resets.len() == 1_000 && resets.iter().all(|reset| reset.subjects == 1), "{}", resets.len());
    let seconds: u64 = world.redis.cli(&["TTL", "tollgate:resets"]).await.parse().unwrap();
    assert!((90 * 86_400 - 60..=90 * 86_400).contains(&seconds), "{seconds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_of_a_tenant_resets_its_own_counters_only() {
    let world = World::new().await;
    let limits = RedisLimits::new(connect(world.redis.url().into()).await);
    let (actor, quota) = (Actor::of_tenant("ada", "acme"), 10.per_day());
    for group in ["acme", "other"] {
        world.charge(group, "key", "key_1", &quota, 1).await;
    }
    let others = LimitQuery::of_group("other");
    assert_eq!(limits.reset(&others, &actor).await.unwrap().subjects, 0);
    assert_eq!(limits.reset(&LimitQuery::of_subject("key_1"), &actor).await.unwrap().subjects, 1);
    assert_eq!(limits.show(&others).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_asked_by_tenant() {
    let cluster = RedisCluster::start().await;
    let limiter = limiter(RedisSettings::cluster(cluster.urls())).await;
    let groups: Vec<_> = (0..20).map(|number| format!("tenant_{number}")).collect();
    for group in &groups {
        charge(&limiter, group, "key", "key_1", &10.per_day(), 4).await;
        charge(&limiter, group, "key", "key_2", &10.per_day(), 5).await;
    }
    let url = format!("--redis={}", cluster.urls()[0]);
    let run = async |arguments: &[&str]| {
        run("", &[&["limits"], arguments, &["--cluster", "--json", &*url]].concat()).await
    };
    for group in &groups {
        let shown = run(&["show", "--tenant", group]).await;
        let shown: Value = serde_json::from_str(&shown.out).unwrap();
        let expected =
            [counter("key", "key_1", "10 per day", 4, 6), counter("key", "key_2", "10 per day", 5, 5)];
        assert_eq!(counters(&shown["items"]), expected, "{group}");
    }
    assert_eq!(run(&["reset", "--tenant=tenant_7", "--yes"]).await.code, Some(0));
    let resets: Value = serde_json::from_str(&run(&["resets"]).await.out).unwrap();
    assert_eq!(
        (&resets["items"][0]["tenant"], &resets["items"][0]["subjects"]),
        (&json!("tenant_7"), &json!(2))
    );
    let shown = run(&["show", "--tenant=tenant_7"]).await;
    assert_eq!(shown.out, "{\"items\":[]}\n");
    run(&["show", "--subject=key_1"]).await.fails_with_a_database_error("name it");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_redis_need_no_more_permissions_than_the_guide_says() {
    let keys = "~tollgate:* ";
    let service = format!("{keys}{OF_SERVICES}");
    let operator = format!("{service} {OF_OPERATORS}");
    let redis = Redis::start_with(Setup::default().with_user("operator", "hunter2", &operator)).await;
    redis
        .cli(
            &[&["ACL", "SETUSER", "service", "on", ">secret"][..], &service.split(' ').collect::<Vec<_>>()]
                .concat(),
        )
        .await;
    let of_service = redis.url().replace("operator:hunter2", "service:secret");
    let limiter = limiter(of_service.into()).await;
    assert!(charge(&limiter, "acme", "key", "key_1", &10.per_day(), 4).await.is_allowed());

    let url = format!("--redis={}", redis.url());
    for arguments in [&["show", "--tenant=acme"][..], &["reset", "--tenant=acme", "--yes"], &["resets"]] {
        let run = run("", &[&["limits"], arguments, &[&*url]].concat()).await;
        assert!(run.code == Some(0) && run.out.contains("key_1"), "{run:?}");
    }
    let wrong = url.replace("hunter2", "hunter2-of-another");
    run("", &["limits", "resets", &wrong])
        .await
        .fails_with_a_database_error("the Redis server cannot be reached");

    // A cluster tells clients its nodes.
    let in_cluster = Setup::default().with_user("service", "secret", &format!("{service} +cluster|slots"));
    let mut cluster = RedisCluster::start_with(in_cluster).await;
    let limiter = self::limiter(RedisSettings::cluster(cluster.urls())).await;
    charge(&limiter, "acme", "key", "key_1", &10.per_day(), 4).await;
    let key = "tollgate:{acme}:key:key_1";
    assert_eq!(cluster.cli(key, &["EXISTS", key]).await, "1", "it was not counted locally");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_can_be_encrypted() {
    let redis = Redis::start_with(Setup::default().with_tls()).await;
    let folder = tempfile::tempdir().unwrap();
    let certificate = folder.path().join("root.pem");
    std::fs::write(&certificate, redis.root_certificate().unwrap()).unwrap();
    // In place of the operating system's certificates.
    for (trusted, code) in [(certificate.as_path(), 0), (folder.path(), 5)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cli"));
        command.env_clear().env("SSL_CERT_FILE", trusted).env("TOLLGATE_REDIS_URL", redis.url());
        let output =
            tokio::task::spawn_blocking(move || command.args(["limits", "resets"]).output().unwrap());
        let output = output.await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_5() {
    let mut world = World::new().await;
    world.redis.pause().await;
    world
        .run(&["resets", "--timeout=300ms"])
        .await
        .fails_with_a_database_error("does not answer within 300ms");
    world.redis.resume().await;
    world.redis.kill().await;
    world.run(&["resets"]).await.fails_with_a_database_error("cannot be reached");
    let missing = run("", &["limits", "resets"]).await;
    assert!(missing.code == Some(2) && missing.err.contains("TOLLGATE_REDIS_URL"), "{missing:?}");
    let which = world.run(&["show"]).await;
    assert!(which.code == Some(2) && which.err.contains("--tenant"), "{which:?}");
}
