//! Credits, beyond what the suite of all stores tests: several stores on one database, deadlines, lost connections, and what is stored.

use std::time::{Duration, SystemTime};

use futures_util::{FutureExt as _, future::join_all};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};
use tests::{
    postgres::Postgres,
    relay::{Direction, Relay},
};
use tokio::time::timeout;
use tollgate::{
    credits::{
        Balance, CreditAdmin as _, CreditAdminError, Credits as _, EntryKind, Excess, Idempotency,
        LedgerQuery, NewGrant, ReservationId, ReserveRequest, Reserved, SettleAction, SettleRequest,
        Settlement, Shortage,
    },
    denial::Unavailable,
    key::Digest,
    manage::{Actor, Command},
};
use tollgate_sql::{Retention, SqlCredits, SqlKeys};

use super::{Folder, ada, at, builder, execute, find, issue, key, on_each, on_each_shared};

/// How long the reservations of these tests last.
const HOLD: Duration = Duration::from_mins(1);

async fn grant(credits: &SqlCredits, account: &str, amount: u64) {
    credits.grant(Command::new(NewGrant::new(account, amount), ada(), at(0))).await.unwrap();
}

async fn reserve(
    credits: &SqlCredits,
    account: &str,
    amount: u64,
    now: SystemTime,
) -> Result<Reserved, Unavailable> {
    credits.reserve(&ReserveRequest::new(account, amount, now + HOLD, now)).await
}

async fn hold(credits: &SqlCredits, account: &str, amount: u64) -> ReservationId {
    match reserve(credits, account, amount, at(0)).await.unwrap() {
        Reserved::Held(held) => held.id,
        other => panic!("{other:?}"),
    }
}

async fn commit(
    credits: &SqlCredits,
    account: &str,
    id: ReservationId,
    actual: u64,
) -> Result<Settlement, Unavailable> {
    let action = SettleAction::Commit { actual, excess: Excess::Cap };
    credits.settle(&SettleRequest::new(account, id, action, at(1))).await
}

/// Each store has a queue of its own, so only the database keeps these apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_one_database_never_oversell_a_credit() {
    on_each_shared(async |url| {
        let stores = [builder().connect(&url).await.unwrap(), builder().connect(&url).await.unwrap()];
        let credits = stores.each_ref().map(SqlKeys::credits);
        for round in 0..2 {
            let account = &format!("acme {round}");
            grant(&credits[0], account, 50).await;
            let calls = (0..80).map(|number| reserve(&credits[number % 2], account, 1, at(0)));
            let answers = join_all(calls).await;
            let held = answers.iter().filter(|answer| matches!(answer, Ok(Reserved::Held(_)))).count();
            let refused = Reserved::Insufficient(Shortage::new(0, 1));
            let refused =
                answers.iter().filter(|answer| answer.as_ref().is_ok_and(|it| *it == refused)).count();
            assert_eq!((held, refused), (50, 30), "{answers:?}");
            assert_eq!(credits[1].balance(account, at(0)).await.unwrap(), Balance::new(0, 50));
            assert!(credits[1].check(account).await.unwrap().agrees);
        }
    })
    .await;
}

/// A balance and a check consist of several statements. They see one state of the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balance_and_a_check_agree_while_the_account_changes() {
    on_each_shared(async |url| {
        let store = builder().connect(&url).await.unwrap();
        let credits = store.credits();
        grant(&credits, "acme", 100).await;
        let changing = tokio::spawn({
            let credits = credits.clone();
            async move {
                for _ in 0..150 {
                    let id = hold(&credits, "acme", 7).await;
                    credits
                        .settle(&SettleRequest::new("acme", id, SettleAction::Release, at(0)))
                        .await
                        .unwrap();
                }
            }
        });
        while !changing.is_finished() {
            let balance = credits.balance("acme", at(0)).await.unwrap();
            assert_eq!(balance.available + balance.reserved, 100, "{balance:?}");
            let check = credits.check("acme").await.unwrap();
            assert!(check.agrees, "{check:?}");
        }
        changing.await.unwrap();
    })
    .await;
}

/// Of a settlement whose commit was executed, but not answered, the caller knows nothing. It calls again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_connection_is_lost_is_charged_once() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    let direct = builder().connect(&url).await.unwrap().credits();
    let mut relay = Relay::to(postgres.address());
    let store = builder().connect(&relay.reroute(&url)).await.unwrap();
    let credits = store.credits();
    grant(&direct, "acme", 100).await;
    let id = hold(&credits, "acme", 10).await;

    relay.delay(Direction::FromUpstream, Duration::from_millis(200));
    let settling = tokio::spawn({
        let credits = credits.clone();
        async move { commit(&credits, "acme", id, 3).await }
    });
    let is_committed = async || {
        let ledger = direct.ledger(&LedgerQuery::new("acme")).await.unwrap();
        ledger.items[0].kind == EntryKind::Returned
    };
    while !is_committed().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    relay.cut().await;
    assert!(settling.await.unwrap().is_err(), "the answer was lost");
    relay.delay(Direction::FromUpstream, Duration::ZERO);
    relay.mend();
    for _ in 0..2 {
        assert_eq!(commit(&credits, "acme", id, 3).await.unwrap(), Settlement::new(id, 3, 0));
    }
    assert_eq!(credits.balance("acme", at(1)).await.unwrap(), Balance::new(97, 0));
    assert!(credits.check("acme").await.unwrap().agrees);
}

/// Asserts that each call fails soon, although every other deadline is long.
async fn each_call_fails_soon(credits: &SqlCredits, id: ReservationId) {
    let soon = Duration::from_secs(5);
    let reserved = timeout(soon, reserve(credits, "acme", 1, at(1))).await;
    assert!(matches!(reserved, Ok(Err(_))), "{reserved:?}");
    let settled = timeout(soon, commit(credits, "acme", id, 1)).await;
    assert!(matches!(settled, Ok(Err(_))), "{settled:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_costs_a_call_its_deadline() {
    let postgres = Postgres::start().await;
    let mut relay = Relay::to(postgres.address());
    let url = relay.reroute(&postgres.fresh_database().await);
    let builder = builder().with_credit_deadline(Duration::from_millis(300));
    let store = builder.clone().connect(&url).await.unwrap();
    let credits = store.credits();
    grant(&credits, "acme", 10).await;
    let id = hold(&credits, "acme", 4).await;
    relay.silence();
    each_call_fails_soon(&credits, id).await;
    let balance = timeout(Duration::from_secs(5), credits.balance("acme", at(1)).into_future()).await;
    assert!(matches!(balance, Ok(Err(_))), "{balance:?}");
    relay.mend();

    let folder = Folder::new();
    let credits = builder.connect(&folder.url()).await.unwrap().credits();
    grant(&credits, "acme", 10).await;
    let id = hold(&credits, "acme", 4).await;
    let options: SqliteConnectOptions = folder.url().parse().unwrap();
    let mut writer = options.connect().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut writer).await.unwrap();
    each_call_fails_soon(&credits, id).await;
    assert_eq!(credits.balance("acme", at(1)).await.unwrap(), Balance::new(6, 4), "reading needs no lock");
    sqlx::raw_sql("ROLLBACK").execute(&mut writer).await.unwrap();
    assert_eq!(commit(&credits, "acme", id, 1).await.unwrap().charged, 1);
}

/// Requests that wait for an account must not occupy the connections that other accounts and key lookups need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_account_delays_neither_others_nor_key_lookups() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    let store = builder().with_connections(3).connect(&url).await.unwrap();
    let credits = store.credits();
    issue(&store, key("key", None)).await.unwrap();
    for account in ["busy", "acme"] {
        grant(&credits, account, 10).await;
    }
    let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
    let lock = "BEGIN; SELECT * FROM tollgate_credit_accounts WHERE account = 'busy' FOR UPDATE";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let credits = credits.clone();
            tokio::spawn(async move { reserve(&credits, "busy", 1, at(0)).await.unwrap() })
        })
        .collect();
    let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let mut observer = sqlx::PgConnection::connect(&url).await.unwrap();
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut observer).await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let soon = Duration::from_secs(10);
    timeout(soon, hold(&credits, "acme", 1)).await.unwrap();
    assert!(timeout(soon, find(&store, "key")).await.unwrap().is_some());
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    let answers = join_all(waiting).await;
    let held = answers.iter().filter(|answer| matches!(answer, Ok(Reserved::Held(_)))).count();
    assert_eq!(held, 10, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_future_is_dropped_is_completed() {
    on_each(async |store| {
        let credits = store.credits();
        grant(&credits, "acme", 10).await;
        let request = ReserveRequest::new("acme", 4, at(60), at(0));
        // Begun, and then dropped: usually before it is answered.
        drop(credits.reserve(&request).into_future().now_or_never());
        while credits.balance("acme", at(0)).await.unwrap() != Balance::new(6, 4) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let id = hold(&credits, "acme", 5).await;
        let action = SettleAction::Commit { actual: 5, excess: Excess::Cap };
        let settle = credits.settle(&SettleRequest::new("acme", id, action, at(0)));
        drop(settle.into_future().now_or_never());
        while credits.balance("acme", at(0)).await.unwrap() != Balance::new(1, 4) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// As many requests of an account can be in flight when a service crashes.
#[tokio::test]
async fn many_reservations_that_expire_at_once_are_released_in_short_transactions() {
    on_each(async |store| {
        let credits = store.credits();
        grant(&credits, "acme", 130).await;
        for _ in 0..130 {
            hold(&credits, "acme", 1).await;
        }
        let reserved = reserve(&credits, "acme", 130, at(60)).await.unwrap();
        assert!(matches!(reserved, Reserved::Held(_)), "{reserved:?}");
        assert_eq!(credits.sweep(at(60)).await.unwrap(), 0, "all were released");
        assert_eq!(credits.sweep(at(120)).await.unwrap(), 1);
        assert_eq!(credits.balance("acme", at(120)).await.unwrap(), Balance::new(130, 0));
        assert!(credits.check("acme").await.unwrap().agrees);
    })
    .await;
}

#[tokio::test]
async fn a_ledger_that_differs_is_found() {
    on_each_shared(async |url| {
        let credits = builder().connect(&url).await.unwrap().credits();
        grant(&credits, "acme", 10).await;
        let id = hold(&credits, "acme", 4).await;
        commit(&credits, "acme", id, 3).await.unwrap();
        for (change, undo) in [
            (
                "UPDATE tollgate_credit_grants SET remaining = remaining + 1",
                "UPDATE tollgate_credit_grants SET remaining = remaining - 1",
            ),
            ("UPDATE tollgate_credit_accounts SET owed = 1", "UPDATE tollgate_credit_accounts SET owed = 0"),
            (
                "UPDATE tollgate_credit_ledger SET amount = -5 WHERE kind = 'reserved'",
                "UPDATE tollgate_credit_ledger SET amount = -4 WHERE kind = 'reserved'",
            ),
        ] {
            assert!(credits.check("acme").await.unwrap().agrees);
            execute(&url, change).await;
            assert!(!credits.check("acme").await.unwrap().agrees, "{change}");
            execute(&url, undo).await;
        }
        assert!(credits.check("acme").await.unwrap().agrees);
    })
    .await;
}

/// Callers choose idempotency keys, which may contain personal data.
#[tokio::test]
async fn the_text_of_an_idempotency_key_is_not_stored() {
    on_each_shared(async |url| {
        let store = builder().connect(&url).await.unwrap();
        let credits = store.credits();
        grant(&credits, "acme", 10).await;
        let idempotency = Idempotency::new("order of ada@example.org", Digest::of("POST /scan"));
        let request = ReserveRequest::new("acme", 4, at(60), at(0)).with_idempotency(idempotency);
        let Reserved::Held(held) = credits.reserve(&request).await.unwrap() else { panic!() };
        assert_eq!(credits.reserve(&request).await.unwrap(), Reserved::InProgress);
        commit(&credits, "acme", held.id, 4).await.unwrap();
        let repeated = credits.reserve(&request).await.unwrap();
        assert_eq!(repeated, Reserved::Repeated(Settlement::new(held.id, 4, 0)));
        let texts = stored_texts(&url).await;
        assert!(texts.contains(&held.id.to_string()) && !texts.contains("ada@example.org"), "{texts}");

        let twice = "INSERT INTO tollgate_credit_reservations SELECT 'copy', account, amount, parts, expires_at, \
                     idempotency_key, fingerprint, state, charged, uncharged, settled_at, forgotten_at \
                     FROM tollgate_credit_reservations";
        assert!(try_execute(&url, twice).await.is_err(), "the tables hold a key of an account once");
    })
    .await;
}

/// What the table of reservations contains, bytes included.
async fn stored_texts(url: &str) -> String {
    let columns = "id || account || parts || state || ";
    let mut texts = String::new();
    if url.starts_with("postgres") {
        let sql = format!(
            "SELECT {columns} encode(idempotency_key, 'escape') || encode(fingerprint, 'escape') FROM tollgate_credit_reservations"
        );
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        let rows = sqlx::query_scalar::<_, String>(AssertSqlSafe(sql)).fetch_all(&mut connection).await;
        texts.extend(rows.unwrap());
    } else {
        let folder = std::path::Path::new(url.strip_prefix("sqlite://").unwrap()).parent().unwrap();
        for file in std::fs::read_dir(folder).unwrap() {
            texts.push_str(&String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()));
        }
    }
    texts
}

async fn try_execute(url: &str, sql: &'static str) -> Result<(), sqlx::Error> {
    if url.starts_with("postgres") {
        let mut connection = sqlx::PgConnection::connect(url).await?;
        sqlx::raw_sql(sql).execute(&mut connection).await.map(drop)
    } else {
        let mut connection = url.parse::<SqliteConnectOptions>()?.connect().await?;
        sqlx::raw_sql(sql).execute(&mut connection).await.map(drop)
    }
}

#[tokio::test]
async fn reservations_are_deleted_when_they_are_forgotten() {
    on_each_shared(async |url| {
        let store = builder().connect(&url).await.unwrap();
        let credits = store.credits();
        grant(&credits, "acme", 1_000).await;
        for _ in 0..130 {
            let id = hold(&credits, "acme", 1).await;
            commit(&credits, "acme", id, 1).await.unwrap();
        }
        let day = 24 * 3_600;
        reserve(&credits, "acme", 1, at(day)).await.unwrap();
        assert_eq!(reservations(&url).await, 131, "they are still known");
        reserve(&credits, "acme", 1, at(day + 1)).await.unwrap();
        assert_eq!(reservations(&url).await, 32, "a use of the account deletes 100");
        reserve(&credits, "acme", 1, at(day + 2)).await.unwrap();
        assert_eq!(reservations(&url).await, 3);

        // The system's clock is years later. What is not released yet stays.
        let counted = store.count_prunable(Retention::everything()).await.unwrap();
        assert_eq!(counted.reservations, 0);
        assert_eq!(credits.sweep(at(2 * day)).await.unwrap(), 3);
        assert_eq!(store.count_prunable(Retention::everything()).await.unwrap().reservations, 3);
        assert_eq!(store.prune(Retention::everything()).await.unwrap().reservations, 3);
        assert_eq!(reservations(&url).await, 0);
        assert!(credits.check("acme").await.unwrap().agrees, "the ledger stays");
    })
    .await;
}

async fn reservations(url: &str) -> i64 {
    let sql = "SELECT COUNT(*) FROM tollgate_credit_reservations";
    if url.starts_with("postgres") {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
    } else {
        let mut connection = url.parse::<SqliteConnectOptions>().unwrap().connect().await.unwrap();
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
    }
}

/// PostgreSQL cannot store a NUL character, and SQLite would truncate the text.
#[tokio::test]
async fn an_account_with_a_nul_character_has_nothing() {
    on_each(async |store| {
        let credits = store.credits();
        let (account, id) = ("a\0b", ReservationId::from_number(7));
        assert_eq!(credits.balance(account, at(0)).await.unwrap(), Balance::default());
        let refused = Reserved::Insufficient(Shortage::new(0, 1));
        assert_eq!(reserve(&credits, account, 1, at(0)).await.unwrap(), refused);
        assert_eq!(commit(&credits, account, id, 1).await.unwrap(), Settlement::new(id, 0, 1));
        assert!(credits.check(account).await.unwrap().agrees);
        assert_eq!(credits.ledger(&LedgerQuery::new(account)).await.unwrap().items, []);
        let by_nul = Command::new(NewGrant::new("acme", 1), Actor::new("a\0b"), at(0));
        let refused = credits.grant(by_nul).await;
        assert!(matches!(refused, Err(CreditAdminError::Invalid(_))), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn a_closed_store_is_unavailable() {
    on_each(async |store| {
        let credits = store.credits();
        grant(&credits, "acme", 10).await;
        store.close().await;
        assert!(reserve(&credits, "acme", 1, at(0)).await.is_err());
        assert!(credits.balance("acme", at(0)).await.is_err());
    })
    .await;
}
