use std::{
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tests::{
    hosts::within,
    redis::{Program, Redis, RedisCluster, RedisSentinels, Setup},
    relay::Relay,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{ends_with_its_test, lives};

async fn connect(address: SocketAddr) -> TcpStream {
    within(TcpStream::connect(address)).await.unwrap()
}

async fn ping(stream: &mut TcpStream) {
    stream.write_all(b"PING\r\n").await.unwrap();
    pong(stream).await;
}

async fn pong(stream: &mut TcpStream) {
    let mut answer = [0; 7];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

async fn is_refused(address: SocketAddr) -> bool {
    matches!(TcpStream::connect(address).await, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

/// Whether nothing is left of a server.
async fn is_gone(address: SocketAddr, pid: u32, folder: &Path) -> bool {
    is_refused(address).await && !lives(&pid.to_string()) && !folder.exists()
}

/// The folder of a server. Its name is its port.
async fn folder(redis: &Redis) -> PathBuf {
    let folder = PathBuf::from(redis.cli(&["CONFIG", "GET", "dir"]).await.lines().nth(1).unwrap());
    assert!(folder.is_dir() && folder.ends_with(redis.address().port().to_string()));
    folder
}

#[tokio::test]
async fn redis_is_installed_and_each_program_is_what_it_says() {
    let programs = Program::installed();
    assert_eq!(programs[0], Program::Redis);
    for program in programs {
        let redis = Redis::start_with(Setup::of(program)).await;
        let server = redis.cli(&["INFO", "server"]).await;
        assert_eq!(server.contains("server_name:valkey"), program == Program::Valkey, "{server}");
    }
}

#[tokio::test]
async fn servers_are_empty_and_separate() {
    let (one, other) = tokio::join!(Redis::start(), Redis::start());
    assert_ne!(one.address(), other.address());
    assert_ne!(folder(&one).await, folder(&other).await);
    assert_eq!(one.url(), format!("redis://{}", one.address()));

    assert_eq!(one.cli(&["SET", "greeting", "hello, world"]).await, "OK");
    assert_eq!(one.cli(&["GET", "greeting"]).await, "hello, world");
    assert_eq!(other.cli(&["GET", "greeting"]).await, "");
    one.flush().await;
    assert_eq!(one.cli(&["DBSIZE"]).await, "0");
}

#[tokio::test]
async fn an_error_differs_from_a_text() {
    let redis = Redis::start().await;
    redis.cli(&["SET", "text", "ERR"]).await;
    assert_eq!(redis.try_cli(&["GET", "text"]).await.as_deref(), Ok("ERR"));
    let error = redis.try_cli(&["INCR", "text"]).await.unwrap_err();
    assert!(error.starts_with("ERR value is not an integer"), "{error}");
}

#[tokio::test]
async fn a_killed_server_refuses_connections_and_a_restarted_one_is_empty_at_the_same_address() {
    let mut redis = Redis::start().await;
    let address = redis.address();
    redis.cli(&["SET", "greeting", "hello"]).await;
    let mut connection = connect(address).await;
    ping(&mut connection).await;

    redis.kill().await;
    assert!(is_refused(address).await);
    assert_eq!(within(connection.read(&mut [0])).await.unwrap_or_default(), 0);
    redis.try_cli(&["PING"]).await.unwrap_err();

    redis.restart().await;
    assert_eq!(redis.address(), address);
    assert_eq!(redis.cli(&["DBSIZE"]).await, "0");
    // Also while it runs.
    redis.cli(&["SET", "greeting", "hello"]).await;
    redis.restart().await;
    assert_eq!(redis.cli(&["DBSIZE"]).await, "0");
}

#[tokio::test]
async fn a_paused_server_answers_nothing_until_it_is_resumed() {
    let redis = Redis::start().await;
    let mut connection = connect(redis.address()).await;
    ping(&mut connection).await;

    redis.pause().await;
    connection.write_all(b"PING\r\n").await.unwrap();
    // The kernel accepts it.
    let mut newcomer = connect(redis.address()).await;
    newcomer.write_all(b"PING\r\n").await.unwrap();
    for stream in [&mut connection, &mut newcomer] {
        timeout(Duration::from_millis(200), stream.read(&mut [0])).await.unwrap_err();
    }

    redis.resume().await;
    pong(&mut connection).await;
    pong(&mut newcomer).await;
}

#[tokio::test]
async fn a_paused_server_can_be_killed_restarted_and_dropped() {
    let mut redis = Redis::start().await;
    let (address, pid, folder) = (redis.address(), redis.pid(), folder(&redis).await);
    redis.pause().await;
    redis.kill().await;
    assert!(!lives(&pid.to_string()));
    redis.restart().await;
    redis.cli(&["PING"]).await;
    redis.pause().await;
    let pid = redis.pid();
    drop(redis);
    assert!(is_gone(address, pid, &folder).await);
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let redis = Redis::start().await;
    let (address, pid, folder) = (redis.address(), redis.pid(), folder(&redis).await);
    assert!(lives(&pid.to_string()));
    drop(redis);
    assert!(is_gone(address, pid, &folder).await);
}

#[tokio::test]
async fn a_server_ends_when_its_test_is_killed() {
    ends_with_its_test("harness::redis::a_server_ends_when_its_test_is_killed", async || {
        let (running, paused) = (Redis::start().await, Redis::start().await);
        paused.pause().await;
        let pids = [&running, &paused].map(|redis| redis.pid().to_string());
        ((running, paused), pids.into())
    })
    .await;
}

#[tokio::test]
async fn a_server_behind_a_cut_relay_is_lost_at_once_and_reachable_again_after_mending() {
    let redis = Redis::start().await;
    let mut relay = Relay::to(redis.address());
    assert_eq!(relay.reroute(&redis.url()), format!("redis://{}", relay.address()));
    let mut connection = connect(relay.address()).await;
    ping(&mut connection).await;

    relay.cut().await;
    assert_eq!(within(connection.read(&mut [0])).await.unwrap_or_default(), 0);
    assert!(is_refused(relay.address()).await);

    relay.mend();
    let mut connection = connect(relay.address()).await;
    ping(&mut connection).await;
    relay.silence();
    connection.write_all(b"PING\r\n").await.unwrap();
    timeout(Duration::from_millis(200), connection.read(&mut [0])).await.unwrap_err();
    relay.mend();
    pong(&mut connection).await;
}

#[tokio::test]
async fn a_user_may_do_what_the_rules_say_and_others_nothing() {
    let setup = Setup::default().with_user("limiter", "secret", "~tollgate:* +get +set");
    let redis = Redis::start_with(setup).await;
    assert_eq!(redis.url(), format!("redis://limiter:secret@{}", redis.address()));

    // Who may do everything looks inside.
    redis.cli(&["SET", "other", "1"]).await;

    let commands = b"PING\r\nAUTH limiter wrong\r\nAUTH limiter secret\r\nSET tollgate:1 1\r\nSET other 2\r\nPING\r\nQUIT\r\n";
    let mut connection = connect(redis.address()).await;
    connection.write_all(commands).await.unwrap();
    let mut answers = String::new();
    within(connection.read_to_string(&mut answers)).await.unwrap();
    // The kind of an error is its first word.
    let answers: Vec<&str> = answers.lines().map(|answer| answer.split(' ').next().unwrap()).collect();
    assert_eq!(answers, ["-NOAUTH", "-WRONGPASS", "+OK", "+OK", "-NOPERM", "-NOPERM", "+OK"]);
}

#[tokio::test]
async fn a_server_with_tls_accepts_nothing_else() {
    let setup = Setup::default().with_tls();
    let (redis, other) =
        (Redis::start_with(setup).await, Redis::start_with(Setup::default().with_tls()).await);
    assert_eq!(redis.url(), format!("rediss://{}", redis.address()));
    assert_eq!(redis.cli(&["SET", "greeting", "hello"]).await, "OK");
    let root = redis.root_certificate().unwrap();
    assert!(root.starts_with("-----BEGIN CERTIFICATE-----") && Some(root) != other.root_certificate());

    let mut connection = connect(redis.address()).await;
    connection.write_all(b"PING\r\n").await.unwrap();
    let mut answer = Vec::new();
    // An alert, or nothing.
    let _ = within(connection.read_to_end(&mut answer)).await;
    assert!(!answer.contains(&b'+'), "{answer:?}");
}

#[tokio::test]
async fn a_setting_is_in_force() {
    let redis = Redis::start_with(Setup::default().with_setting("maxmemory 2mb")).await;
    assert_eq!(redis.cli(&["CONFIG", "GET", "maxmemory"]).await, "maxmemory\n2097152");
}

/// Writes a key to each primary, kills the primaries one after another, and checks that every write is there.
async fn check_that_writes_survive_a_failover(setup: Setup) {
    let mut cluster = RedisCluster::start_with(setup).await;
    // One in the slots of each primary.
    let keys = ["{a}", "{b}", "{c}"];
    let mut primaries = Vec::new();
    for key in keys {
        let primary = cluster.primary_of(key).await;
        primary.cli(&["SET", key, key]).await;
        primary.cli(&["WAIT", "1", "0"]).await;
        primaries.push(primary.address());
    }
    primaries.sort_unstable();
    primaries.dedup();
    assert_eq!(primaries.len(), 3);

    let killed = cluster.kill_primary_of(keys[0]).await;
    assert!(is_refused(killed).await);
    cluster.until_it_serves().await;
    assert_ne!(cluster.primary_of(keys[0]).await.address(), killed);
    for key in keys {
        assert_eq!(cluster.cli(key, &["GET", key]).await, key);
        assert_eq!(cluster.cli(key, &["SET", key, "new"]).await, "OK");
    }

    // It takes the place of its replica when that is killed.
    cluster.restart_killed().await;
    cluster.kill_primary_of(keys[0]).await;
    cluster.until_it_serves().await;
    assert_eq!(cluster.primary_of(keys[0]).await.address(), killed);
    assert_eq!(cluster.cli(keys[0], &["GET", keys[0]]).await, "new");
    cluster.flush().await;
    assert_eq!(cluster.cli(keys[0], &["GET", keys[0]]).await, "");
}

#[tokio::test]
async fn a_cluster_replaces_a_killed_primary_and_writes_survive() {
    for program in Program::installed() {
        check_that_writes_survive_a_failover(Setup::of(program)).await;
    }
}

#[tokio::test]
async fn a_cluster_with_a_user_and_tls_replaces_a_killed_primary() {
    let setup = Setup::default().with_user("limiter", "secret", "~* +@all").with_tls();
    check_that_writes_survive_a_failover(setup).await;
}

#[tokio::test]
async fn a_cluster_replaces_a_paused_primary() {
    let mut cluster = RedisCluster::start().await;
    let primary = cluster.primary_of("key").await;
    let paused = primary.address();
    primary.pause().await;
    cluster.until_it_serves().await;
    assert_ne!(cluster.primary_of("key").await.address(), paused);
}

async fn check_that_sentinels_name_the_new_primary(setup: Setup) {
    let mut sentinels = RedisSentinels::start_with(setup).await;
    let primary = sentinels.primary().await;
    primary.cli(&["SET", "greeting", "hello"]).await;
    primary.cli(&["WAIT", "1", "0"]).await;

    let killed = sentinels.kill_primary().await;
    assert!(is_refused(killed).await);
    sentinels.until_it_serves().await;
    let primary = sentinels.primary().await;
    assert_ne!(primary.address(), killed);
    assert_eq!(primary.cli(&["GET", "greeting"]).await, "hello");
    assert_eq!(primary.cli(&["SET", "greeting", "again"]).await, "OK");

    sentinels.restart_killed().await;
    let servers = sentinels.servers();
    let restarted = servers.iter().find(|server| server.address() == killed).unwrap();
    assert_eq!(restarted.cli(&["GET", "greeting"]).await, "again");
    assert!(restarted.try_cli(&["SET", "greeting", "no"]).await.unwrap_err().starts_with("READONLY"));
}

#[tokio::test]
async fn sentinels_name_the_new_primary() {
    for program in Program::installed() {
        check_that_sentinels_name_the_new_primary(Setup::of(program)).await;
    }
}

#[tokio::test]
async fn sentinels_name_the_new_primary_of_servers_with_a_user_and_tls() {
    let setup = Setup::default().with_user("limiter", "secret", "~* +@all").with_tls();
    check_that_sentinels_name_the_new_primary(setup).await;
}

#[tokio::test]
async fn clusters_and_sentinels_end_when_their_test_is_killed() {
    ends_with_its_test("harness::redis::clusters_and_sentinels_end_when_their_test_is_killed", async || {
        let (mut cluster, mut sentinels) = tokio::join!(RedisCluster::start(), RedisSentinels::start());
        let mut pids: Vec<String> = Vec::new();
        pids.extend(cluster.nodes().iter().map(|node| node.pid().to_string()));
        pids.extend(sentinels.sentinels().iter().map(|sentinel| sentinel.pid().to_string()));
        pids.extend(sentinels.servers().iter().map(|server| server.pid().to_string()));
        assert_eq!(pids.len(), 11);
        ((cluster, sentinels), pids)
    })
    .await;
}
