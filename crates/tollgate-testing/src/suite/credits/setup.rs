//! A store of credits with a clock, and short forms of its calls.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tollgate::{
    clock::{Clock as _, ManualClock},
    credits::{
        Balance, ChargeLentRequest, CreditAdmin, CreditAdminError, CreditLoans, EntryKind, Excess, Grant,
        GrantId, Idempotency, LedgerEntry, LedgerQuery, NewGrant, Reservation, ReservationId, ReserveRequest,
        Reserved, SettleAction, SettleRequest, Settlement, ShrinkRequest, WithdrawGrant,
    },
    key::Digest,
    manage::{Actor, Command},
};

use crate::at;

pub(super) struct Setup {
    pub(super) credits: Arc<dyn CreditAdmin>,
    /// The same store, in the suite for stores with loans.
    pub(super) loans: Option<Arc<dyn CreditLoans>>,
    pub(super) clock: ManualClock,
    pub(super) random_calls: usize,
}

/// How long the reservations of these tests last.
pub(super) const HOLD: Duration = Duration::from_secs(60);

impl Setup {
    pub(super) fn new(credits: Arc<dyn CreditAdmin>, random_calls: usize) -> Self {
        Self { credits, loans: None, clock: ManualClock::at(at(0)), random_calls }
    }

    pub(super) fn with_loans(credits: Arc<impl CreditAdmin + CreditLoans>, random_calls: usize) -> Self {
        Self { loans: Some(credits.clone()), ..Self::new(credits, random_calls) }
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(super) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(super) async fn try_grant(&self, new: NewGrant) -> Result<Grant, CreditAdminError> {
        self.credits.grant(Command::new(new, root(), self.now())).await
    }

    pub(super) async fn grant(&self, new: NewGrant) -> Grant {
        self.try_grant(new).await.unwrap()
    }

    pub(super) async fn try_withdraw(&self, account: &str, id: &str) -> Result<Grant, CreditAdminError> {
        self.credits.withdraw(Command::new(WithdrawGrant::new(account, id), root(), self.now())).await
    }

    pub(super) async fn reserve(&self, account: &str, amount: u64) -> Reserved {
        let now = self.now();
        self.credits.reserve(&ReserveRequest::new(account, amount, now + HOLD, now)).await.unwrap()
    }

    /// Reserves for a request with this idempotency key, whose fingerprint is the digest of `request`.
    pub(super) async fn reserve_once(
        &self,
        account: &str,
        amount: u64,
        key: &str,
        request: &str,
    ) -> Reserved {
        let now = self.now();
        let idempotency = Idempotency::new(key, Digest::of(request));
        let asked = ReserveRequest::new(account, amount, now + HOLD, now).with_idempotency(idempotency);
        self.credits.reserve(&asked).await.unwrap()
    }

    pub(super) async fn hold(&self, account: &str, amount: u64) -> ReservationId {
        held(&self.reserve(account, amount).await).id
    }

    pub(super) async fn settle(&self, account: &str, id: ReservationId, action: SettleAction) -> Settlement {
        self.credits.settle(&SettleRequest::new(account, id, action, self.now())).await.unwrap()
    }

    /// Commits, and charges at most what was reserved. Returns what was charged and what was not.
    pub(super) async fn commit(&self, account: &str, id: ReservationId, actual: u64) -> (u64, u64) {
        self.commit_with(account, id, actual, Excess::Cap).await
    }

    pub(super) async fn commit_with(
        &self,
        account: &str,
        id: ReservationId,
        actual: u64,
        excess: Excess,
    ) -> (u64, u64) {
        let settlement = self.settle(account, id, SettleAction::Commit { actual, excess }).await;
        assert_eq!(settlement.id, id);
        (settlement.charged, settlement.uncharged)
    }

    pub(super) async fn release(&self, account: &str, id: ReservationId) -> (u64, u64) {
        let settlement = self.settle(account, id, SettleAction::Release).await;
        (settlement.charged, settlement.uncharged)
    }

    pub(super) async fn shrink(&self, account: &str, loan: ReservationId, amount: u64) {
        self.loans().shrink(&ShrinkRequest::new(account, loan, amount, self.now())).await.unwrap();
    }

    /// Charges what was lent. `amounts` are what was lent, and the actual cost. Returns what was charged and what was not.
    pub(super) async fn charge_lent(
        &self,
        account: &str,
        id: ReservationId,
        loan: Option<ReservationId>,
        [lent, actual]: [u64; 2],
        excess: Excess,
    ) -> (u64, u64) {
        let mut request = ChargeLentRequest::new(account, id, lent, actual, self.now()).with_excess(excess);
        request.loan = loan;
        let settlement = self.loans().charge_lent(&request).await.unwrap();
        assert_eq!(settlement.id, id);
        (settlement.charged, settlement.uncharged)
    }

    pub(super) async fn charged(&self, account: &str, id: ReservationId) -> u64 {
        self.loans().charged(account, id, self.now()).await.unwrap()
    }

    fn loans(&self) -> &dyn CreditLoans {
        self.loans.as_deref().unwrap()
    }

    pub(super) async fn balance(&self, account: &str) -> Balance {
        self.credits.balance(account, self.now()).await.unwrap()
    }

    /// What is available, reserved and owed. Also asserts that the ledger agrees.
    pub(super) async fn amounts(&self, account: &str) -> [u64; 3] {
        // Before the balance, which is a use of the account, and would pay a debt that a call has left unpaid.
        let stored = self.credits.check(account).await.unwrap();
        assert!(stored.available == 0 || stored.owed == 0, "a debt was not paid: {stored:?}");
        let Balance { available, reserved, owed, .. } = self.balance(account).await;
        let check = self.credits.check(account).await.unwrap();
        assert!(check.agrees, "the account and its ledger differ: {check:?}");
        assert_eq!((check.available, check.owed), (available, owed));
        assert_eq!(check.net_by_ledger, signed(available) - signed(owed));
        [available, reserved, owed]
    }

    pub(super) async fn available(&self, account: &str) -> u64 {
        self.amounts(account).await[0]
    }

    /// The grants that have not ended, as identifiers with what is left, in the order in which they are spent.
    pub(super) async fn grants(&self, account: &str) -> Vec<(GrantId, u64)> {
        let grants = self.credits.grants(account, self.now()).await.unwrap();
        grants.into_iter().map(|grant| (grant.id, grant.remaining)).collect()
    }

    /// All entries of the ledger, the oldest first.
    pub(super) async fn ledger(&self, account: &str) -> Vec<LedgerEntry> {
        let mut entries = Vec::new();
        let mut query = LedgerQuery::new(account);
        loop {
            let page = self.credits.ledger(&query).await.unwrap();
            entries.extend(page.items);
            let Some(next) = page.next else { break };
            query = query.with_after(next);
        }
        entries.reverse();
        entries
    }

    /// The kinds and the amounts in the ledger, the oldest first.
    pub(super) async fn changes(&self, account: &str) -> Vec<(EntryKind, i64)> {
        self.ledger(account).await.iter().map(|entry| (entry.kind, entry.amount)).collect()
    }
}

/// The actor who may do everything.
pub(super) fn root() -> Actor {
    Actor::new("root")
}

#[track_caller]
pub(super) fn held(reserved: &Reserved) -> Reservation {
    match reserved {
        Reserved::Held(reservation) => reservation.clone(),
        other => panic!("expected a reservation, got {other:?}"),
    }
}

pub(super) fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap()
}
