use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use futures_util::FutureExt as _;
use sqlx::{Connection as _, PgConnection};
use tests::{
    hosts::{listen, within},
    postgres::Postgres,
    relay::{Direction, Relay},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

const HOUR: Duration = Duration::from_hours(1);

/// A relay, its upstream listener, and the two ends of a connection through it.
async fn connected() -> (Relay, TcpListener, TcpStream, TcpStream) {
    let (upstream, address) = listen().await;
    let relay = Relay::to(address);
    let client = TcpStream::connect(relay.address()).await.unwrap();
    let (server, _) = upstream.accept().await.unwrap();
    (relay, upstream, client, server)
}

/// Reads `length` bytes as text.
async fn read(stream: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Whether nothing arrives, even after every task has run. With a paused clock, each sleep polls all sockets once.
async fn stays_quiet(stream: &TcpStream) -> bool {
    for _ in 0..100 {
        sleep(Duration::from_millis(1)).await;
    }
    // Neither bytes nor the end of the stream.
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Not earlier, and at most 5 ms later: timers have a resolution of 1 ms.
fn assert_is_about(elapsed: Duration, expected: Duration) {
    assert!(elapsed >= expected && elapsed <= expected + Duration::from_millis(5), "{elapsed:?}");
}

async fn is_refused(address: SocketAddr) -> bool {
    matches!(TcpStream::connect(address).await, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

#[tokio::test]
async fn a_relay_forwards_both_ways_and_passes_on_the_end_of_each_stream() {
    let (_relay, _upstream, mut client, mut server) = connected().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    within(server.read_to_string(&mut question)).await.unwrap();
    assert_eq!(question, "question");

    // More than the buffers between the two ends hold.
    let sent = "answer ".repeat(1_000_000);
    let mut answer = String::new();
    let answering = async {
        server.write_all(sent.as_bytes()).await.unwrap();
        drop(server);
    };
    let ((), read) = within(async { tokio::join!(answering, client.read_to_string(&mut answer)) }).await;
    assert_eq!(read.unwrap(), sent.len());
    assert!(answer == sent);
}

#[tokio::test]
async fn a_cut_relay_closes_its_connections_and_refuses_new_ones_until_it_is_mended() {
    let (mut relay, upstream, mut client, mut server) = connected().await;
    relay.cut().await;
    // Blocking, so that no task can run in between.
    let refused = std::net::TcpStream::connect(relay.address()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(within(client.read(&mut [0])).await.unwrap_or_default(), 0);
    assert_eq!(within(server.read(&mut [0])).await.unwrap_or_default(), 0);
    assert!(is_refused(relay.address()).await);
    // Cutting again changes nothing.
    relay.cut().await;
    assert!(is_refused(relay.address()).await);

    relay.mend();
    let mut client = TcpStream::connect(relay.address()).await.unwrap();
    let (mut server, _) = within(upstream.accept()).await.unwrap();
    client.write_all(b"again").await.unwrap();
    assert_eq!(within(read(&mut server, 5)).await, "again");
}

#[tokio::test(start_paused = true)]
async fn a_silent_relay_holds_bytes_ends_and_new_connections_until_it_is_mended() {
    let (mut relay, upstream, mut client, mut server) = connected().await;
    relay.silence();
    client.write_all(b"question").await.unwrap();
    assert!(stays_quiet(&server).await);
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    assert!(stays_quiet(&client).await);
    let mut newcomer = TcpStream::connect(relay.address()).await.unwrap();
    newcomer.write_all(b"hello").await.unwrap();
    assert!(stays_quiet(&newcomer).await);
    assert!(upstream.accept().now_or_never().is_none());

    relay.mend();
    assert_eq!(read(&mut server, 8).await, "question");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
    let (mut server, _) = upstream.accept().await.unwrap();
    assert_eq!(read(&mut server, 5).await, "hello");
}

#[tokio::test(start_paused = true)]
async fn a_silent_relay_hides_that_the_other_end_is_gone() {
    for is_reset in [true, false] {
        let (mut relay, _upstream, mut client, server) = connected().await;
        relay.silence();
        if is_reset {
            server.set_zero_linger().unwrap();
        }
        drop(server);
        assert!(stays_quiet(&client).await);
        relay.mend();
        assert_eq!(client.read(&mut [0]).await.unwrap_or_default(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn each_direction_has_its_own_delay() {
    let (mut relay, _upstream, mut client, mut server) = connected().await;
    relay.delay(Direction::ToUpstream, HOUR);
    relay.delay(Direction::FromUpstream, 2 * HOUR);
    for hours in [1, 2] {
        let (from, to) = if hours == 1 { (&mut client, &mut server) } else { (&mut server, &mut client) };
        let begun = Instant::now();
        from.write_all(b"x").await.unwrap();
        read(to, 1).await;
        assert_is_about(begun.elapsed(), hours * HOUR);
    }
}

/// If the relay read bytes only after it delivered earlier ones, the second byte would arrive half an hour late.
#[tokio::test(start_paused = true)]
async fn delays_do_not_add_up() {
    let (mut relay, _upstream, mut client, mut server) = connected().await;
    relay.delay(Direction::ToUpstream, HOUR);
    let begun = Instant::now();
    let send = async {
        client.write_all(b"1").await.unwrap();
        sleep(HOUR / 2).await;
        client.write_all(b"2").await.unwrap();
    };
    let receive = async {
        read(&mut server, 1).await;
        read(&mut server, 1).await;
        begun.elapsed()
    };
    let ((), elapsed) = tokio::join!(send, receive);
    assert_is_about(elapsed, HOUR + HOUR / 2);
}

#[tokio::test]
async fn a_dropped_relay_closes_its_connections_and_its_port() {
    let (relay, _upstream, mut client, _server) = connected().await;
    let address = relay.address();
    drop(relay);
    assert_eq!(within(client.read(&mut [0])).await.unwrap_or_default(), 0);
    assert!(is_refused(address).await);
}

#[tokio::test]
async fn a_database_behind_a_cut_relay_is_lost_at_once_and_reachable_again_after_mending() {
    let postgres = Postgres::start().await;
    let mut relay = Relay::to(postgres.address());
    let url = relay.reroute(&postgres.fresh_database().await);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE things ()").execute(&mut connection).await.unwrap();

    let sleeping = sqlx::query("SELECT pg_sleep(3600)");
    let (result, ()) = tokio::join!(within(sleeping.execute(&mut connection)), relay.cut());
    assert!(matches!(result, Err(sqlx::Error::Io(_))), "{result:?}");
    assert!(matches!(PgConnection::connect(&url).await, Err(sqlx::Error::Io(_))));

    relay.mend();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query("SELECT FROM things").execute(&mut connection).await.unwrap();
}
