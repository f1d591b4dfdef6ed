//! Redis loses its data, processes are killed, and both do not answer.

use std::time::{Duration, Instant};

use tests::{
    redis::{Redis as Server, Setup},
    relay::{Direction, Relay},
};
use tollgate::credits::{Balance, Credits as _, Excess, Reserved, SettleAction};
use tollgate_redis::{Loans, RedisSettings};

use super::setup::{Ledger, Process, at, balance, commit, held, release, reserve, settle, settled};
use crate::{patient, until};

/// The steps of two processes that share a loan. Before one of them, something is lost.
async fn steps_with_a_loss_before(step: u32, mut lose: impl AsyncFnMut(&mut Server, &[&Process])) {
    let mut server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let [one, two] = [
        Process::start(&server.url(), &ledger, Loans::Always).await,
        Process::start(&server.url(), &ledger, Loans::Always).await,
    ];
    let mut charged = 0;
    let mut open = Vec::new();
    for number in 0..=6 {
        if number == step {
            lose(&mut server, &[&one, &two]).await;
        }
        match number {
            0 => open.extend([
                held(&reserve(&one.credits, 10, 0).await),
                held(&reserve(&one.credits, 20, 0).await),
            ]),
            1 => open.extend([
                held(&reserve(&two.credits, 30, 1).await),
                held(&reserve(&two.credits, 40, 1).await),
            ]),
            2 => charged += commit(&one.credits, open[0], 4, 2).await.0,
            3 => charged += commit(&two.credits, open[2], 99, 3).await.0,
            4 => release(&one.credits, open[1], 4).await,
            5 => {
                let take = SettleAction::Commit { actual: 50, excess: Excess::TakeAvailable };
                charged += settle(&two.credits, open[3], take, 5).await.unwrap().charged;
            }
            // Loans lend no more, and are closed.
            _ => drop(balance(&one.credits, 90).await),
        }
        let balance = balance(&one.credits, 5).await;
        assert!(balance.available + charged <= 1_000 && balance.owed == 0, "step {number}: {balance:?}");
    }
    assert_eq!(charged, 4 + 30 + 50, "a loss before step {step} changes no settlement");
    // A loan that was lost expires 12 minutes after it was taken, and its credits return.
    settled(&[&one, &two], &ledger, 3_000, charged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_redis_loses_before_any_step_loses_no_settlement() {
    for step in 0..=6 {
        eprintln!("deleted before step {step}");
        steps_with_a_loss_before(step, async |server, _| server.flush().await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_before_any_step_loses_no_settlement() {
    for step in 0..=6 {
        eprintln!("killed before step {step}");
        steps_with_a_loss_before(step, async |server, processes| {
            let before = processes[0].redis.is_up();
            assert!(before);
            server.kill().await;
            for process in processes {
                until("it is down", async || (!process.redis.is_up()).then_some(())).await;
            }
            server.restart().await;
            for process in processes {
                process.until_up().await;
            }
        })
        .await;
    }
}

/// What a killed process has charged is in Redis. Another one closes the loan, even one that is started later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_loses_no_settlement() {
    for step in 0..8 {
        let server = Server::start().await;
        let ledger = Ledger::granted(1_000).await;
        let process = Process::start(&server.url(), &ledger, Loans::Always).await;
        let mut charged = 0;
        if step % 4 >= 1 {
            let [one, two] = [
                held(&reserve(&process.credits, 10, 0).await),
                held(&reserve(&process.credits, 20, 0).await),
            ];
            if step % 4 >= 2 {
                charged += commit(&process.credits, one, 7, 1).await.0;
            }
            if step % 4 >= 3 {
                release(&process.credits, two, 1).await;
            }
        }
        process.kill();
        let other = Process::start(&server.url(), &ledger, Loans::Always).await;
        // In the latter half of the cases, the loan has expired long ago.
        let second = if step < 4 { 130 } else { 20 * 3_600 };
        closed_by_the_task(&other, &ledger, 1_000 - charged, second).await;
    }
}

/// Waits until the task of a process has closed all loans of `acme`, which the process does not use.
pub(super) async fn closed_by_the_task(process: &Process, ledger: &Ledger, available: u64, second: u64) {
    process.credits.balance("another account", at(second)).await.unwrap();
    until("the task closes the loans", async || {
        (ledger.balance(second).await == Balance::new(available, 0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_closes_the_loans_that_it_has_used_also_if_they_are_not_listed() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let id = held(&reserve(&process.credits, 10, 0).await);
    assert_eq!(commit(&process.credits, id, 7, 0).await, (7, 0));
    assert_eq!(server.cli(&["DEL", "tollgate:credits"]).await, "1");
    closed_by_the_task(&process, &ledger, 993, 130).await;
}

/// The bound: the charges of a loan, in favour of the customer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_after_redis_lost_its_data_loses_at_most_what_it_has_charged_on_a_loan() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let [killed, other] = [
        Process::start(&server.url(), &ledger, Loans::Always).await,
        Process::start(&server.url(), &ledger, Loans::Always).await,
    ];
    let [one, two] =
        [held(&reserve(&killed.credits, 10, 0).await), held(&reserve(&other.credits, 20, 0).await)];
    assert_eq!(commit(&killed.credits, one, 10, 0).await, (10, 0));
    killed.kill();
    server.flush().await;
    assert_eq!(commit(&other.credits, two, 20, 0).await, (20, 0));
    settled(&[&other], &ledger, 3_000, 20).await;
    assert_eq!(ledger.balance(3_000).await, Balance::new(980, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_silent_requests_reserve_in_the_ledger_and_settlements_wait() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let settings = RedisSettings::new(server.url()).with_deadline(Duration::from_millis(300));
    let process = Process::with(settings, &ledger, Loans::Always).await;
    let [one, two] =
        [held(&reserve(&process.credits, 10, 0).await), held(&reserve(&process.credits, 10, 0).await)];
    assert_eq!(ledger.balance(0).await, Balance::new(875, 125));
    server.pause().await;
    let mut late = Vec::new();
    let mut waited = 0;
    for _ in 0..20 {
        let asked = Instant::now();
        late.push(held(&reserve(&process.credits, 10, 0).await));
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        waited += u32::from(asked.elapsed() > Duration::from_millis(200));
    }
    assert!(waited <= 5, "{waited} requests have waited");
    assert_eq!(ledger.balance(0).await, Balance::new(675, 325));
    for id in late {
        assert_eq!(commit(&process.credits, id, 1, 0).await, (1, 0));
    }
    let commit_seven = SettleAction::Commit { actual: 7, excess: Excess::Cap };
    settle(&process.credits, one, commit_seven, 0).await.unwrap_err();
    // The first one wins also if Redis has not answered it.
    settle(&process.credits, one, SettleAction::Release, 0).await.unwrap_err();
    server.resume().await;
    process.until_up().await;
    until("the settlement is made", async || {
        (balance(&process.credits, 0).await == Balance::new(963, 10)).then_some(())
    })
    .await;
    assert_eq!(commit(&process.credits, one, 9, 0).await, (7, 0));
    release(&process.credits, two, 0).await;
    settled(&[&process], &ledger, 130, 27).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_settled_while_redis_is_down_is_charged_when_it_is_back_without_its_data() {
    let mut server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(held(&reserve(&process.credits, 10, 0).await));
    }
    assert_eq!(commit(&process.credits, open[0], 10, 0).await, (10, 0));
    server.kill().await;
    until("it is down", async || (!process.redis.is_up()).then_some(())).await;
    for id in &open[1..] {
        let action = SettleAction::Commit { actual: 3, excess: Excess::Cap };
        settle(&process.credits, *id, action, 0).await.unwrap_err();
    }
    server.restart().await;
    process.until_up().await;
    // Nobody asks again.
    until("all is charged", async || (ledger.balance(0).await.reserved == 125 - 10 - 9 * 3).then_some(()))
        .await;
    settled(&[&process], &ledger, 3_000, 37).await;
}

/// The answers of Redis are lost, although it has done what it was asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_whose_answer_was_lost_is_made_once() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let mut relay = Relay::to(server.address());
    let settings = RedisSettings::new(relay.reroute(&server.url())).with_deadline(Duration::from_millis(500));
    let process = Process::with(settings, &ledger, Loans::Always).await;
    let watching = Process::start(&server.url(), &ledger, Loans::Always).await;
    let id = held(&reserve(&process.credits, 10, 0).await);
    relay.delay(Direction::FromUpstream, Duration::from_secs(30));
    let action = SettleAction::Commit { actual: 7, excess: Excess::Cap };
    let (asked, made) = tokio::join!(
        settle(&process.credits, id, action, 0),
        until("Redis has settled it", async || {
            (balance(&watching.credits, 0).await == Balance::new(993, 0)).then_some(())
        })
    );
    asked.unwrap_err();
    let () = made;
    relay.cut().await;
    relay.delay(Direction::FromUpstream, Duration::ZERO);
    relay.mend();
    process.until_up().await;
    until("it is answered", async || {
        settle(&process.credits, id, SettleAction::Release, 0)
            .await
            .ok()
            .filter(|settled| settled.charged == 7)
    })
    .await;
    settled(&[&process, &watching], &ledger, 130, 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loan_is_closed_when_the_ledger_is_back() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let id = held(&reserve(&process.credits, 10, 0).await);
    ledger.set_down(true);
    let lent = held(&reserve(&process.credits, 10, 0).await);
    assert_eq!(commit(&process.credits, id, 7, 0).await, (7, 0));
    release(&process.credits, lent, 0).await;
    process.credits.reserve(&super::setup::request(200, 0)).await.unwrap_err();
    let calls = ledger.calls();
    process.credits.reserve(&super::setup::request(1, 61)).await.unwrap_err();
    until("it was tried to close the loan", async || (ledger.calls() > calls + 1).then_some(())).await;
    ledger.set_down(false);
    // Another process may take over 10 seconds later.
    settled(&[&process], &ledger, 75, 7).await;
}

/// One of them takes a loan. The others ask the ledger until it is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_borrow_at_the_same_time_share_one_loan() {
    let server = Server::start().await;
    for round in 0..5 {
        server.flush().await;
        let ledger = Ledger::granted(8_000).await;
        let mut processes = Vec::new();
        for _ in 0..4 {
            processes.push(Process::with(patient(server.url().into()), &ledger, Loans::Always).await);
        }
        let asked = processes.iter().map(|process| reserve(&process.credits, 10, 0));
        let reserved = futures_util::future::join_all(asked).await;
        assert!(reserved.iter().all(|reserved| matches!(reserved, Reserved::Held(_))), "{reserved:?}");
        let Balance { available, reserved, .. } = ledger.balance(0).await;
        let is_one_loan = (1_000..=1_030).contains(&reserved);
        assert!(available + reserved == 8_000 && is_one_loan, "round {round}: {reserved}");
    }
}

/// A request that has outlived its reservation is settled while its loan is being closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_settlement_is_charged_also_while_its_loan_is_closed() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let [one, late] =
        [held(&reserve(&process.credits, 10, 0).await), held(&reserve(&process.credits, 10, 0).await)];
    assert_eq!(commit(&process.credits, one, 7, 0).await, (7, 0));
    ledger.set_slow(true);
    let calls = ledger.calls();
    let closing = tokio::spawn({
        let credits = process.credits.clone();
        async move { balance(&credits, 61).await }
    });
    until("the loan is being closed", async || (ledger.calls() > calls).then_some(())).await;
    let calls = ledger.calls();
    let settling = tokio::spawn({
        let credits = process.credits.clone();
        async move { commit(&credits, late, 5, 61).await }
    });
    until("it is charged in the ledger", async || (ledger.calls() > calls).then_some(())).await;
    ledger.set_slow(false);
    assert_eq!(settling.await.unwrap(), (5, 0));
    closing.await.unwrap();
    settled(&[&process], &ledger, 75, 12).await;
}

/// A replica that takes over may not have the latest charges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn charges_that_a_replica_lacks_are_made_by_the_process_that_has_their_answers() {
    for [has_later_charge, is_closed_by_its_task] in [[true, true], [false, true], [false, false]] {
        let server = Server::start().await;
        let ledger = Ledger::granted(1_000).await;
        let process = Process::start(&server.url(), &ledger, Loans::Always).await;
        let [one, two] =
            [held(&reserve(&process.credits, 10, 0).await), held(&reserve(&process.credits, 10, 0).await)];
        assert_eq!(commit(&process.credits, one, 7, 0).await, (7, 0));
        let fields = server.cli(&["HKEYS", "tollgate:credits:{acme}"]).await;
        let field = |kind: &str| fields.lines().find(|field| field.starts_with(kind)).unwrap().to_owned();
        server.cli(&["HSET", "tollgate:credits:{acme}", &field("charged:"), "2"]).await;
        server.cli(&["HSET", "tollgate:credits:{acme}", &field("left:"), "110"]).await;
        let later = if has_later_charge { 3 } else { 0 };
        assert_eq!(commit(&process.credits, two, later, 0).await, (later, 0));
        if is_closed_by_its_task {
            closed_by_the_task(&process, &ledger, 993 - later, 130).await;
        } else {
            settled(&[&process], &ledger, 130, 7 + later).await;
        }
    }
}

/// A settlement was made, its answer was lost, the loan was closed, and then Redis lost its data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_without_an_answer_is_charged_once_also_if_its_loan_is_closed_and_lost() {
    for earlier in [0, 3] {
        let server = Server::start().await;
        let ledger = Ledger::granted(1_000).await;
        let mut relay = Relay::to(server.address());
        let settings =
            RedisSettings::new(relay.reroute(&server.url())).with_deadline(Duration::from_millis(500));
        let process = Process::with(settings, &ledger, Loans::Always).await;
        let other = Process::start(&server.url(), &ledger, Loans::Always).await;
        let [one, two] =
            [held(&reserve(&process.credits, 10, 0).await), held(&reserve(&process.credits, 10, 0).await)];
        assert_eq!(commit(&process.credits, one, earlier, 0).await, (earlier, 0));
        relay.delay(Direction::FromUpstream, Duration::from_secs(30));
        let action = SettleAction::Commit { actual: 7, excess: Excess::Cap };
        settle(&process.credits, two, action, 0).await.unwrap_err();
        relay.cut().await;
        until("another process closes the loan", async || {
            let _ = other.credits.balance("acme", at(61)).await;
            (ledger.balance(61).await == Balance::new(993 - earlier, 0)).then_some(())
        })
        .await;
        server.flush().await;
        relay.delay(Direction::FromUpstream, Duration::ZERO);
        relay.mend();
        process.until_up().await;
        until("it is answered", async || settle(&process.credits, two, action, 61).await.ok()).await;
        settled(&[&process, &other], &ledger, 75, 7 + earlier).await;
    }
}

/// The last process gives back what it can before it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_in_order_closes_its_loans() {
    let server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let [one, two] =
        [held(&reserve(&process.credits, 10, 0).await), held(&reserve(&process.credits, 10, 0).await)];
    assert_eq!(commit(&process.credits, one, 7, 0).await, (7, 0));
    process.credits.close().await.unwrap_err();
    assert_eq!(ledger.balance(0).await, Balance::new(983, 17), "one request is not settled");
    assert_eq!(commit(&process.credits, two, 2, 0).await, (2, 0));
    process.credits.close().await.unwrap();
    assert_eq!(ledger.balance(0).await, Balance::new(991, 0));
}

/// Whether a loan is open is not certain, if Redis answers with an error. One loan waits for its expiry then, and no other follows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_opens_no_loan_costs_one() {
    let permissions =
        "~tollgate:* +ping +eval +evalsha +hget +hexists +hlen +hgetall +zrangebyscore +exists +pttl";
    let server = Server::start_with(Setup::default().with_user("credits", "s3cret", permissions)).await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let mut open = Vec::new();
    for second in 0..20 {
        open.push(held(&reserve(&process.credits, 10, second).await));
    }
    assert_eq!(ledger.balance(20).await, Balance::new(675, 325), "125 of a loan, and 200");
    for id in open {
        assert_eq!(commit(&process.credits, id, 3, 20).await, (3, 0));
    }
    settled(&[&process], &ledger, 1_260, 60).await;
}

/// A service and its Redis often end at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_in_order_charges_also_what_redis_has_lost() {
    let mut server = Server::start().await;
    let ledger = Ledger::granted(1_000).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let id = held(&reserve(&process.credits, 10, 0).await);
    assert_eq!(commit(&process.credits, id, 7, 0).await, (7, 0));
    server.kill().await;
    until("it is down", async || (!process.redis.is_up()).then_some(())).await;
    let error = process.credits.close().await.unwrap_err().to_string();
    assert!(
        error.contains("0 settlements have no answer, and the ledger has not charged 1 loans"),
        "{error}"
    );
    server.restart().await;
    process.until_up().await;
    process.credits.close().await.unwrap();
    let Balance { available, reserved, .. } = ledger.balance(0).await;
    assert_eq!(available + reserved, 993);
}

/// Redis is started again with a snapshot, or a replica takes over that lacks the latest changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_back_to_an_older_state_sells_nothing_for_free() {
    for is_closed_before in [false, true] {
        let server = Server::start().await;
        let ledger = Ledger::granted(1_000).await;
        let process = Process::start(&server.url(), &ledger, Loans::Always).await;
        let mut charged = 0;
        for amount in [7, 50] {
            if amount == 50 {
                let keys = server.cli(&["KEYS", "tollgate:credits*"]).await;
                for key in keys.lines() {
                    server.cli(&["COPY", key, &format!("snapshot:{key}")]).await;
                }
            }
            let id = held(&reserve(&process.credits, amount, 0).await);
            charged += commit(&process.credits, id, amount, 0).await.0;
        }
        if is_closed_before {
            process.credits.close().await.unwrap();
            assert_eq!(ledger.balance(0).await, Balance::new(1_000 - charged, 0));
        }
        for key in server.cli(&["KEYS", "snapshot:*"]).await.lines() {
            let original = key.strip_prefix("snapshot:").unwrap();
            server.cli(&["COPY", key, original, "REPLACE"]).await;
        }
        let id = held(&reserve(&process.credits, 100, 1).await);
        charged += commit(&process.credits, id, 100, 1).await.0;
        assert_eq!(charged, 157);
        settled(&[&process], &ledger, 130, charged).await;
    }
}

/// The caller that has recalled what is lent fails before the ledger has it. The next one repeats it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_recalled_and_does_not_return_is_recalled_again() {
    let server = Server::start().await;
    let ledger = Ledger::granted(100).await;
    let process = Process::start(&server.url(), &ledger, Loans::Always).await;
    let long = held(&reserve(&process.credits, 50, 0).await);
    let short = held(&reserve(&process.credits, 50, 0).await);
    release(&process.credits, short, 0).await;
    let fields = server.cli(&["HKEYS", "tollgate:credits:{acme}"]).await;
    for field in fields.lines().filter(|field| field.starts_with("left:")) {
        let left = server.cli(&["HGET", "tollgate:credits:{acme}", field]).await;
        server.cli(&["HSET", "tollgate:credits:{acme}", field, "0"]).await;
        server.cli(&["HSET", "tollgate:credits:{acme}", &field.replace("left:", "back:"), &left]).await;
    }
    server.cli(&["HDEL", "tollgate:credits:{acme}", "loan"]).await;
    let third = held(&reserve(&process.credits, 50, 0).await);
    release(&process.credits, third, 0).await;
    assert_eq!(commit(&process.credits, long, 50, 0).await, (50, 0));
    settled(&[&process], &ledger, 130, 50).await;
}
