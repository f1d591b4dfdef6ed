//! What a connection says that cannot be made, without the password; and one that is made later.

use std::time::Duration;

use tests::{
    hosts::within,
    redis::{Redis as Server, RedisSentinels, Setup},
    suite::Log,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::sleep,
};
use tollgate::PerWindow as _;
use tollgate_redis::{Leases, Outage, Redis, RedisLimiter, RedisSettings};
use tracing::Level;

use crate::{ask, builder, patient, until};

const PASSWORD: &str = "s3cret";

/// The error's text.
async fn fails(settings: RedisSettings) -> String {
    let settings = settings.with_deadline(Duration::from_millis(500));
    let error = within(Redis::connect(settings.clone())).await.unwrap_err();
    for text in [format!("{error}"), format!("{error:?}"), format!("{settings:?}")] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    error.to_string()
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[tokio::test]
async fn a_wrong_url_is_explained() {
    for url in [
        format!("http://limits:{PASSWORD}@127.0.0.1:6379"),
        format!("limits:{PASSWORD}@127.0.0.1:6379"),
        format!("redis://limits:{PASSWORD}@127.0.0.1:notaport"),
        format!("redis://limits:{PASSWORD}@127.0.0.1:6379/notanumber"),
        String::new(),
    ] {
        let text = fails(RedisSettings::new(&*url)).await;
        assert_says(&text, &["the URL of the Redis server is wrong", "redis://user:password@host:6379"]);
        let error = Redis::connect_in_background(&*url).await.unwrap_err();
        assert!(!error.to_string().contains(PASSWORD));
        assert_says(&fails(RedisSettings::cluster([url.as_str()])).await, &["URL"]);
        assert_says(&fails(RedisSettings::sentinel("primary", [url.as_str()])).await, &["URL"]);
    }
}

#[tokio::test]
async fn a_server_that_refuses_the_user_is_explained() {
    let rules = "~tollgate:* +ping";
    let server = Server::start_with(Setup::default().with_user("limits", "other", rules)).await;
    let address = server.address();
    for user in [format!("limits:{PASSWORD}@"), format!("nobody:{PASSWORD}@"), format!(":{PASSWORD}@")] {
        let text = fails(RedisSettings::new(format!("redis://{user}{address}"))).await;
        assert_says(&text, &["user", "password"]);
    }
    let text = fails(RedisSettings::new(format!("redis://{address}"))).await;
    assert_says(&text, &["user", "password"]);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_explained() {
    let mut server = Server::start().await;
    let url = server.url();
    server.kill().await;
    assert_says(&fails(RedisSettings::new(&*url)).await, &["Connection refused"]);
    assert_says(&fails(RedisSettings::cluster([&*url])).await, &["Redis"]);
    server.restart().await;
    server.pause().await;
    assert_says(&fails(RedisSettings::new(&*url)).await, &["does not answer within 5s"]);
}

#[tokio::test]
async fn a_server_of_another_kind_is_explained() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let web_server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let text = fails(RedisSettings::new(format!("redis://limits:{PASSWORD}@{address}"))).await;
    assert_says(&text, &["Redis"]);
    web_server.abort();

    let plain = Server::start().await;
    let text = fails(RedisSettings::new(format!("rediss://{}", plain.address()))).await;
    assert_says(&text, &["TLS"]);
    assert_says(&fails(RedisSettings::cluster([plain.url()])).await, &["cluster"]);
    let text = fails(RedisSettings::sentinel("primary", [plain.url()])).await;
    assert_says(&text, &["Sentinel"]);

    let encrypted = Server::start_with(Setup::default().with_tls()).await;
    let text = fails(RedisSettings::new(encrypted.url())).await;
    assert_says(&text, &["certificate"]);
    let text = fails(RedisSettings::new(format!("redis://{}", encrypted.address()))).await;
    assert_says(&text, &["rediss://"]);
}

#[tokio::test]
async fn a_name_that_no_sentinel_knows_is_explained() {
    let sentinels = RedisSentinels::start().await;
    let text = fails(RedisSettings::sentinel("another", sentinels.urls())).await;
    assert_says(&text, &["another"]);
}

/// A service that starts while Redis is down does what its policies have chosen, and says so.
#[tokio::test]
async fn a_service_starts_while_redis_is_down() {
    let log = Log::start();
    let mut server = Server::start().await;
    server.kill().await;
    let redis = Redis::connect_in_background(patient(RedisSettings::new(server.url()))).await.unwrap();
    assert!(!redis.is_up());
    let build =
        |outage| RedisLimiter::builder(redis.clone()).with_leases(Leases::Off).with_outage(outage).build();
    let quota = 1.per_hour();
    assert!(ask(&build(Outage::Allow), "ada", &quota).await.unwrap().windows().is_empty());
    ask(&build(Outage::Refuse), "ada", &quota).await.unwrap_err();
    let local = build(Outage::CountLocally);
    assert!(ask(&local, "ada", &quota).await.unwrap().is_allowed());
    assert!(!ask(&local, "ada", &quota).await.unwrap().is_allowed());
    until_logged(&log, "tollgate.redis_down").await;

    server.restart().await;
    until_logged(&log, "tollgate.redis_up").await;
    assert!(redis.is_up());
    assert!(ask(&local, "ada", &quota).await.unwrap().is_allowed(), "counted in Redis");
    assert!(!ask(&build(Outage::Refuse), "ada", &quota).await.unwrap().is_allowed());
    let turns: Vec<_> =
        log.entries().into_iter().filter(|entry| entry.name.starts_with("tollgate.redis_")).collect();
    let turns = turns.iter().filter(|entry| entry.level <= Level::INFO).map(|entry| &*entry.name);
    assert_eq!(turns.collect::<Vec<_>>(), ["tollgate.redis_down", "tollgate.redis_up"]);
}

async fn until_logged(log: &Log, name: &str) {
    within(async {
        while !log.entries().iter().any(|entry| entry.name == name) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A new server does not know the script: that is no failure.
#[tokio::test]
async fn a_server_that_works_is_not_logged() {
    let log = Log::start();
    let server = Server::start().await;
    let limiter = builder(&patient(RedisSettings::new(server.url())), Leases::Off).await.build();
    assert!(ask(&limiter, "ada", &1.per_hour()).await.unwrap().is_allowed());
    let entries: Vec<_> = log.entries().into_iter().filter(|entry| entry.level <= Level::INFO).collect();
    assert!(entries.is_empty(), "{entries:?}");
}

#[tokio::test]
async fn nothing_is_left_of_a_limiter_that_is_dropped() {
    let server = Server::start().await;
    let clients = async || server.cli(&["CLIENT", "LIST"]).await.lines().count();
    let before = clients().await;
    let limiter = builder(&patient(RedisSettings::new(server.url())), Leases::Always).await.build();
    assert!(ask(&limiter, "ada", &90.per_hour()).await.unwrap().is_allowed());
    assert_eq!(clients().await, before + 1);
    // Its task has run: it has given back what was borrowed.
    let record = async || server.cli(&["GET", "tollgate:{ada}:key:ada"]).await;
    until("it gives back", async || record().await.ends_with(" 1").then_some(())).await;
    drop(limiter);
    until("the connection is closed", async || (clients().await == before).then_some(())).await;
}

/// A primary that was made a replica cannot count. The connection is made again, and finds the new primary if there is one.
#[tokio::test]
async fn a_server_that_becomes_a_replica_is_down() {
    let log = Log::start();
    let server = Server::start().await;
    let limiter = builder(&patient(RedisSettings::new(server.url())), Leases::Off).await.build();
    let quota = 9.per_hour();
    assert!(ask(&limiter, "ada", &quota).await.unwrap().is_allowed());
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    ask(&limiter, "ada", &quota).await.unwrap_err();
    until_logged(&log, "tollgate.redis_down").await;
    server.cli(&["REPLICAOF", "NO", "ONE"]).await;
    until("it counts again", async || ask(&limiter, "ada", &quota).await.ok()).await;
}

/// A user who may connect, and nothing else: its limits are counted in this process, and the log says why.
#[tokio::test]
async fn a_command_that_redis_refuses_is_logged_once() {
    let log = Log::start();
    let server =
        Server::start_with(Setup::default().with_user("limits", PASSWORD, "~tollgate:* +ping")).await;
    let limiter = builder(&patient(RedisSettings::new(server.url())), Leases::Off).await.build();
    for _ in 0..20 {
        let error = ask(&limiter, "ada", &1.per_hour()).await.unwrap_err();
        assert_says(&format!("{error:?}"), &["evalsha"]);
    }
    let warnings: Vec<_> = log.entries().into_iter().filter(|entry| entry.level == Level::WARN).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].name, "tollgate.redis_refused");
    assert_says(warnings[0].field("message").unwrap(), &["evalsha"]);
    assert!(!format!("{log:?} {limiter:?}").contains(PASSWORD));
}
