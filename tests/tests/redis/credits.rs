//! Credits that are lent by Redis.

mod interleavings;
mod losses;
mod random;
mod services;
mod setup;

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use tests::{
    postgres::Postgres,
    redis::{Program, Redis as Server, RedisCluster, Setup},
    relay::{Direction, Relay},
    suite::Log,
};
use tokio::runtime::Handle;
use tollgate::{
    credits::{
        Balance, CreditAdmin as _, CreditLoans, Credits, Excess, Idempotency, MemoryCredits, Reserved,
        SettleAction,
    },
    key::Digest,
};
use tollgate_redis::{Loans, Redis, RedisCredits, RedisSettings};
use tollgate_sql::SqlKeys;
use tollgate_testing::suite;

use self::setup::{Ledger, Process, at, commit, held, release, request, reserve, settle, settled};
use crate::{fresh, patient, until};

async fn redis(settings: RedisSettings) -> Redis {
    Redis::connect(settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_that_busy_accounts_borrow_conform() {
    let server = Server::start().await;
    let settings = || fresh(RedisSettings::new(server.url()));
    suite::credits(2_000, async || {
        RedisCredits::builder(redis(settings()).await, MemoryCredits::new()).with_loans(Loans::Off).build()
    })
    .await;
    suite::lent_credits(async || {
        RedisCredits::builder(redis(settings()).await, MemoryCredits::new()).with_request_time().build()
    })
    .await;
    suite::lent_credits(async || {
        let ledger = SqlKeys::connect("sqlite::memory:").await.unwrap().credits();
        RedisCredits::builder(redis(settings()).await, ledger).with_request_time().build()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_that_are_always_lent_conform() {
    for program in Program::installed() {
        let server = Server::start_with(Setup::of(program)).await;
        let settings = || fresh(RedisSettings::new(server.url()));
        suite::lent_credits(async || {
            let redis = redis(settings()).await;
            RedisCredits::builder(redis, MemoryCredits::new())
                .with_loans(Loans::Always)
                .with_request_time()
                .build()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_that_are_always_lent_conform_in_front_of_a_database() {
    let (server, postgres) = (Server::start().await, Postgres::start().await);
    for is_postgres in [false, true] {
        suite::lent_credits(async || {
            let redis = redis(fresh(RedisSettings::new(server.url()))).await;
            let url = if is_postgres { &*postgres.fresh_database().await } else { "sqlite::memory:" };
            let ledger = SqlKeys::connect(url).await.unwrap().credits();
            RedisCredits::builder(redis, ledger).with_loans(Loans::Always).with_request_time().build()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_can_be_chosen_at_run_time() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let chosen: Arc<dyn CreditLoans> = Arc::new(ledger.clone());
    let redis = redis(patient(RedisSettings::new(server.url()))).await;
    let credits = RedisCredits::builder(redis, chosen).with_loans(Loans::Always).with_request_time().build();
    let [one, two] = [held(&reserve(&credits, 10, 0).await), held(&reserve(&credits, 10, 0).await)];
    assert_eq!(commit(&credits, one, 4, 0).await, (4, 0), "on the loan");
    let take = SettleAction::Commit { actual: 200, excess: Excess::TakeAvailable };
    let settlement = settle(&credits, two, take, 0).await.unwrap();
    assert_eq!(settlement.charged, 200, "121 on the loan, and 79 in the ledger");
    credits.close().await.unwrap();
    assert_eq!(ledger.balance(0).await, Balance::new(796, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_in_a_cluster_conform() {
    let cluster = RedisCluster::start().await;
    suite::lent_credits(async || {
        let redis = redis(fresh(RedisSettings::cluster(cluster.urls()))).await;
        RedisCredits::builder(redis, MemoryCredits::new())
            .with_loans(Loans::Always)
            .with_request_time()
            .build()
    })
    .await;
}

/// These are the permissions that `RedisCredits` names, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_least_permissions_is_enough() {
    let permissions = "~tollgate:* +ping +eval +evalsha +del +hget +hset +hdel +hexists +hlen +hgetall \
                       +zadd +zrem +zcard +zrangebyscore +exists +pttl +pexpire";
    let server = Server::start_with(Setup::default().with_user("credits", "s3cret", permissions)).await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let id = held(&reserve(&process.credits, 10, 0).await);
    assert_eq!(commit(&process.credits, id, 4, 0).await, (4, 0));
    settled(&[&process], &ledger, 70, 4).await;
    until("the loan is no longer listed", async || {
        (server.cli(&["ZCARD", "tollgate:credits"]).await == "0").then_some(())
    })
    .await;
    assert_eq!(server.cli(&["ACL", "LOG"]).await, "");
}

/// A thousand requests of four processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_is_rarely_asked_about_a_busy_account() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000_000).await;
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(Process::start(&server.url(), &ledger, Loans::Always).await);
    }
    let mut charged = 0;
    for number in 0..1_000_usize {
        let credits = &processes[number % 4].credits;
        let id = held(&reserve(credits, 10, number as u64 / 20).await);
        let (of_this, _) = commit(credits, id, number as u64 % 12, number as u64 / 20).await;
        charged += of_this;
    }
    let calls = ledger.calls();
    assert!(calls < 20, "{calls}");
    settled(&processes.iter().collect::<Vec<_>>(), &ledger, 140, charged).await;
    assert!(
        ledger.calls() < 60,
        "{}, also after it was asked about balances until the loans were closed",
        ledger.calls()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_that_are_not_busy_or_small_do_not_borrow() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_600).await;
    let process = Process::start(&server.url(), &ledger, Loans::Auto).await;
    for second in 0..20 {
        let id = held(&reserve(&process.credits, 1, 2 * second).await);
        release(&process.credits, id, 2 * second).await;
    }
    assert_eq!(server.cli(&["DBSIZE"]).await, "0", "5 requests in 10 seconds");
    for _ in 0..20 {
        let id = held(&reserve(&process.credits, 13, 40).await);
        release(&process.credits, id, 40).await;
    }
    assert_eq!(server.cli(&["DBSIZE"]).await, "0", "198 do not suffice for 16 requests of 13");
    let id = held(&reserve(&process.credits, 12, 40).await);
    assert_ne!(server.cli(&["DBSIZE"]).await, "0");
    assert_eq!(ledger.balance(40).await, Balance::new(1_402, 198));
    assert_eq!(setup::balance(&process.credits, 40).await, Balance::new(1_588, 12));
    assert_eq!(commit(&process.credits, id, 12, 40).await, (12, 0));
    settled(&[&process], &ledger, 101, 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_refused_only_if_the_ledger_and_the_loans_have_too_few() {
    let server = Server::start().await;
    let ledger = Ledger::granted(100).await;
    let [one, two] = [
        Process::start(&server.url(), &ledger, Loans::Always).await,
        Process::start(&server.url(), &ledger, Loans::Always).await,
    ];
    let first = held(&reserve(&one.credits, 5, 0).await); // a loan of 12
    assert_eq!(ledger.balance(0).await, Balance::new(88, 12));
    // With an idempotency key: in the ledger, where too few are available.
    let keyed = request(95, 0).with_idempotency(Idempotency::new("key", Digest::of("scan")));
    let keyed = held(&two.credits.reserve(&keyed).await.unwrap());
    assert_eq!(ledger.balance(0).await, Balance::new(0, 100));
    let refused = reserve(&two.credits, 1, 0).await;
    assert!(matches!(refused, Reserved::Insufficient(shortage) if shortage.available == 0), "{refused:?}");
    assert_eq!(commit(&one.credits, first, 2, 0).await, (2, 0));
    release(&two.credits, keyed, 0).await;
    let refused = reserve(&two.credits, 99, 0).await;
    assert!(matches!(refused, Reserved::Insufficient(shortage) if shortage.available == 98), "{refused:?}");
    let all = held(&reserve(&two.credits, 98, 0).await);
    assert_eq!(setup::balance(&one.credits, 0).await, Balance::new(0, 98));
    assert_eq!(commit(&one.credits, all, 98, 0).await, (98, 0), "from a process that has not reserved it");
    settled(&[&one, &two], &ledger, 70, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_with_a_debt_is_lent_nothing() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let [one, two] =
        [held(&reserve(&process.credits, 10, 0).await), held(&reserve(&process.credits, 10, 0).await)];
    let owe = SettleAction::Commit { actual: 2_000, excess: Excess::Owe(1_500) };
    let settlement = settle(&process.credits, one, owe, 0).await.unwrap();
    assert_eq!((settlement.charged, settlement.uncharged), (2_000, 0));
    assert_eq!(settle(&process.credits, one, owe, 0).await.unwrap(), settlement);
    let balance = setup::balance(&process.credits, 0).await;
    assert_eq!((balance.available, balance.reserved, balance.owed), (0, 10, 1_010));
    let refused = reserve(&process.credits, 1, 0).await;
    assert!(matches!(refused, Reserved::Insufficient(shortage) if shortage.owed == 1_010), "{refused:?}");
    release(&process.credits, two, 0).await;
    settled(&[&process], &ledger, 70, 2_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_processes_never_reserve_more_than_is_available() {
    let server = Server::start().await;
    for loans in [Loans::Always, Loans::Auto] {
        server.flush().await;
        let ledger = Ledger::granted(2_000).await;
        let mut tasks = Vec::new();
        let mut processes = Vec::new();
        for number in 0..4_u64 {
            let process = Process::start(&server.url(), &ledger, loans).await;
            for task in 0..5_u64 {
                let credits = process.credits.clone();
                tasks.push(tokio::spawn(async move {
                    let (mut charged, mut open) = (0, 0);
                    for round in 0..40 {
                        let Reserved::Held(reservation) = reserve(&credits, 7, 0).await else { continue };
                        if (number + task + round) % 4 == 0 {
                            open += 7;
                        } else {
                            charged += commit(&credits, reservation.id, round % 9, 0).await.0;
                        }
                    }
                    (charged, open)
                }));
            }
            processes.push(process);
        }
        let (mut charged, mut open) = (0, 0);
        for task in tasks {
            let of_this = task.await.unwrap();
            charged += of_this.0;
            open += of_this.1;
        }
        let balance = setup::balance(&processes[0].credits, 0).await;
        eprintln!("{loans:?}: {charged} charged, {open} open, {} calls of the ledger", ledger.calls());
        assert_eq!(
            (balance.available + balance.reserved, balance.reserved, balance.owed),
            (2_000 - charged, open, 0)
        );
        // Those that are open expire.
        settled(&processes.iter().collect::<Vec<_>>(), &ledger, 200, charged).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_during_the_trip_lose_no_credit() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let mut relay = Relay::to(server.address());
    let settings = patient(RedisSettings::new(relay.reroute(&server.url())));
    let process = Process::with(settings, &ledger, Loans::Always).await;
    let credits = &process.credits;
    let id = held(&reserve(credits, 10, 0).await);
    relay.delay(Direction::FromUpstream, Duration::from_millis(200));
    let mut asked = pin!(credits.reserve(&request(10, 0)).into_future());
    assert!(asked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    asked.set(credits.reserve(&request(10, 0)).into_future());
    let commit = SettleAction::Commit { actual: 7, excess: Excess::Cap };
    let settle = tollgate::credits::SettleRequest::new("acme", id, commit, at(0));
    let mut settling = pin!(credits.settle(&settle).into_future());
    assert!(settling.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    settling.set(credits.settle(&settle).into_future());
    until("one is settled, and one is released", async || {
        (setup::balance(credits, 0).await == Balance::new(993, 0)).then_some(())
    })
    .await;
    settled(&[&process], &ledger, 200, 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_expires() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let id = held(&reserve(&process.credits, 10, 0).await);
    held(&reserve(&process.credits, 10, 0).await);
    commit(&process.credits, id, 10, 0).await;
    let keys = server.cli(&["KEYS", "*"]).await;
    assert_eq!(keys.lines().count(), 4, "{keys}");
    for key in keys.lines() {
        let ttl: u64 = server.cli(&["TTL", key]).await.parse().unwrap();
        assert!((80_000..=86_400).contains(&ttl), "{key}: {ttl}");
    }
    settled(&[&process], &ledger, 200, 10).await;
    until("only the record is kept", async || {
        let keys = server.cli(&["KEYS", "*"]).await;
        if keys.lines().count() != 1 {
            return None;
        }
        let ttl: u64 = server.cli(&["TTL", &keys]).await.parse().unwrap();
        (ttl <= 600).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_task_ends_with_the_last_handle() {
    let _log = Log::start();
    let server = Server::start().await;
    let redis = redis(patient(RedisSettings::new(server.url()))).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let credits = RedisCredits::new(redis.clone(), MemoryCredits::new());
    let other = credits.clone();
    assert_eq!(tasks(), before + 1);
    drop(credits);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(tasks(), before + 1);
    drop(other);
    until("the task ends", async || (tasks() == before).then_some(())).await;
}

/// A withdrawn grant is not spent by what was lent of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lent_returns_before_a_grant_is_withdrawn() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let id = held(&reserve(&process.credits, 10, 0).await);
    setup::withdraw(&process.credits, 0).await;
    assert!(matches!(reserve(&process.credits, 1, 0).await, Reserved::Insufficient(_)));
    assert_eq!(commit(&process.credits, id, 10, 0).await, (10, 0));
    assert!(process.credits.check("acme").await.unwrap().agrees);
    assert_eq!(setup::balance(&process.credits, 0).await, Balance::new(0, 0));
}

/// What a request costs beyond its estimate is available also where it is lent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_excess_takes_what_the_loan_and_the_ledger_have() {
    let server = Server::start().await;
    let ledger = Ledger::granted(100).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let [one, two] =
        [held(&reserve(&process.credits, 5, 0).await), held(&reserve(&process.credits, 5, 0).await)];
    assert_eq!(ledger.balance(0).await, Balance::new(88, 12));
    let keyed = request(88, 0).with_idempotency(Idempotency::new("key", Digest::of("scan")));
    let keyed = held(&process.credits.reserve(&keyed).await.unwrap());
    let take = SettleAction::Commit { actual: 8, excess: Excess::TakeAvailable };
    let settlement = settle(&process.credits, one, take, 0).await.unwrap();
    assert_eq!((settlement.charged, settlement.uncharged), (7, 1), "2 more than was reserved");
    release(&process.credits, two, 0).await;
    release(&process.credits, keyed, 0).await;
    settled(&[&process], &ledger, 75, 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_has_at_most_5_000_open_reservations_of_loans() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let mut held_by_requests = 0;
    for _ in 0..51 {
        let asked = (0..100).map(|_| reserve(&process.credits, 1, 0));
        let reserved = futures_util::future::join_all(asked).await;
        held_by_requests += reserved.iter().filter(|reserved| matches!(reserved, Reserved::Held(_))).count();
        assert!(
            reserved.iter().all(|reserved| matches!(reserved, Reserved::Held(_) | Reserved::TooManyOpen))
        );
    }
    assert_eq!(held_by_requests, 5_000);
    assert_eq!(setup::balance(&process.credits, 0).await, Balance::new(995_000, 5_000));
    held(&reserve(&process.credits, 1, 60).await);
    assert_eq!(setup::balance(&process.credits, 60).await, Balance::new(999_999, 1));
}
