//! Processes that close, recall and settle at the same time, and a server that goes back meanwhile.

use std::time::Duration;

use tests::redis::Redis as Server;
use tokio::time::timeout;
use tollgate::credits::{Balance, CreditAdmin as _, Credits as _, Excess, SettleAction};
use tollgate_redis::{Loans, RedisSettings};

use super::{
    losses::closed_by_the_task,
    setup::{Ledger, Process, balance, commit, held, release, request, reserve, settle, settled},
};
use crate::until;

const ACCOUNT: &str = "tollgate:credits:{acme}";

async fn keys(server: &Server, pattern: &str) -> Vec<String> {
    server.cli(&["KEYS", pattern]).await.lines().map(str::to_owned).collect()
}

/// What a snapshot would have, or a replica that lacks what comes later.
async fn keep_state(server: &Server) {
    for key in keys(server, "tollgate:credits*").await {
        server.cli(&["COPY", &key, &format!("snapshot:{key}")]).await;
    }
}

async fn go_back(server: &Server) {
    for key in keys(server, "snapshot:*").await {
        server.cli(&["COPY", &key, key.strip_prefix("snapshot:").unwrap(), "REPLACE"]).await;
    }
}

async fn spend(process: &Process, amount: u64, second: u64) {
    let id = held(&reserve(&process.credits, amount, second).await);
    assert_eq!(commit(&process.credits, id, amount, second).await, (amount, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_charged_after_lost_data_has_come_back_is_charged_in_the_ledger() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    spend(&process, 7, 0).await;
    keep_state(&server).await;
    for key in keys(&server, "tollgate:credits*").await {
        server.cli(&["DEL", &key]).await;
    }
    process.credits.close().await.unwrap();
    assert_eq!(ledger.balance(0).await, Balance::new(875, 118));
    go_back(&server).await;
    spend(&process, 3, 1).await;
    settled(&[&process], &ledger, 130, 10).await;
}

/// A replica takes over that lacks one reservation. When this is settled, the ledger is asked for what was charged until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_charged_after_a_replica_lacks_a_reservation_is_charged_in_the_ledger() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    spend(&process, 7, 0).await;
    keep_state(&server).await;
    let id = held(&reserve(&process.credits, 10, 0).await);
    go_back(&server).await;
    assert_eq!(commit(&process.credits, id, 5, 0).await, (5, 0));
    spend(&process, 3, 1).await;
    settled(&[&process], &ledger, 130, 15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_charged_on_a_loan_that_another_process_had_closed_is_charged_in_the_ledger() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let other = Process::start(&server.url(), &ledger, Loans::Always).await;
    spend(&process, 7, 0).await;
    keep_state(&server).await;
    // The instants of requests are the clock.
    assert_eq!(balance(&other.credits, 0).await, Balance::new(993, 0));
    assert!(other.credits.check("acme").await.unwrap().agrees);
    assert_eq!(ledger.balance(0).await, Balance::new(993, 0));
    go_back(&server).await;
    spend(&process, 3, 1).await;
    settled(&[&process, &other], &ledger, 130, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_charged_while_another_process_closes_what_was_open_again_is_charged_in_the_ledger() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let other = Process::start(&server.url(), &ledger, Loans::Always).await;
    spend(&process, 7, 0).await;
    keep_state(&server).await;
    ledger.set_slow(true);
    let calls = ledger.calls();
    let closing = tokio::spawn({
        let credits = other.credits.clone();
        async move { balance(&credits, 61).await }
    });
    until("the loan is being closed", async || (ledger.calls() > calls).then_some(())).await;
    go_back(&server).await;
    spend(&process, 3, 1).await;
    ledger.set_slow(false);
    closing.await.unwrap();
    settled(&[&process, &other], &ledger, 130, 10).await;
}

/// The process that closes a loan has died, or waits for the ledger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loan_that_is_being_closed_can_be_recalled() {
    let server = Server::start().await;
    let ledger = Ledger::granted(100).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let id = held(&reserve(&process.credits, 50, 0).await);
    assert_eq!(commit(&process.credits, id, 7, 0).await, (7, 0));
    let tag = server.cli(&["HGET", ACCOUNT, "loan"]).await;
    server.cli(&["HDEL", ACCOUNT, "loan"]).await;
    server.cli(&["HSET", ACCOUNT, &format!("closing:{tag}"), "2000000010000"]).await;
    let all = held(&reserve(&process.credits, 93, 0).await);
    assert_eq!(ledger.balance(0).await, Balance::new(0, 100));
    assert_eq!(commit(&process.credits, all, 93, 0).await, (93, 0));
    settled(&[&process], &ledger, 75, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_costs_more_and_makes_no_debt_recalls_no_loan() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let mut of_three_loans = Vec::new();
    for amount in [120, 100, 10] {
        of_three_loans.push(held(&reserve(&process.credits, amount, 0).await));
    }
    let costs = [(150, Excess::TakeAvailable), (300, Excess::Owe(500))];
    for (id, (actual, excess)) in of_three_loans.iter().zip(costs) {
        let settlement =
            settle(&process.credits, *id, SettleAction::Commit { actual, excess }, 0).await.unwrap();
        assert_eq!((settlement.charged, settlement.uncharged), (actual, 0));
        let calls = ledger.calls();
        spend(&process, 1, 0).await;
        assert_eq!(ledger.calls(), calls, "the last loan lends");
    }
    release(&process.credits, of_three_loans[2], 0).await;
    settled(&[&process], &ledger, 75, 452).await;
}

/// Otherwise one request a minute would wait for a call of the ledger for each process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_does_not_wait_until_the_loan_before_is_closed() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let settings = RedisSettings::new(server.url()).with_deadline(Duration::from_millis(500));
    let process = Process::with(settings, &ledger, Loans::Always).await;
    spend(&process, 7, 0).await;
    ledger.set_slow(true);
    let reserved = timeout(Duration::from_secs(10), reserve(&process.credits, 10, 61)).await;
    ledger.set_slow(false);
    let id = held(&reserved.unwrap());
    assert_eq!(commit(&process.credits, id, 3, 61).await, (3, 0));
    settled(&[&process], &ledger, 190, 10).await;
}

/// The loans of other processes, and those of this one before its settings were changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_borrows_nothing_recalls_and_closes_loans() {
    let server = Server::start().await;
    let ledger = Ledger::granted(100).await;
    let killed = Process::start(&server.url(), &ledger, Loans::Always).await;
    let other = Process::start(&server.url(), &ledger, Loans::Off).await;
    spend(&killed, 7, 0).await;
    assert_eq!(balance(&other.credits, 0).await, Balance::new(93, 0));
    let id = held(&reserve(&other.credits, 93, 0).await);
    release(&other.credits, id, 0).await;
    spend(&killed, 3, 0).await;
    killed.kill();
    closed_by_the_task(&other, &ledger, 90, 130).await;
}

/// Otherwise a server that is silent is asked longer than is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_requests_without_an_answer_end_the_connection() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    for _ in 0..5 {
        let settings = RedisSettings::new(server.url()).with_deadline(Duration::from_millis(200));
        let process = Process::with(settings, &ledger, Loans::Always).await;
        server.pause().await;
        for _ in 0..3 {
            held(&reserve(&process.credits, 1, 0).await);
        }
        assert!(!process.redis.is_up());
        server.resume().await;
    }
}

/// The client of a cluster sends a command again when a connection fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loan_that_is_opened_twice_stays_open_also_if_another_one_lends_by_then() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let one = held(&reserve(&process.credits, 120, 0).await);
    let tag = server.cli(&["HGET", ACCOUNT, "loan"]).await;
    let loan = server.cli(&["HGET", ACCOUNT, &format!("id:{tag}")]).await;
    let two = held(&reserve(&process.credits, 10, 0).await);
    let script = include_str!("../../../../crates/tollgate-redis/src/credits/loans.lua");
    let [open, record] = ["open", &tag].map(|last| format!("{ACCOUNT}:{last}"));
    let (now, until, day) = ("2000000000000", "2000000060000", "86400000");
    let keys = ["EVAL", script, "3", ACCOUNT, &open, &record];
    let again = ["open", now, &tag, &loan, "125", until, day, "", "875"];
    assert_eq!(
        server.cli(&[&keys[..], &again].concat()).await,
        "opened",
        "not `other`: it is not given back"
    );
    release(&process.credits, one, 0).await;
    release(&process.credits, two, 0).await;
    settled(&[&process], &ledger, 75, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_whose_answers_are_lost_lends_one_loan_in_10_seconds() {
    let server = Server::start().await;
    let ledger = Ledger::granted(8_000).await;
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(Process::start(&server.url(), &ledger, Loans::Always).await);
    }
    ledger.set_silent(true);
    for second in 0..20 {
        for process in &processes {
            process.credits.reserve(&request(1, second)).await.unwrap_err();
        }
    }
    ledger.set_silent(false);
    let Balance { reserved, .. } = ledger.balance(20).await;
    assert!((1_860..=2_000).contains(&reserved), "two loans, and 60 requests: {reserved}");
    spend(&processes[0], 7, 21).await;
    settled(&processes.iter().collect::<Vec<_>>(), &ledger, 1_400, 7).await;
}

/// Otherwise nothing is lent until the loan expires, 21 minutes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loan_is_opened_later_if_redis_has_not_answered() {
    for (is_killed, second) in [(false, 2), (true, 2), (true, 70)] {
        let mut server = Server::start().await;
        let ledger = Ledger::granted(1_000).await;
        let settings = RedisSettings::new(server.url()).with_deadline(Duration::from_millis(200));
        let process = Process::with(settings, &ledger, Loans::Always).await;
        ledger.set_late(true);
        let request = tokio::spawn({
            let credits = process.credits.clone();
            async move { reserve(&credits, 10, 0).await }
        });
        until("the loan is taken", async || (ledger.calls() > 0).then_some(())).await;
        server.pause().await;
        ledger.set_late(false);
        let of_ledger = held(&request.await.unwrap());
        assert_eq!(ledger.balance(0).await, Balance::new(865, 135));
        if is_killed {
            server.kill().await;
            until("it is down", async || (!process.redis.is_up()).then_some(())).await;
            server.restart().await;
        } else {
            server.resume().await;
        }
        process.until_up().await;
        let calls = ledger.calls();
        let next = held(&reserve(&process.credits, 20, second).await);
        // After a minute it lends no more, but its credits return.
        let is_lent = ledger.calls() == calls;
        assert_eq!(is_lent, second == 2, "killed: {is_killed}, second {second}");
        assert_eq!(commit(&process.credits, next, 3, second).await, (3, 0));
        assert_eq!(commit(&process.credits, of_ledger, 5, second).await, (5, 0));
        settled(&[&process], &ledger, 130, 8).await;
    }
}
