//! The suite for limiters on every kind of server.

use tests::redis::{Program, Redis, RedisCluster, RedisSentinels, Setup};
use tollgate_redis::{Leases, RedisSettings};
use tollgate_testing::suite;

use crate::{builder, fresh};

/// Runs the suite, each case in a part of the server of its own.
async fn conforms(settings: RedisSettings) {
    suite::limiter(async || builder(&fresh(settings.clone()), Leases::Off).await.with_request_time().build())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_valkey_conform() {
    for program in Program::installed() {
        eprintln!("on {program:?}");
        let redis = Redis::start_with(Setup::of(program)).await;
        conforms(RedisSettings::new(redis.url())).await;
    }
}

/// These are the permissions that `RedisSettings::with_prefix` names, and no more.
const PERMISSIONS: &str = "~tollgate:* +ping +time +get +set +del +eval +evalsha";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_least_permissions_conforms() {
    let redis = Redis::start_with(Setup::default().with_user("limits", "s3cret", PERMISSIONS)).await;
    conforms(RedisSettings::new(redis.url())).await;
    // Nothing failed behind the scenes.
    assert_eq!(redis.cli(&["ACL", "LOG"]).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_tls_conforms() {
    let redis =
        Redis::start_with(Setup::default().with_user("limits", "s3cret", PERMISSIONS).with_tls()).await;
    let root = redis.root_certificate().unwrap();
    conforms(RedisSettings::new(redis.url()).with_root_certificate(root)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_conforms() {
    let permissions = format!("{PERMISSIONS} +cluster|slots");
    let cluster =
        RedisCluster::start_with(Setup::default().with_user("limits", "s3cret", &permissions)).await;
    conforms(RedisSettings::cluster(cluster.urls())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_with_sentinels_conforms() {
    let permissions = format!("{PERMISSIONS} +role");
    let setup = Setup::default().with_user("limits", "s3cret", &permissions);
    let sentinels = RedisSentinels::start_with(setup).await;
    let settings = RedisSettings::sentinel(RedisSentinels::MASTER_NAME, sentinels.urls());
    conforms(settings.with_primary_user("limits", "s3cret")).await;
}
