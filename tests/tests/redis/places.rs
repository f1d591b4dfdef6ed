//! Places of requests in flight.

use std::{
    io::{BufRead as _, BufReader},
    pin::pin,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Waker},
    time::{Duration, Instant, SystemTime},
};

use tests::{
    redis::{Program, Redis as Server, RedisCluster, Setup},
    relay::{Direction, Relay},
};
use tokio::{runtime::Handle, time::sleep};
use tollgate::{
    Answer,
    denial::Unavailable,
    in_flight::{Place, PlaceRequest, Places},
};
use tollgate_redis::{Outage, Redis, RedisPlaces, RedisPlacesBuilder, RedisSettings};
use tollgate_testing::suite;

use crate::{PATIENCE, fresh, until};

/// The least time to live.
const TTL: Duration = Duration::from_secs(1);

async fn builder(settings: RedisSettings) -> RedisPlacesBuilder {
    RedisPlaces::builder(Redis::connect(settings).await.unwrap()).with_outage(Outage::Refuse)
}

/// Places as a process has them that does not wait long for the server.
async fn impatient(url: &str, outage: Outage) -> RedisPlaces {
    let settings = RedisSettings::new(url).with_deadline(Duration::from_millis(200));
    builder(settings).await.with_outage(outage).with_ttl(TTL).build()
}

fn ask(places: &impl Places, subject: &str, limit: u32) -> Answer<Result<Option<Place>, Unavailable>> {
    places.take(&PlaceRequest::new("key", subject, "acme", limit, SystemTime::now()))
}

async fn take(places: &impl Places, subject: &str, limit: u32) -> Option<Place> {
    ask(places, subject, limit).await.unwrap()
}

async fn until_stored(server: &Server, places: u32) {
    let key = "tollgate:places:{acme}:key:ada";
    let stored = async || (server.cli(&["ZCARD", key]).await == places.to_string()).then_some(());
    until(&format!("{places} places are stored"), stored).await;
}

/// Asks one process and another by turns.
struct ByTurns(RedisPlaces, RedisPlaces, AtomicUsize);

impl ByTurns {
    async fn connect(settings: RedisSettings) -> Self {
        let one = builder(settings.clone()).await.build();
        Self(one, builder(settings).await.build(), AtomicUsize::new(0))
    }
}

impl Places for ByTurns {
    fn take(&self, request: &PlaceRequest<'_>) -> Answer<Result<Option<Place>, Unavailable>> {
        let is_first = self.2.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        if is_first { &self.0 } else { &self.1 }.take(request)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_places_of_one_process_and_of_two_conform() {
    for program in Program::installed() {
        eprintln!("on {program:?}");
        let server = Server::start_with(Setup::of(program)).await;
        let settings = RedisSettings::new(server.url());
        suite::places(async || builder(fresh(settings.clone())).await.build()).await;
        suite::places(async || ByTurns::connect(fresh(settings.clone())).await).await;
        let all_are_free = async || (server.cli(&["DBSIZE"]).await == "0").then_some(());
        until("nothing is stored", all_are_free).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_in_a_cluster_conform() {
    let cluster = RedisCluster::start().await;
    let settings = RedisSettings::cluster(cluster.urls());
    suite::places(async || ByTurns::connect(fresh(settings.clone())).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_places_of_groups_on_several_servers_are_kept_and_freed() {
    let cluster = RedisCluster::start().await;
    let settings = || fresh(RedisSettings::cluster(cluster.urls())).with_prefix("tollgate");
    let (places, other) =
        (builder(settings()).await.with_ttl(TTL).build(), builder(settings()).await.build());
    let groups: Vec<_> = (0..30).map(|number| format!("group {number}")).collect();
    let take = async |places: &RedisPlaces, group: &str| {
        places.take(&PlaceRequest::new("key", group, group, 1, SystemTime::now())).await.unwrap()
    };
    let mut held = Vec::new();
    for group in &groups {
        held.push(take(&places, group).await.unwrap());
    }
    let began = Instant::now();
    while began.elapsed() < 2 * TTL {
        for group in &groups {
            assert!(take(&other, group).await.is_none(), "{group} after {:?}", began.elapsed());
        }
    }
    drop(held);
    for group in &groups {
        until("the place is free", async || take(&other, group).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_least_permissions_is_enough() {
    let permissions =
        "~tollgate:* +ping +time +eval +evalsha +zadd +zrem +zcard +zscore +zremrangebyscore +pttl +pexpire";
    let server = Server::start_with(Setup::default().with_user("places", "s3cret", permissions)).await;
    let places = builder(server.url().into()).await.with_ttl(TTL).build();
    let place = take(&places, "ada", 1).await.unwrap();
    let began = Instant::now();
    while began.elapsed() < 2 * TTL {
        until_stored(&server, 1).await;
    }
    drop(place);
    until_stored(&server, 0).await;
    assert_eq!(server.cli(&["ACL", "LOG"]).await, "");
}

/// A process that holds places. Killed when dropped.
struct Holder(Child);

impl Holder {
    fn start(url: &str, subject: &str, places: u32) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyholder"));
        let command = command.args(["hold", url, subject, &places.to_string()]).stdout(Stdio::piped());
        let mut holder = Self(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "holding\n");
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_places_of_a_process_last_as_long_as_it_and_expire_after_it_was_killed() {
    let server = Server::start().await;
    let holder = Holder::start(&server.url(), "ada", 2);
    let places = builder(server.url().into()).await.with_ttl(TTL).build();
    let _own = take(&places, "ada", 3).await.unwrap();
    let began = Instant::now();
    while began.elapsed() < 3 * TTL {
        assert!(take(&places, "ada", 3).await.is_none(), "they are held after {:?}", began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    drop(holder);
    let killed = Instant::now();
    let _place = until("the places expire", async || take(&places, "ada", 2).await).await;
    // The rest of the bound is for a busy machine.
    assert!(killed.elapsed() < TTL + Duration::from_secs(2), "{:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_stored_without_an_expiry() {
    let server = Server::start().await;
    let places = builder(server.url().into()).await.with_ttl(Duration::from_secs(40)).build();
    let _held = take(&places, "ada", 2).await.unwrap();
    // A shorter time to live of another process does not shorten it.
    let other = builder(server.url().into()).await.with_ttl(TTL).build();
    let _other = take(&other, "ada", 2).await.unwrap();
    let ttl: u64 = server.cli(&["PTTL", "tollgate:places:{acme}:key:ada"]).await.parse().unwrap();
    assert!((30_000..=40_000).contains(&ttl), "{ttl}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_down_this_process_counts_with_the_places_that_it_holds() {
    let mut server = Server::start().await;
    let settings = RedisSettings::new(server.url()).with_deadline(Duration::from_millis(200));
    let places =
        builder(settings).await.with_outage(Outage::CountLocally).with_ttl(Duration::from_mins(5)).build();
    let held = [take(&places, "ada", 3).await.unwrap(), take(&places, "ada", 3).await.unwrap()];
    server.kill().await;
    let third = take(&places, "ada", 3).await.unwrap();
    assert!(take(&places, "ada", 3).await.is_none(), "three are in flight in this process");
    drop(third);
    let third = take(&places, "ada", 3).await.unwrap();

    // The server has lost its data, and learns of two at once: the third one was not taken there.
    server.restart().await;
    until_stored(&server, 2).await;
    let other = builder(server.url().into()).await.build();
    let of_other = take(&other, "ada", 3).await.unwrap();
    assert!(take(&other, "ada", 3).await.is_none());
    assert!(take(&places, "ada", 3).await.is_none(), "three are in flight in this process alone");
    drop((held, third, of_other));
    until_stored(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_down_requests_are_refused_or_admitted() {
    let mut server = Server::start().await;
    let refusing = impatient(&server.url(), Outage::Refuse).await;
    let allowing = impatient(&server.url(), Outage::Allow).await;
    server.kill().await;
    for _ in 0..5 {
        assert!(ask(&refusing, "ada", 1).await.is_err());
    }
    let mut admitted = Vec::new();
    for _ in 0..5 {
        admitted.push(take(&allowing, "ada", 2).await.unwrap());
    }
    server.restart().await;
    let place = until("a place is taken in the server", async || ask(&refusing, "ada", 1).await.ok()).await;
    assert!(place.is_some(), "a refused request holds no place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_a_silent_server_takes_too_late_is_given_back() {
    let server = Server::start().await;
    let places = impatient(&server.url(), Outage::Refuse).await;
    drop(take(&places, "ada", 1).await.unwrap());
    until_stored(&server, 0).await;
    server.pause().await;
    let asked = Instant::now();
    assert!(ask(&places, "ada", 1).await.is_err());
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    server.resume().await;
    let free = async || ask(&places, "ada", 1).await.ok().flatten();
    drop(until("the place is free", free).await);
    until_stored(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_requests_without_an_answer_end_the_connection() {
    let server = Server::start().await;
    for _ in 0..5 {
        let settings = RedisSettings::new(server.url()).with_deadline(Duration::from_millis(200));
        let redis = Redis::connect(settings).await.unwrap();
        let places = RedisPlaces::builder(redis.clone()).with_outage(Outage::Refuse).build();
        server.pause().await;
        for _ in 0..3 {
            assert!(ask(&places, "ada", 1).await.is_err());
        }
        assert!(!redis.is_up());
        server.resume().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_is_given_back_after_the_line_was_cut() {
    let server = Server::start().await;
    let mut relay = Relay::to(server.address());
    let settings = RedisSettings::new(relay.reroute(&server.url())).with_deadline(Duration::from_millis(200));
    let places = builder(settings).await.build();
    let place = take(&places, "ada", 1).await.unwrap();
    relay.cut().await;
    drop(place);
    relay.mend();
    // Its time to live is 30 seconds.
    until_stored(&server, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_during_the_trip_lose_no_place() {
    let server = Server::start().await;
    let mut relay = Relay::to(server.address());
    let settings = RedisSettings::new(relay.reroute(&server.url())).with_deadline(PATIENCE);
    let places = builder(settings).await.build();
    drop(take(&places, "ada", 1).await);
    until_stored(&server, 0).await;
    relay.delay(Direction::FromUpstream, Duration::from_millis(300));
    let mut asked = pin!(ask(&places, "ada", 1).into_future());
    assert!(asked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    until_stored(&server, 1).await;
    asked.set(ask(&places, "ada", 1).into_future());
    until_stored(&server, 0).await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_task_ends_with_the_last_handle_and_the_last_place() {
    let server = Server::start().await;
    let redis = Redis::connect(server.url()).await.unwrap();
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let places = RedisPlaces::new(redis.clone());
    let place = take(&places, "ada", 1).await.unwrap();
    assert_eq!(tasks(), before + 1);
    drop(places);
    until_stored(&server, 1).await;
    assert_eq!(tasks(), before + 1, "it renews the place");
    drop(place);
    until_stored(&server, 0).await;
    until("the task ends", async || (tasks() == before).then_some(())).await;
}
