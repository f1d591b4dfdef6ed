//! Events of key stores that do not notify other processes themselves.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    time::{Duration, Instant, SystemTime},
};

use tempfile::TempDir;
use tests::{
    redis::{Redis as Server, RedisCluster, RedisSentinels, Setup},
    relay::Relay,
};
use tokio::{runtime::Handle, time::sleep};
use tollgate::{
    Answer, CachedKeys, MemoryKeys, Plan, Principal,
    denial::Unavailable,
    key::Digest,
    manage::{
        Actor, Command, HistoryQuery, KeyAdmin, KeyAdminError, KeyChange, KeyDetails, KeyEvent, KeyQuery,
        KeyUpdate, Page, TenantChange, TenantDetails,
    },
    store::{EndReason, KeyLookup, KeyRecord, KeyStatus, KeyStore, StoreEvent, StoreListener, Subscription},
};
use tollgate_redis::{Redis, RedisEvents, RedisSettings};
use tollgate_sql::SqlKeys;
use tollgate_testing::suite::{self, KeyStoreFixture};

use crate::{fresh, until};

/// A table of the application's, by which one process does not learn what another one has changed. It has the events of its own
/// process, or none.
#[derive(Clone)]
struct Table<S> {
    keys: S,
    /// What makes changes. Without events, it does not tell `keys` either.
    changes: S,
    has_events: bool,
    answers: Arc<AtomicBool>,
}

impl<S> Table<S> {
    fn new(keys: S, changes: S, has_events: bool) -> Self {
        Self { keys, changes, has_events, answers: Arc::new(AtomicBool::new(true)) }
    }
}

impl Table<SqlKeys> {
    async fn open(folder: &TempDir, has_events: bool) -> Self {
        let url = format!("sqlite://{}", folder.path().join("keys.db").display());
        let keys = tests::silent_store().connect(&url).await.unwrap();
        let changes =
            if has_events { keys.clone() } else { tests::silent_store().connect(&url).await.unwrap() };
        Self::new(keys, changes, has_events)
    }
}

impl<S: KeyStore> KeyStore for Table<S> {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        if self.answers.load(Ordering::Acquire) {
            self.keys.find(lookup)
        } else {
            Answer::Now(Err(Unavailable::new("no answer")))
        }
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        if self.has_events {
            self.keys.subscribe(listener)
        } else {
            Subscription::trust_for(Duration::from_secs(10))
        }
    }
}

impl<S: KeyAdmin> KeyAdmin for Table<S> {
    fn change(&self, command: Command<KeyChange>) -> Answer<Result<KeyDetails, KeyAdminError>> {
        self.changes.change(command)
    }

    fn change_tenant(&self, command: Command<TenantChange>) -> Answer<Result<TenantDetails, KeyAdminError>> {
        self.changes.change_tenant(command)
    }

    fn tenant(&self, tenant: &str) -> Answer<Result<TenantDetails, KeyAdminError>> {
        self.changes.tenant(tenant)
    }

    fn list(&self, query: &KeyQuery) -> Answer<Result<Page<KeyDetails>, KeyAdminError>> {
        self.changes.list(query)
    }

    fn history(&self, query: &HistoryQuery) -> Answer<Result<Page<KeyEvent>, KeyAdminError>> {
        self.changes.history(query)
    }
}

/// What a process has.
struct Process {
    keys: RedisEvents<Table<SqlKeys>>,
    cache: CachedKeys,
    events: Arc<Mutex<Vec<StoreEvent>>>,
    _listener: Arc<dyn StoreListener>,
}

/// How soon a silent connection is noticed.
const BOUND: Duration = Duration::from_secs(1);

impl Process {
    async fn start(settings: RedisSettings, table: Table<SqlKeys>) -> Self {
        let redis = Redis::connect(settings).await.unwrap();
        let keys = RedisEvents::builder(redis, table).with_heartbeat(BOUND / 2).build();
        let events = Arc::new(Mutex::new(Vec::new()));
        let listener: Arc<dyn StoreListener> = {
            let events = Arc::clone(&events);
            Arc::new(move |event: &StoreEvent| events.lock().unwrap().push(event.clone()))
        };
        let process =
            Self { cache: CachedKeys::new(keys.clone()), keys, events, _listener: Arc::clone(&listener) };
        assert_eq!(process.keys.subscribe(Arc::downgrade(&listener)).trusted_for(), None);
        process.until_connected(true).await;
        process
    }

    async fn until_connected(&self, connected: bool) {
        let is_so = async || (self.keys.is_connected() == connected).then_some(());
        until(&format!("it is connected: {connected}"), is_so).await;
    }

    async fn change(&self, change: KeyChange) -> Result<KeyDetails, KeyAdminError> {
        self.keys.change(Command::new(change, Actor::new("test"), SystemTime::now())).await
    }

    async fn change_tenant(&self, change: TenantChange) {
        self.keys.change_tenant(Command::new(change, Actor::new("test"), SystemTime::now())).await.unwrap();
    }

    async fn issue(&self, id: &str) {
        let mut details = KeyDetails::new(id, id, SystemTime::now());
        details.tenant = Some("acme".into());
        self.change(KeyChange::Issue { details: Box::new(details), digest: Digest::of(id) }).await.unwrap();
    }

    async fn revoke(&self, id: &str) {
        self.change(KeyChange::Revoke { id: id.into() }).await.unwrap();
    }

    async fn rotate(&self, id: &str, secret: &str, former_until: Option<SystemTime>) {
        let (digest, display_prefix) = (Digest::of(secret), secret.into());
        let change = KeyChange::Rotate { id: id.into(), digest, display_prefix, former_until };
        self.change(change).await.unwrap();
    }

    /// What the cache answers.
    async fn find(&self, secret: &str) -> Option<KeyRecord> {
        let digests = [Digest::of(secret)];
        self.cache.find(&KeyLookup::new(&digests, SystemTime::now())).await.unwrap()
    }

    async fn status(&self, secret: &str) -> Option<KeyStatus> {
        self.find(secret).await.map(|record| record.status())
    }

    /// A principal in use.
    async fn hold(&self, secret: &str) -> Arc<Principal> {
        self.find(secret).await.unwrap().into_principal()
    }

    fn is_cached(&self, secret: &str) -> bool {
        let digests = [Digest::of(secret)];
        matches!(self.cache.find(&KeyLookup::new(&digests, SystemTime::now())), Answer::Now(_))
    }

    async fn until_cached(&self, secret: &str) {
        let is_cached = async || {
            self.find(secret).await;
            self.is_cached(secret).then_some(())
        };
        until("it is cached", is_cached).await;
    }

    fn received(&self) -> Vec<StoreEvent> {
        self.events.lock().unwrap().clone()
    }
}

fn reason(principal: &Principal) -> Option<EndReason> {
    principal.end_signal().reason()
}

async fn until_ended(principal: &Principal, expected: EndReason) {
    until("the principal has ended", async || reason(principal).map(|reason| assert_eq!(reason, expected)))
        .await;
}

/// Runs a test with two processes, on a table that has events of its own process, and on one without.
async fn on_each(test: impl AsyncFn(&Server, &TempDir, bool)) {
    for has_events in [true, false] {
        eprintln!("the store has events: {has_events}");
        test(&Server::start().await, &tempfile::tempdir().unwrap(), has_events).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_events_of_its_process_conforms() {
    let server = Server::start().await;
    suite::key_admin(async || {
        let redis = Redis::connect(fresh(RedisSettings::new(server.url()))).await.unwrap();
        let keys = RedisEvents::new(redis, MemoryKeys::new());
        until("connected", async || keys.is_connected().then_some(())).await;
        keys
    })
    .await;
}

/// A store without events: its keys, and changes by way of this process.
struct WithoutEvents(Arc<RedisEvents<Table<MemoryKeys>>>);

impl KeyStoreFixture for WithoutEvents {
    type Store = RedisEvents<Table<MemoryKeys>>;

    fn store(&self) -> &Arc<Self::Store> {
        &self.0
    }

    async fn insert(&self, id: &str, digest: Digest) {
        let details = Box::new(KeyDetails::new(id, id, SystemTime::now()));
        let change = KeyChange::Issue { details, digest };
        self.0.change(Command::new(change, Actor::new("test"), SystemTime::now())).await.unwrap();
    }

    async fn revoke(&self, id: &str) {
        let change = KeyChange::Revoke { id: id.into() };
        self.0.change(Command::new(change, Actor::new("test"), SystemTime::now())).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_events_gets_some() {
    let server = Server::start().await;
    suite::key_store(async || {
        let redis = Redis::connect(fresh(RedisSettings::new(server.url()))).await.unwrap();
        let keys = RedisEvents::new(redis, {
            let keys = MemoryKeys::new();
            Table::new(keys.clone(), keys, false)
        });
        until("connected", async || keys.is_connected().then_some(())).await;
        WithoutEvents(Arc::new(keys))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_reach_the_other_process() {
    on_each(async |server, folder, has_events| {
        let here = Process::start(server.url().into(), Table::open(folder, has_events).await).await;
        let there = Process::start(server.url().into(), Table::open(folder, has_events).await).await;
        assert_eq!(there.status("revoked").await, None);
        for id in ["revoked", "rotated", "deleted", "with overlap", "renamed"] {
            here.issue(id).await;
            until("the new key is found", async || there.find(id).await).await;
            there.until_cached(id).await;
        }
        let held = there.hold("revoked").await;
        here.revoke("revoked").await;
        until_ended(&held, EndReason::Revoked).await;
        assert_eq!(there.status("revoked").await, Some(KeyStatus::Revoked));

        let held = there.hold("rotated").await;
        here.rotate("rotated", "rotated 2", None).await;
        until_ended(&held, EndReason::Revoked).await;
        assert!(there.find("rotated").await.is_none() && there.find("rotated 2").await.is_some());

        // An overlap that is over at once.
        let (held, now) = (there.hold("rotated 2").await, SystemTime::now());
        here.rotate("rotated", "rotated 3", Some(now)).await;
        until_ended(&held, EndReason::Revoked).await;

        let held = there.hold("deleted").await;
        here.change(KeyChange::Delete { id: "deleted".into() }).await.unwrap();
        until_ended(&held, EndReason::Revoked).await;

        // A secret that remains valid for some time ends with the next rotation.
        let (first, of_here) = (there.hold("with overlap").await, here.hold("with overlap").await);
        let until_later = Some(SystemTime::now() + Duration::from_hours(1));
        here.rotate("with overlap", "with overlap 2", until_later).await;
        let second = until("found", async || there.find("with overlap 2").await).await.into_principal();
        assert_eq!([reason(&first), reason(&second), reason(&of_here)], [None; 3]);
        here.rotate("with overlap", "with overlap 3", until_later).await;
        assert_eq!(reason(&of_here), Some(EndReason::Revoked), "at once");
        until_ended(&first, EndReason::Revoked).await;
        if !has_events {
            assert_eq!(reason(&second), None);
        }

        let update = Box::new(KeyUpdate::new().with_name("new"));
        let held = there.hold("renamed").await;
        here.change(KeyChange::Update { id: "renamed".into(), update }).await.unwrap();
        here.change_tenant(TenantChange::SetPlan { tenant: "acme".into(), plan: Some(Plan::active("pro")) })
            .await;
        let has_plan = async || {
            let found = there.find("renamed").await.unwrap();
            found.principal().plan().filter(|plan| plan.tier() == "pro").map(drop)
        };
        until("the plan has changed", has_plan).await;
        assert_eq!(reason(&held), None);
        here.change_tenant(TenantChange::Suspend { tenant: "acme".into() }).await;
        until_ended(&held, EndReason::TenantSuspended).await;
        assert_eq!(there.status("renamed").await, Some(KeyStatus::TenantSuspended));
        assert!(!there.received().contains(&StoreEvent::Disconnected));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_takes_effect_here_before_it_is_answered_also_while_the_server_is_down() {
    on_each(async |server, folder, has_events| {
        let mut relay = Relay::to(server.address());
        let url = relay.reroute(&server.url());
        let here = Process::start(url.into(), Table::open(folder, has_events).await).await;
        here.issue("key").await;
        for is_down in [false, true] {
            if is_down {
                relay.cut().await;
            }
            let id = format!("key {is_down}");
            here.issue(&id).await;
            let held = here.hold(&id).await;
            let asked = Instant::now();
            here.revoke(&id).await;
            assert_eq!(reason(&held), Some(EndReason::Revoked));
            assert_eq!(here.status(&id).await, Some(KeyStatus::Revoked));
            assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_cut_off_caches_nothing_and_learns_what_it_has_missed() {
    on_each(async |server, folder, has_events| {
        let here = Process::start(server.url().into(), Table::open(folder, has_events).await).await;
        let mut relay = Relay::to(server.address());
        let url = relay.reroute(&server.url());
        let there = Process::start(url.into(), Table::open(folder, has_events).await).await;
        for id in ["revoked", "kept"] {
            here.issue(id).await;
            until("found", async || there.find(id).await).await;
            there.until_cached(id).await;
        }
        let (held, kept) = (there.hold("revoked").await, there.hold("kept").await);
        relay.cut().await;
        there.until_connected(false).await;
        assert!(there.received().contains(&StoreEvent::Disconnected));
        assert!(!there.is_cached("kept"), "the cache is empty");
        here.revoke("revoked").await;
        assert_eq!(there.status("revoked").await, Some(KeyStatus::Revoked), "the store is asked");
        assert_eq!(there.status("kept").await, Some(KeyStatus::Active));
        assert!(!there.is_cached("kept"), "and its answer is not cached");
        relay.mend();
        there.until_connected(true).await;
        assert_eq!([reason(&held), reason(&kept)], [Some(EndReason::Revoked), None]);
        assert_eq!(there.received().last(), Some(&StoreEvent::Connected));
        there.until_cached("kept").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_noticed_within_the_bound() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let mut relay = Relay::to(server.address());
    let settings = RedisSettings::new(relay.reroute(&server.url()));
    let process = Process::start(settings, Table::open(&folder, false).await).await;
    assert_eq!(process.keys.staleness_bound(), BOUND);
    process.issue("key").await;
    process.until_cached("key").await;
    for round in 0..3 {
        relay.silence();
        let silent = Instant::now();
        process.until_connected(false).await;
        assert!(!process.is_cached("key"));
        // The rest is for a busy machine.
        assert!(silent.elapsed() < BOUND + Duration::from_millis(500), "{round}: {:?}", silent.elapsed());
        relay.mend();
        process.until_connected(true).await;
        process.until_cached("key").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_works_is_not_taken_for_a_silent_one() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let process = Process::start(server.url().into(), Table::open(&folder, false).await).await;
    let began = Instant::now();
    while began.elapsed() < 3 * BOUND {
        assert!(process.keys.is_connected(), "{:?}", began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(process.received(), [StoreEvent::Connected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_published_is_published_later() {
    on_each(async |server, folder, has_events| {
        let mut relay = Relay::to(server.address());
        let url = relay.reroute(&server.url());
        let here = Process::start(url.into(), Table::open(folder, has_events).await).await;
        let there = Process::start(server.url().into(), Table::open(folder, has_events).await).await;
        here.issue("key").await;
        until("found", async || there.find("key").await).await;
        let held = there.hold("key").await;
        relay.cut().await;
        here.revoke("key").await;
        assert_eq!(reason(&held), None, "the other process has received no message");
        relay.mend();
        until_ended(&held, EndReason::Revoked).await;
    })
    .await;
}

/// The server that accepted the first message may have been replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_interruption_others_read_again_what_may_have_been_lost() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let mut relay = Relay::to(server.address());
    let here = Process::start(relay.reroute(&server.url()).into(), Table::open(&folder, false).await).await;
    let there = Process::start(server.url().into(), Table::open(&folder, false).await).await;
    let turns = [StoreEvent::Disconnected, StoreEvent::Connected];
    for has_published in [false, true] {
        if has_published {
            here.issue("key").await;
        }
        relay.cut().await;
        here.until_connected(false).await;
        relay.mend();
        here.until_connected(true).await;
        if has_published {
            let is_over = async || there.received().ends_with(&turns).then_some(());
            until("everything is read again", is_over).await;
        }
    }
    let interruptions = there.received().iter().filter(|event| **event == StoreEvent::Disconnected).count();
    assert_eq!(interruptions, 1, "once, after something was published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_the_application_makes_itself_is_told() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let here = Process::start(server.url().into(), Table::open(&folder, false).await).await;
    let there = Process::start(server.url().into(), Table::open(&folder, false).await).await;
    let table =
        Process::start(server.url().into(), Table::open(&folder, false).await).await.keys.store().clone();
    for id in ["revoked", "suspended"] {
        here.issue(id).await;
    }
    let find =
        async |process: &Process, id| until("found", async || process.find(id).await).await.into_principal();
    let now = SystemTime::now();

    let held = [find(&here, "revoked").await, find(&there, "revoked").await];
    let change = KeyChange::Revoke { id: "revoked".into() };
    table.change(Command::new(change, Actor::new("console"), now)).await.unwrap();
    here.keys.key_changed("revoked").await;
    assert_eq!(reason(&held[0]), Some(EndReason::Revoked), "at once");
    until_ended(&held[1], EndReason::Revoked).await;

    let held = [find(&here, "suspended").await, find(&there, "suspended").await];
    let change = TenantChange::Suspend { tenant: "acme".into() };
    table.change_tenant(Command::new(change, Actor::new("console"), now)).await.unwrap();
    here.keys.tenant_changed("acme").await;
    assert_eq!(reason(&held[0]), Some(EndReason::TenantSuspended), "at once");
    until_ended(&held[1], EndReason::TenantSuspended).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_strangers_publish_does_no_harm() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let process = Process::start(server.url().into(), Table::open(&folder, false).await).await;
    process.issue("key").await;
    let held = process.hold("key").await;
    let publish = async |text: &str| {
        let receivers = server.cli(&["PUBLISH", "tollgate:events", text]).await;
        assert_eq!(receivers, "1");
    };
    for text in
        ["", "hello", "v1", "v1 x", "key 1 revoked key", "*3\r\n$9\r\nsubscribe", &"x".repeat(100_000)]
    {
        publish(text).await;
    }
    publish("v1 forged key 18446744073709551615 revoked key").await;
    publish("v1 forged tenant 18446744073709551615 suspended acme").await;
    publish("v1 forged key 1 revoked unknown").await;
    let is_last = |event: &StoreEvent| matches!(event, StoreEvent::Key { id, .. } if **id == *"unknown");
    let has_received = async || process.received().iter().any(is_last).then_some(());
    until("it has received them", has_received).await;
    assert!(!process.received().contains(&StoreEvent::Disconnected));
    assert_eq!(reason(&held), None, "the store says that it is active");
    assert_eq!(process.status("key").await, Some(KeyStatus::Active));

    // A newer version may say something that this one does not understand.
    process.until_cached("key").await;
    publish("v2 other plan key").await;
    let turns = [StoreEvent::Disconnected, StoreEvent::Connected];
    let is_over = async || process.received().ends_with(&turns).then_some(());
    until("everything is read again", is_over).await;
    assert_eq!(reason(&held), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_store_does_not_answer_is_connected_when_it_does() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let here = Process::start(server.url().into(), Table::open(&folder, false).await).await;
    let table = Table::open(&folder, false).await;
    let answers = Arc::clone(&table.answers);
    let there = Process::start(server.url().into(), table).await;
    here.issue("key").await;
    until("found", async || there.find("key").await).await;
    let held = there.hold("key").await;
    answers.store(false, Ordering::Release);
    here.revoke("key").await;
    // It cannot find out whether the principal has ended.
    there.until_connected(false).await;
    assert_eq!(reason(&held), None);
    answers.store(true, Ordering::Release);
    there.until_connected(true).await;
    assert_eq!(reason(&held), Some(EndReason::Revoked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_caller_hangs_up_reaches_the_other_process() {
    on_each(async |server, folder, has_events| {
        let here = Process::start(server.url().into(), Table::open(folder, has_events).await).await;
        let there = Process::start(server.url().into(), Table::open(folder, has_events).await).await;
        here.issue("key").await;
        until("found", async || there.find("key").await).await;
        let held = there.hold("key").await;
        {
            let mut change = pin!(here.change(KeyChange::Revoke { id: "key".into() }));
            assert!(change.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        until_ended(&held, EndReason::Revoked).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_changes_reach_processes_at_every_node() {
    let (cluster, folder) = (RedisCluster::start().await, tempfile::tempdir().unwrap());
    let mut urls = cluster.urls();
    let mut processes = Vec::new();
    for _ in 0..urls.len() {
        let settings = RedisSettings::cluster(urls.clone());
        processes.push(Process::start(settings, Table::open(&folder, false).await).await);
        urls.rotate_left(1);
    }
    for (number, process) in processes.iter().enumerate() {
        let id = format!("key {number}");
        process.issue(&id).await;
        let mut held = Vec::new();
        for process in &processes {
            held.push(until("found", async || process.find(&id).await).await.into_principal());
        }
        process.revoke(&id).await;
        for held in held {
            until_ended(&held, EndReason::Revoked).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_changes_reach_the_other_process() {
    let (mut sentinels, folder) = (RedisSentinels::start().await, tempfile::tempdir().unwrap());
    let urls = sentinels.urls();
    let settings = || RedisSettings::sentinel(RedisSentinels::MASTER_NAME, urls.clone());
    let here = Process::start(settings(), Table::open(&folder, false).await).await;
    let there = Process::start(settings(), Table::open(&folder, false).await).await;
    here.issue("key").await;
    let held = until("found", async || there.find("key").await).await.into_principal();
    sentinels.kill_primary().await;
    here.until_connected(false).await;
    there.until_connected(false).await;
    here.until_connected(true).await;
    there.until_connected(true).await;
    here.revoke("key").await;
    until_ended(&held, EndReason::Revoked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_least_permissions_is_enough_also_with_tls() {
    let permissions = "~tollgate:* &tollgate:* +ping +publish +subscribe";
    let server =
        Server::start_with(Setup::default().with_user("events", "s3cret", permissions).with_tls()).await;
    let folder = tempfile::tempdir().unwrap();
    let settings =
        || RedisSettings::new(server.url()).with_root_certificate(server.root_certificate().unwrap());
    let here = Process::start(settings(), Table::open(&folder, false).await).await;
    let there = Process::start(settings(), Table::open(&folder, false).await).await;
    here.issue("key").await;
    let held = until("found", async || there.find("key").await).await.into_principal();
    here.revoke("key").await;
    until_ended(&held, EndReason::Revoked).await;
    assert_eq!(server.cli(&["ACL", "LOG"]).await, "");
}

#[tokio::test(flavor = "current_thread")]
async fn the_task_ends_with_the_last_handle() {
    let server = Server::start().await;
    let redis = Redis::connect(server.url()).await.unwrap();
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let keys = RedisEvents::new(redis.clone(), MemoryKeys::new());
    let clone = keys.clone();
    until("connected", async || keys.is_connected().then_some(())).await;
    drop(keys);
    assert!(tasks() > before);
    assert!(clone.is_connected());
    drop(clone);
    until("the tasks end", async || (tasks() == before).then_some(())).await;
    let channels = async || server.cli(&["PUBSUB", "CHANNELS"]).await.is_empty().then_some(());
    until("nothing is subscribed", channels).await;
}
