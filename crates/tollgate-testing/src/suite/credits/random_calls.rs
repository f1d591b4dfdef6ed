//! Random calls of two accounts, compared with the [model](super::model).

use std::time::{Duration, UNIX_EPOCH};

use tollgate::{
    credits::{
        EntryKind, Excess, Idempotency, NewGrant, Refill, ReservationId, ReserveRequest, Reserved,
        SettleAction, SettleRequest,
    },
    key::Digest,
};

use super::{
    model::{Expected, Model, ModelGrant},
    setup::{Setup, signed},
};
use crate::{
    at,
    suite::{random::Random, steps},
};

/// The calls of two accounts. Then two new accounts follow, some days later than these began.
const CALLS_OF_TWO: usize = 250;
const DAYS_BETWEEN: u64 = 9;

pub(super) async fn random_calls_have_the_same_results_as_in_the_model(setup: &Setup) {
    let mut random = Random::with_seed(5);
    let calls = steps(setup.random_calls, setup.random_calls * 10);
    for (round, first) in (0..calls).step_by(CALLS_OF_TWO).enumerate() {
        setup.clock.set(at(round as u64 % 4_000 * DAYS_BETWEEN * 86_400));
        let mut accounts = ["a", "b"].map(|name| Account {
            name: format!("{name}{first}"),
            model: Model::default(),
            held: Vec::new(),
        });
        for call in first..(first + CALLS_OF_TWO).min(calls) {
            let index = usize::from(random.one_in(2));
            let others = accounts[1 - index].held.clone();
            if random.one_in(100) {
                sweep(setup, &mut accounts).await;
            } else {
                accounts[index].call(setup, &mut random, &others).await;
            }
            accounts[index].compare(setup, &mut random, call).await;
        }
        for account in &mut accounts {
            account.compare_ledger(setup).await;
        }
    }
}

struct Account {
    name: String,
    model: Model,
    /// All reservations that were answered.
    held: Vec<ReservationId>,
}

impl Account {
    /// Makes one call, and then perhaps the same call again: its caller has lost the answer.
    async fn call(&mut self, setup: &Setup, random: &mut Random, others: &[ReservationId]) {
        let is_repeated = random.one_in(5);
        match random.below(19) {
            0..=2 => self.grant(setup, random, is_repeated).await,
            3 => self.withdraw(setup, random, is_repeated).await,
            4..=9 => self.reserve(setup, random, is_repeated).await,
            10..=14 => self.settle(setup, random, is_repeated, others).await,
            15 if setup.loans.is_some() => self.use_loan(setup, random, is_repeated).await,
            _ => advance(setup, random),
        }
    }

    async fn grant(&mut self, setup: &Setup, random: &mut Random, is_repeated: bool) {
        let now = seconds(setup);
        let amount = 1 + random.below(9);
        let id = random.pick(&["g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8"]);
        let refill = match random.below(6) {
            0 => Some(Refill::Daily),
            1 => Some(Refill::Monthly { day: random.pick(&[1, 15, 29, 30, 31]) }),
            _ => None,
        };
        let mut new = NewGrant::new(&*self.name, amount).with_id(id);
        let mut grant = ModelGrant::new(amount, now, refill);
        grant.priority = i32::try_from(random.below(3)).unwrap();
        new = new.with_priority(grant.priority);
        if let Some(refill) = refill {
            new = new.with_refill(refill);
        }
        if random.one_in(3) {
            let lasts = random.pick(&[30, 3_600, 86_400, 60 * 86_400]);
            grant.expires_at = Some(now + lasts);
            new = new.with_expiry(UNIX_EPOCH + Duration::from_secs(now + lasts));
        }
        for _ in 0..=u8::from(is_repeated) {
            let granted = setup.grant(new.clone()).await;
            self.model.grant(id, grant.clone());
            let expected = &self.model.grants[id];
            assert_eq!(
                (&*granted.id, granted.amount, granted.refill),
                (id, expected.amount, expected.refill)
            );
            assert_eq!(granted.granted_at, UNIX_EPOCH + Duration::from_secs(expected.granted_at));
        }
    }

    async fn withdraw(&mut self, setup: &Setup, random: &mut Random, is_repeated: bool) {
        let ids: Vec<_> = self.model.grants.keys().cloned().collect();
        if ids.is_empty() {
            return;
        }
        let id = &ids[usize::try_from(random.below(ids.len() as u64)).unwrap()];
        for _ in 0..=u8::from(is_repeated) {
            let withdrawn = setup.try_withdraw(&self.name, id).await.unwrap();
            assert_eq!(withdrawn.remaining, 0);
            self.model.withdraw(id, seconds(setup));
        }
    }

    async fn reserve(&mut self, setup: &Setup, random: &mut Random, is_repeated: bool) {
        let (now, amount) = (seconds(setup), random.below(13));
        let expires_at = now + random.pick(&[1, 30, 60, 60, 600, 7_200]);
        let key = random.one_in(3).then(|| {
            (random.pick(&["k1", "k2", "k3"]).to_owned(), random.pick(&["scan", "scan", "batch"]).to_owned())
        });
        let end = UNIX_EPOCH + Duration::from_secs(expires_at);
        let mut request = ReserveRequest::new(&self.name, amount, end, setup.now());
        if let Some((key, of_request)) = &key {
            request = request.with_idempotency(Idempotency::new(key, Digest::of(of_request)));
        }
        for _ in 0..=u8::from(is_repeated) {
            let expected = self.model.expect(amount, key.as_ref(), now);
            match (setup.credits.reserve(&request).await.unwrap(), expected) {
                (Reserved::Held(held), Expected::Held { available }) => {
                    assert_eq!((held.amount, held.available), (amount, available));
                    self.held.push(held.id);
                    self.model.hold(held.id, amount, expires_at, key.clone());
                }
                (Reserved::Insufficient(shortage), Expected::Insufficient { available }) => {
                    assert_eq!((shortage.available, shortage.needed), (available, amount));
                }
                (Reserved::Repeated(settlement), Expected::Repeated { id, charged, uncharged }) => {
                    let repeated = (settlement.id, settlement.charged, settlement.uncharged);
                    assert_eq!(repeated, (id, charged, uncharged));
                }
                (Reserved::InProgress, Expected::InProgress) | (Reserved::KeyReused, Expected::KeyReused) => {
                }
                (answer, expected) => panic!("expected {expected:?}, got {answer:?}"),
            }
        }
    }

    /// Settles one of the latest reservations, whatever has become of it, or one of the other account. A reservation that is not
    /// chosen in time is one whose process has crashed.
    async fn settle(
        &mut self,
        setup: &Setup,
        random: &mut Random,
        is_repeated: bool,
        others: &[ReservationId],
    ) {
        let from = if random.one_in(15) { others } else { &self.held };
        let latest = &from[from.len().saturating_sub(6)..];
        if latest.is_empty() {
            return;
        }
        let id = random.pick(latest);
        let excess = match random.below(4) {
            0 => Excess::TakeAvailable,
            1 => Excess::Owe(random.below(16)),
            _ => Excess::Cap,
        };
        let action = match random.below(4) {
            0 => SettleAction::Release,
            _ => SettleAction::Commit { actual: random.below(16), excess },
        };
        for _ in 0..=u8::from(is_repeated) {
            let expected = self.model.settle(id, action, seconds(setup));
            let settlement =
                setup.credits.settle(&SettleRequest::new(&self.name, id, action, setup.now())).await.unwrap();
            assert_eq!(
                (settlement.id, settlement.charged, settlement.uncharged),
                (id, expected.0, expected.1)
            );
        }
    }

    /// Shrinks one of the latest reservations, or charges a request to which it was lent.
    async fn use_loan(&mut self, setup: &Setup, random: &mut Random, is_repeated: bool) {
        let latest = &self.held[self.held.len().saturating_sub(6)..];
        if latest.is_empty() {
            return;
        }
        let loan = random.pick(latest);
        let number = u128::from(random.below(u64::MAX)) << 64 | u128::from(random.below(u64::MAX));
        let id = if random.one_in(8) { random.pick(latest) } else { ReservationId::from_number(number) };
        let [lent, actual, amount] = [random.below(8), random.below(12), random.below(8)];
        let excess = random.pick(&[Excess::Cap, Excess::Cap, Excess::TakeAvailable, Excess::Owe(6)]);
        let is_shrunk = random.one_in(2);
        for _ in 0..=u8::from(is_repeated) {
            let now = seconds(setup);
            if is_shrunk {
                self.model.shrink(loan, amount, now);
                setup.shrink(&self.name, loan, amount).await;
                continue;
            }
            let expected = self.model.charge_lent(id, loan, lent, (actual, excess), now);
            let charged = setup.charge_lent(&self.name, id, Some(loan), [lent, actual], excess).await;
            assert_eq!(charged, expected);
            assert_eq!(setup.charged(&self.name, id).await, charged.0);
        }
        if !is_shrunk && !self.held.contains(&id) {
            self.held.push(id);
        }
    }

    /// A comparison of the balance is a use of the account, which is left out at times: then several changes are due at the next use.
    async fn compare(&mut self, setup: &Setup, random: &mut Random, call: usize) {
        if random.one_in(2) {
            return;
        }
        self.model.at(seconds(setup));
        let balance = setup.balance(&self.name).await;
        let expected = (self.model.available(), self.model.reserved(), self.model.owed);
        assert_eq!((balance.available, balance.reserved, balance.owed), expected, "after call {call}");
        assert_eq!(
            self.model.made,
            self.model.available() + self.model.reserved() + self.model.spent + self.model.gone,
            "the model itself has made or lost credits"
        );
        assert_eq!(self.model.charged, self.model.spent + self.model.owed, "after call {call}");
        if random.one_in(10) {
            setup.amounts(&self.name).await;
            let grants = setup.grants(&self.name).await;
            let grants: Vec<_> = grants.into_iter().map(|(id, left)| (id.into_string(), left)).collect();
            assert_eq!(grants, self.model.live(), "after call {call}");
        }
    }

    /// The ledger has as many credits of each kind as the model.
    async fn compare_ledger(&mut self, setup: &Setup) {
        self.model.at(seconds(setup));
        let [available, reserved, owed] = setup.amounts(&self.name).await;
        let ledger = setup.ledger(&self.name).await;
        let sum = |kinds: &[EntryKind]| -> i64 {
            ledger.iter().filter(|entry| kinds.contains(&entry.kind)).map(|entry| entry.amount).sum()
        };
        assert_eq!(sum(&[EntryKind::Granted, EntryKind::Refilled]), signed(self.model.made));
        assert_eq!(sum(&[EntryKind::Lapsed, EntryKind::Withdrawn]), -signed(self.model.gone));
        assert_eq!(sum(&[EntryKind::Repaid]), 0);
        let used = sum(&[EntryKind::Reserved, EntryKind::Returned, EntryKind::Charged, EntryKind::Owed]);
        assert_eq!(used, -signed(self.model.spent + reserved + owed));
        assert_eq!(sum(&EntryKind::ALL), signed(available) - signed(owed));
    }
}

/// A sweep is a use of all accounts in which a reservation or a grant has expired. It may be one of others, too.
async fn sweep(setup: &Setup, accounts: &mut [Account; 2]) {
    for account in accounts {
        if !account.model.is_due(seconds(setup)) {
            setup.balance(&account.name).await;
        }
        account.model.at(seconds(setup));
    }
    setup.credits.sweep(setup.now()).await.unwrap();
}

/// The clock's instant, in seconds since 1970.
fn seconds(setup: &Setup) -> u64 {
    setup.now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn advance(setup: &Setup, random: &mut Random) {
    let most = match random.below(20) {
        0 => 70 * 86_400,
        1..=2 => 3 * 86_400,
        3..=6 => 7_200,
        _ => 90,
    };
    setup.advance(random.below(most));
}
