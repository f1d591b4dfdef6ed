//! What this process has to remember of the credits that it borrows: there is no input and output here, and no clock.
//!
//! Redis may lose its data at any time. So the process remembers its open reservations, and what it has charged on each loan until the ledger
//! has it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::Semaphore;
use tollgate_core::{
    bounds::SETTLEMENT_KEPT,
    credits::{ReservationId, SettleAction},
};

use super::{
    LENDING_TIME, Loans,
    script::{Settled, millis},
};

/// How many reservations of loans are remembered at most. More requests reserve in the ledger.
const MOST_OPEN: usize = 100_000;

/// How many accounts are remembered at most. Others reserve in the ledger.
const MOST_ACCOUNTS: usize = 10_000;

/// How often, with so many accounts, those that are no longer used are removed.
const REMOVE_EVERY: Duration = Duration::from_secs(1);

/// An account with so many requests in this time borrows.
const BUSY: u32 = 10;
const BUSY_TIME: Duration = Duration::from_secs(10);

/// A loan is this part of what is available.
const SHARE: u64 = 8;

/// A loan suffices for so many requests at least, with [`Loans::Auto`].
const LEAST_REQUESTS: u64 = 16;

#[derive(Debug)]
pub(super) struct Book {
    kind: Loans,
    accounts: HashMap<Box<str>, Account>,
    /// No account is added until then, because there are already [`MOST_ACCOUNTS`].
    full_until: u64,
    open: HashMap<ReservationId, OpenReservation>,
    /// Those of them whose callers have asked for a settlement.
    requested: HashSet<ReservationId>,
    loans: HashMap<ReservationId, UsedLoan>,
}

/// A loan that was taken from the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loan {
    pub(super) id: ReservationId,
    pub(super) amount: u64,
    /// What the ledger had beside it.
    pub(super) available: u64,
    /// Until when it lends, in milliseconds.
    pub(super) until: u64,
    /// When the ledger has its credits again, in milliseconds.
    pub(super) expires: u64,
}

#[derive(Debug)]
struct Account {
    /// The loan that lends, by the last answer of Redis.
    loan: Option<ReservationId>,
    /// A loan of which Redis has not answered whether it is open.
    unanswered_loan: Option<Loan>,
    /// What the ledger had at the last answer.
    available: Option<u64>,
    /// The requests since an instant, and whether there were many in the time before.
    since: u64,
    requests: u32,
    was_busy: bool,
    /// One request at a time borrows.
    turn: Arc<Semaphore>,
    /// Until then, none does.
    paused_until: u64,
}

/// A reservation of a loan that this process has made, and not settled.
#[derive(Clone, Debug)]
pub(super) struct OpenReservation {
    pub(super) account: Arc<str>,
    pub(super) loan: ReservationId,
    pub(super) amount: u64,
    expires: u64,
    /// The settlement that its first caller has requested.
    pub(super) requested: Option<(SettleAction, SystemTime)>,
    /// What Redis has answered to that. The ledger does not have the rest yet.
    pub(super) answer: Option<Settled>,
    /// What the ledger had charged before this settlement, if Redis has lost the loan.
    charged_before: Option<u64>,
}

/// A loan on which this process has reserved.
#[derive(Debug)]
struct UsedLoan {
    account: Arc<str>,
    /// What this process has charged on it, as far as Redis has answered.
    charged: u64,
    /// What the ledger has charged of that, since the loan was closed or lost.
    in_ledger: Option<u64>,
    since: u64,
}

impl Book {
    pub(super) fn new(kind: Loans) -> Self {
        Self {
            kind,
            accounts: HashMap::new(),
            full_until: 0,
            open: HashMap::new(),
            requested: HashSet::new(),
            loans: HashMap::new(),
        }
    }

    /// Counts a request. Returns whether it is to be lent its credits.
    pub(super) fn count_request(&mut self, account: &str, now: SystemTime) -> bool {
        if self.kind == Loans::Off || self.open.len() >= MOST_OPEN {
            return false;
        }
        let now = millis(now);
        if !self.accounts.contains_key(account) && self.accounts.len() >= MOST_ACCOUNTS {
            // To look through all accounts takes long.
            if now < self.full_until {
                return false;
            }
            self.accounts.retain(|_, account| account.is_in_use(now));
            if self.accounts.len() >= MOST_ACCOUNTS {
                self.full_until = now.saturating_add(millis_of(REMOVE_EVERY));
                return false;
            }
        }
        let is_busy = self.accounts.entry(account.into()).or_insert_with(Account::new).count(now);
        is_busy || self.kind == Loans::Always
    }

    /// The loan that lends, by the last answer of Redis.
    pub(super) fn loan(&self, account: &str) -> Option<ReservationId> {
        self.accounts.get(account)?.loan
    }

    pub(super) fn set_loan(&mut self, account: &str, loan: Option<ReservationId>) {
        if let Some(account) = self.accounts.get_mut(account) {
            account.loan = loan;
        }
    }

    pub(super) fn unanswered_loan(&self, account: &str) -> Option<Loan> {
        self.accounts.get(account)?.unanswered_loan
    }

    pub(super) fn set_unanswered_loan(&mut self, account: &str, loan: Option<Loan>) {
        if let Some(account) = self.accounts.get_mut(account) {
            account.unanswered_loan = loan;
        }
    }

    pub(super) fn turn(&self, account: &str) -> Option<Arc<Semaphore>> {
        self.accounts.get(account).map(|account| Arc::clone(&account.turn))
    }

    /// No request borrows until then.
    pub(super) fn pause(&mut self, account: &str, until: SystemTime) {
        if let Some(account) = self.accounts.get_mut(account) {
            account.paused_until = millis(until);
        }
    }

    /// Whether it is worth asking for a loan.
    pub(super) fn can_borrow(&mut self, account: &str, amount: u64, now: SystemTime) -> bool {
        let now = millis(now);
        let Some(account) = self.accounts.get_mut(account) else { return false };
        if now < account.paused_until {
            return false;
        }
        account.unanswered_loan = account.unanswered_loan.filter(|loan| now < loan.expires);
        // Until it is open, or its credits return, no other one is taken, so that at most one is lost.
        let (is_taken, available) = (account.unanswered_loan.is_some(), account.available);
        is_taken || available.is_none_or(|available| self.size(available, amount).is_some())
    }

    pub(super) fn available(&self, account: &str) -> Option<u64> {
        self.accounts.get(account)?.available
    }

    pub(super) fn set_available(&mut self, account: &str, available: u64) {
        if let Some(account) = self.accounts.get_mut(account) {
            account.available = Some(available);
        }
    }

    /// How much to borrow for requests of this amount. `None`: too little is available.
    pub(super) fn size(&self, available: u64, amount: u64) -> Option<u64> {
        let share = (available / SHARE).min(tollgate_core::bounds::MAX_CREDITS);
        match self.kind {
            Loans::Off => None,
            Loans::Auto => (share >= amount.max(1).saturating_mul(LEAST_REQUESTS)).then_some(share),
            Loans::Always => (available >= amount.max(1)).then_some(share.max(amount).max(1)),
        }
    }

    /// Remembers a reservation before Redis is asked for it.
    pub(super) fn reserve(
        &mut self,
        id: ReservationId,
        account: &str,
        loan: ReservationId,
        amount: u64,
        expires_at: SystemTime,
    ) {
        let (account, expires) = (account.into(), millis(expires_at));
        let open = OpenReservation {
            account,
            loan,
            amount,
            expires,
            requested: None,
            answer: None,
            charged_before: None,
        };
        self.open.insert(id, open);
    }

    /// Redis has made a reservation.
    pub(super) fn reserved(&mut self, id: ReservationId, now: SystemTime) {
        if let Some(open) = self.open.get(&id) {
            let used = UsedLoan {
                account: Arc::clone(&open.account),
                charged: 0,
                in_ledger: None,
                since: millis(now),
            };
            self.loans.entry(open.loan).or_insert(used);
        }
    }

    /// Redis has not made a reservation, or it is settled.
    pub(super) fn forget(&mut self, id: ReservationId) {
        self.open.remove(&id);
        self.requested.remove(&id);
    }

    /// Remembers how an open reservation of this process is to be settled. The first request counts.
    pub(super) fn request_settlement(
        &mut self,
        account: &str,
        id: ReservationId,
        action: SettleAction,
        now: SystemTime,
    ) -> Option<OpenReservation> {
        let open = self.open.get_mut(&id).filter(|open| &*open.account == account)?;
        open.requested.get_or_insert((action, now));
        self.requested.insert(id);
        Some(open.clone())
    }

    /// Redis has settled a reservation of this process, which remembers that until the ledger has charged the rest.
    pub(super) fn answered(&mut self, id: ReservationId, settled: Settled) {
        // The first answer counts, if several tasks have asked.
        if let Some(open) = self.open.get_mut(&id).filter(|open| open.answer.is_none()) {
            open.answer = Some(settled);
            let used = UsedLoan { account: Arc::clone(&open.account), charged: 0, in_ledger: None, since: 0 };
            self.loans.entry(open.loan).or_insert(used).charged += settled.charged;
        }
    }

    /// A reservation of this process that is not settled.
    pub(super) fn open(&self, id: ReservationId) -> Option<OpenReservation> {
        self.open.get(&id).cloned()
    }

    /// What this process has charged on a loan, as far as Redis has answered.
    pub(super) fn charged(&self, loan: ReservationId) -> u64 {
        self.loans.get(&loan).map_or(0, |used| used.charged)
    }

    /// The ledger has charged so much for this process on a loan that is closed, or that Redis does not have.
    pub(super) fn set_in_ledger(&mut self, loan: ReservationId, charged: u64) {
        if let Some(used) = self.loans.get_mut(&loan) {
            // Several tasks may ask the ledger, and the answers come in any order.
            used.in_ledger = Some(charged.max(used.in_ledger.unwrap_or(0)));
            if let Some(account) = self.accounts.get_mut(&*used.account)
                && account.loan == Some(loan)
            {
                account.loan = None;
            }
        }
    }

    /// How much of a settlement the ledger has charged before, with such a loan: it may have charged more than what Redis has answered. Then it
    /// has charged settlements without an answer, and they take from the difference, each one once.
    pub(super) fn take_charged_before(&mut self, id: ReservationId, most: u64) -> u64 {
        let Some(open) = self.open.get_mut(&id) else { return 0 };
        if let Some(taken) = open.charged_before {
            return taken;
        }
        let Some(used) = self.loans.get_mut(&open.loan) else { return 0 };
        let taken = used.in_ledger.unwrap_or(0).saturating_sub(used.charged).min(most);
        used.charged += taken;
        open.charged_before = Some(taken);
        taken
    }

    /// The settlements that are requested and not complete.
    pub(super) fn requested_settlements(&self) -> Vec<(ReservationId, Arc<str>, SettleAction, SystemTime)> {
        let requested = self.requested.iter().filter_map(|id| {
            let open = self.open.get(id)?;
            open.requested.map(|(action, now)| (*id, Arc::clone(&open.account), action, now))
        });
        requested.collect()
    }

    /// The loans that are to be closed, or of which the ledger does not have all charges: those that lend no more, and all of them if Redis
    /// may have lost its data.
    pub(super) fn to_close(&self, now: SystemTime, all: bool) -> Vec<(ReservationId, Arc<str>)> {
        let now = millis(now);
        let is_to_close = |id: ReservationId, used: &UsedLoan| {
            let is_old = now >= used.since.saturating_add(millis_of(LENDING_TIME));
            let has_ended = all || is_old || self.loan(&used.account) != Some(id);
            used.in_ledger.map_or(has_ended, |charged| charged < used.charged)
        };
        let found = self.loans.iter().filter(|(id, used)| is_to_close(**id, used));
        found.map(|(id, used)| (*id, Arc::clone(&used.account))).collect()
    }

    /// The accounts whose loans this process has used.
    pub(super) fn borrowers(&self) -> BTreeSet<Arc<str>> {
        self.loans.values().map(|used| Arc::clone(&used.account)).collect()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.requested.is_empty()
    }

    /// How many loans have charges of this process that the ledger does not have.
    pub(super) fn uncharged(&self) -> usize {
        self.loans.values().filter(|used| used.in_ledger.unwrap_or(0) < used.charged).count()
    }

    /// Forgets reservations that can no longer be settled, accounts that are not used, and loans that the ledger has charged.
    pub(super) fn tidy(&mut self, now: SystemTime) {
        let now = millis(now);
        self.open.retain(|_, open| now < open.expires.saturating_add(millis_of(SETTLEMENT_KEPT)));
        self.requested.retain(|id| self.open.contains_key(id));
        self.accounts.retain(|_, account| account.is_in_use(now));
        // A server that goes back to an older state lends a closed loan again, until its time is over. What is then charged on it must be
        // seen to be new.
        let is_named: HashSet<_> = self.open.values().map(|open| open.loan).collect();
        self.loans.retain(|id, used| {
            let is_charged = used.in_ledger.is_some_and(|charged| charged >= used.charged);
            let may_lend = now < used.since.saturating_add(2 * millis_of(LENDING_TIME));
            !is_charged || may_lend || is_named.contains(id)
        });
    }
}

impl Account {
    fn new() -> Self {
        let turn = Arc::new(Semaphore::new(1));
        Self {
            loan: None,
            unanswered_loan: None,
            available: None,
            since: 0,
            requests: 0,
            was_busy: false,
            turn,
            paused_until: 0,
        }
    }

    /// Counts a request. Returns whether there are many.
    fn count(&mut self, now: u64) -> bool {
        let passed = now.saturating_sub(self.since);
        if passed >= millis_of(BUSY_TIME) || now < self.since {
            self.was_busy = self.requests >= BUSY && passed < 2 * millis_of(BUSY_TIME);
            (self.since, self.requests) = (now, 0);
        }
        self.requests = self.requests.saturating_add(1);
        self.was_busy || self.requests >= BUSY
    }

    fn is_in_use(&self, now: u64) -> bool {
        now < self.since.saturating_add(3 * millis_of(BUSY_TIME))
            || now < self.paused_until
            || self.unanswered_loan.is_some_and(|loan| now < loan.expires)
            || Arc::strong_count(&self.turn) > 1
    }
}

fn millis_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use tollgate_core::credits::Excess;

    use super::*;

    const LOAN: ReservationId = ReservationId::from_number(1);
    const ID: ReservationId = ReservationId::from_number(2);

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(2_000_000_000 + second)
    }

    fn settled(charged: u64) -> Settled {
        Settled { charged, promised: 0, beyond: 0, actual: charged, excess: Excess::Cap }
    }

    fn reserved(amount: u64) -> Book {
        let mut book = Book::new(Loans::Always);
        book.reserve(ID, "acme", LOAN, amount, at(60));
        book.reserved(ID, at(0));
        book
    }

    #[test]
    fn an_account_is_lent_to_while_it_is_busy() {
        let mut book = Book::new(Loans::Auto);
        let lent: Vec<_> = (0..12).map(|_| book.count_request("acme", at(0))).collect();
        assert_eq!(lent.iter().filter(|is_lent| **is_lent).count(), 3, "from the tenth request on: {lent:?}");
        assert!(!book.count_request("other", at(0)));
        assert!(book.count_request("acme", at(10)), "it was busy until now");
        assert!(!book.count_request("acme", at(20)), "it had one request in 10 seconds");
        assert!(Book::new(Loans::Always).count_request("acme", at(0)));
        assert!(!Book::new(Loans::Off).count_request("acme", at(0)));
    }

    #[test]
    fn accounts_that_are_not_used_are_forgotten_and_there_are_at_most_10_000() {
        let mut book = Book::new(Loans::Always);
        assert!((0..MOST_ACCOUNTS).all(|number| book.count_request(&number.to_string(), at(0))));
        assert!(!book.count_request("one more", at(0)));
        assert!(!book.count_request("one more", at(0)), "not each request looks through all of them");
        assert_eq!(book.full_until, millis(at(1)));
        assert!(book.count_request("0", at(0)));
        assert!(book.count_request("one more", at(30)));
        assert_eq!(book.accounts.len(), 1);
        book.pause("one more", at(90));
        book.tidy(at(89));
        assert!(!book.can_borrow("one more", 1, at(89)) && book.can_borrow("one more", 1, at(90)));
        book.tidy(at(90));
        assert_eq!(book.accounts.len(), 0);
    }

    #[test]
    fn a_loan_is_an_eighth_and_suffices_for_16_requests() {
        let auto = Book::new(Loans::Auto);
        assert_eq!([auto.size(1_280, 10), auto.size(1_279, 10), auto.size(0, 0)], [Some(160), None, None]);
        let always = Book::new(Loans::Always);
        assert_eq!(
            [always.size(80, 4), always.size(80, 40), always.size(80, 81)],
            [Some(10), Some(40), None]
        );
        assert_eq!([always.size(1, 0), always.size(0, 0)], [Some(1), None]);
    }

    #[test]
    fn the_first_requested_settlement_and_the_first_answer_count() {
        let mut book = reserved(10);
        let commit = SettleAction::Commit { actual: 7, excess: Excess::Cap };
        assert!(book.request_settlement("other", ID, commit, at(1)).is_none());
        assert!(book.is_settled());
        for action in [commit, SettleAction::Release] {
            assert_eq!(
                book.request_settlement("acme", ID, action, at(2)).and_then(|open| open.requested),
                Some((commit, at(2)))
            );
        }
        assert_eq!(book.requested_settlements().len(), 1);
        for _ in 0..2 {
            book.answered(ID, settled(7));
        }
        assert_eq!((book.charged(LOAN), book.uncharged()), (7, 1));
        assert!(!book.is_settled(), "the ledger may have to charge a rest");
        book.forget(ID);
        assert!(book.is_settled() && book.requested_settlements().is_empty());

        let mut book = reserved(10);
        assert!(book.request_settlement("acme", ID, commit, at(1)).is_some());
        book.tidy(at(60) + SETTLEMENT_KEPT);
        assert!(book.is_settled(), "it can no longer be settled");
    }

    #[test]
    fn what_the_ledger_has_charged_without_an_answer_is_taken_once() {
        let mut book = reserved(10);
        book.set_in_ledger(LOAN, 4);
        // A task that has asked earlier comes later.
        book.set_in_ledger(LOAN, 0);
        assert_eq!([book.take_charged_before(ID, 7), book.take_charged_before(ID, 7)], [4, 4]);
        assert_eq!(book.charged(LOAN), 4);
        let other = ReservationId::from_number(3);
        book.reserve(other, "acme", LOAN, 10, at(60));
        assert_eq!(book.take_charged_before(other, 7), 0);
    }

    #[test]
    fn a_loan_is_to_be_closed_when_it_lends_no_more() {
        let mut book = Book::new(Loans::Always);
        book.count_request("acme", at(0));
        book.set_loan("acme", Some(LOAN));
        book.reserve(ID, "acme", LOAN, 10, at(60));
        book.reserved(ID, at(0));
        assert_eq!(book.to_close(at(59), false), []);
        assert_eq!(book.to_close(at(59), true).len(), 1);
        assert_eq!(book.to_close(at(60), false).len(), 1);
        book.set_loan("acme", None);
        assert_eq!(book.to_close(at(1), false).len(), 1);
        book.set_in_ledger(LOAN, 0);
        assert_eq!(book.to_close(at(1), true), []);
        book.answered(ID, settled(7));
        assert_eq!(book.to_close(at(1), false).len(), 1, "an answer has come after the ledger was asked");
    }

    #[test]
    fn a_closed_loan_is_remembered_while_it_can_be_lent_again_and_while_a_request_holds_it() {
        let mut book = reserved(10);
        book.set_in_ledger(LOAN, 0);
        book.tidy(at(200));
        assert_eq!(book.loans.len(), 1, "a request holds it");
        book.answered(ID, settled(7));
        book.forget(ID);
        book.tidy(at(200));
        assert_eq!(book.loans.len(), 1, "the ledger does not have all");
        book.set_in_ledger(LOAN, 7);
        book.tidy(at(119));
        assert_eq!(book.loans.len(), 1, "it can be lent again");
        book.tidy(at(120));
        assert_eq!(book.loans.len(), 0);
    }
}
