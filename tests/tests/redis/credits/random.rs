//! Random calls of three processes, while Redis loses its data and does not answer.

use tests::redis::Redis as Server;
use tollgate::credits::{Excess, ReservationId, Reserved, SettleAction, Settlement};
use tollgate_redis::Loans;

use super::setup::{Ledger, Process, balance, release, reserve, settle, settled};

/// A small generator, so that a seed repeats a run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

struct Open {
    process: usize,
    id: ReservationId,
    amount: u64,
}

/// What is available, reserved and charged is what was granted. Nothing is sold twice, and no settlement is lost.
async fn random_calls(seed: u64, calls: usize, losses: u64) {
    let server = Server::start().await;
    let mut random = Random(seed);
    let granted = 20_000;
    let ledger = Ledger::granted(granted).await;
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(Process::start(&server.url(), &ledger, Loans::Always).await);
    }
    let (mut open, mut done): (Vec<Open>, Vec<Settlement>) = (Vec::new(), Vec::new());
    let (mut charged, mut second, mut lost) = (0, 0, 0);
    for call in 0..calls {
        let process = usize::try_from(random.below(3)).unwrap();
        let credits = &processes[process].credits;
        match random.below(100) {
            0..45 => {
                let amount = random.below(30);
                match reserve(credits, amount, second).await {
                    Reserved::Held(held) => open.push(Open { process, id: held.id, amount }),
                    Reserved::Insufficient(shortage) => {
                        assert!(lost > 0 || shortage.available < amount, "{shortage:?}");
                    }
                    other => panic!("{other:?}"),
                }
            }
            45..90 if !open.is_empty() => {
                let at = usize::try_from(random.below(open.len() as u64)).unwrap();
                let Open { process, id, amount } = open.swap_remove(at);
                let actual = random.below(40);
                let excess = if random.below(4) == 0 { Excess::TakeAvailable } else { Excess::Cap };
                let credits = &processes[process].credits;
                if random.below(5) == 0 {
                    release(credits, id, second).await;
                } else {
                    let action = SettleAction::Commit { actual, excess };
                    let settlement = settle(credits, id, action, second).await.unwrap();
                    assert!(
                        settlement.charged >= actual.min(amount),
                        "call {call}: {settlement:?} of {amount}"
                    );
                    assert_eq!(settlement.charged + settlement.uncharged, actual);
                    assert!(excess != Excess::Cap || settlement.charged <= amount);
                    charged += settlement.charged;
                    done.push(settlement);
                }
            }
            90..94 if !done.is_empty() && lost == 0 => {
                // It has lost the answer, or another one asks.
                let settlement = done[usize::try_from(random.below(done.len() as u64)).unwrap()];
                let again = settle(credits, settlement.id, SettleAction::Release, second).await.unwrap();
                assert_eq!(again, settlement);
            }
            // Within the time of the reservations.
            94..97 if open.is_empty() || random.below(10) == 0 => {
                for Open { process, id, .. } in open.drain(..) {
                    release(&processes[process].credits, id, second).await;
                }
                second += random.below(90);
            }
            97 if random.below(100) < losses => {
                server.flush().await;
                lost += 1;
            }
            _ => {}
        }
        if random.below(20) == 0 {
            let held: u64 = open.iter().map(|open| open.amount).sum();
            let balance = balance(credits, second).await;
            assert_eq!(balance.owed, 0);
            let sum = balance.available + held + charged;
            assert!(sum <= granted, "call {call}: {balance:?}, {held} held, {charged} charged");
            assert!(
                lost > 0 || sum == granted && balance.reserved == held,
                "call {call}: {balance:?}, {held} held"
            );
        }
    }
    for Open { process, id, .. } in open {
        release(&processes[process].credits, id, second).await;
    }
    eprintln!(
        "seed {seed}: {} settlements, {charged} charged, {lost} losses, {} calls of the ledger",
        done.len(),
        ledger.calls()
    );
    settled(&processes.iter().collect::<Vec<_>>(), &ledger, second + 3_000, charged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_calls_lose_no_settlement() {
    for seed in 1..=tests::cases(3, 100) {
        random_calls(seed.into(), 1_500, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_calls_with_losses_lose_no_settlement() {
    for seed in 1..=tests::cases(6, 200) {
        random_calls(seed.into(), 1_500, 60).await;
    }
}
