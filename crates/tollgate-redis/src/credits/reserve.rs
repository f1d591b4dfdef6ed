//! Reserves the credits of a request: from the loan that lends, else in the ledger.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::timeout;
use tollgate_core::{
    credits::{
        CreditLoans, Idempotency, Reservation, ReservationId, ReserveRequest, Reserved, SettleAction,
        SettleRequest, Settlement, Shortage, ShrinkRequest,
    },
    denial::Unavailable,
    key::Digest,
};

use super::{
    LENDING_TIME, SPARE_TIME, Shared,
    book::Loan,
    id::tag_of_loan,
    script::{Recalled, Reserving, millis},
};
use crate::redis_connection::SendError;

/// How long an account does not borrow after the ledger has not answered.
const PAUSE: Duration = Duration::from_secs(1);

/// In this time, in milliseconds, a loan is taken once in place of another one, or of none.
const TAKEN_ONCE_IN: u64 = 10_000;

/// A request to reserve that owns its texts.
pub(super) struct OwnRequest {
    pub(super) account: Box<str>,
    amount: u64,
    expires_at: SystemTime,
    idempotency: Option<(Box<str>, Digest)>,
    pub(super) now: SystemTime,
}

impl OwnRequest {
    pub(super) fn new(request: &ReserveRequest<'_>) -> Self {
        let ReserveRequest { account, amount, expires_at, idempotency, now, .. } = *request;
        let idempotency = idempotency.map(|asked| (asked.key.into(), asked.fingerprint));
        Self { account: account.into(), amount, expires_at, idempotency, now }
    }

    fn request(&self) -> ReserveRequest<'_> {
        let request = ReserveRequest::new(&self.account, self.amount, self.expires_at, self.now);
        match &self.idempotency {
            Some((key, fingerprint)) => request.with_idempotency(Idempotency::new(key, *fingerprint)),
            None => request,
        }
    }
}

/// An answer of Redis.
enum Taken {
    Reserved(Reserved),
    /// No loan suffices: this one does not, or there is none.
    TooLittle(Option<ReservationId>),
    /// It has not answered.
    Failed,
}

impl<L: CreditLoans> Shared<L> {
    pub(super) async fn reserve(self: &Arc<Self>, request: OwnRequest) -> Result<Reserved, Unavailable> {
        if self.can_be_lent(&request)
            && let Some(reserved) = self.reserve_from_loan(&request).await
        {
            return Ok(reserved);
        }
        self.reserve_in_ledger(&request).await
    }

    /// Idempotency keys are in the ledger, which remembers them also if Redis loses its data.
    fn can_be_lent(&self, request: &OwnRequest) -> bool {
        let has_time =
            request.now.checked_add(self.longest).is_some_and(|latest| request.expires_at <= latest);
        let is_plain = request.idempotency.is_none() && request.expires_at > request.now && has_time;
        is_plain && self.book().count_request(&request.account, request.now) && self.script.redis().is_up()
    }

    /// `None`: the ledger is to be asked.
    async fn reserve_from_loan(self: &Arc<Self>, request: &OwnRequest) -> Option<Reserved> {
        match self.take(request).await {
            Taken::Reserved(reserved) => return Some(reserved),
            Taken::Failed => return None,
            Taken::TooLittle(_) => {}
        }
        if !self.book().can_borrow(&request.account, request.amount, request.now) {
            return None;
        }
        let turn = self.book().turn(&request.account)?;
        let deadline = self.script.redis().settings().deadline;
        let _turn = timeout(deadline, turn.acquire()).await.ok()?.ok()?;
        // Loans that are not closed before they expire in the ledger could make a debt. The ledger is asked for each process that has charged,
        // so this request waits only for a part of it.
        let (shared, account, now) = (Arc::clone(self), request.account.clone(), request.now);
        let closing = async move { shared.close_ended(&account, now).await };
        let _ = timeout(deadline, self.script.redis().runtime().spawn(closing)).await;
        // The one whose turn it was before, or another process, may have borrowed.
        let seen = match self.take(request).await {
            Taken::Reserved(reserved) => return Some(reserved),
            Taken::Failed => return None,
            Taken::TooLittle(seen) => seen,
        };
        if !self.book().can_borrow(&request.account, request.amount, request.now) {
            return None;
        }
        self.borrow(request, seen).await?;
        match self.take(request).await {
            Taken::Reserved(reserved) => Some(reserved),
            _ => None,
        }
    }

    async fn take(&self, request: &OwnRequest) -> Taken {
        let redis = self.script.redis();
        let (deadline, connection) = (redis.settings().deadline, redis.number());
        timeout(deadline, self.take_from_loan(request)).await.unwrap_or_else(|_| {
            // The command was dropped in the moment in which it would have been late.
            redis.count_late(connection);
            Taken::Failed
        })
    }

    async fn take_from_loan(&self, request: &OwnRequest) -> Taken {
        let OwnRequest { account, amount, expires_at, now, .. } = request;
        // Another loan can take the place of this one, again and again.
        for _ in 0..3 {
            let loan = self.book().loan(account);
            let id = self.ids.of_loan(&loan.map(tag_of_loan).unwrap_or_default());
            if let Some(loan) = loan {
                self.book().reserve(id, account, loan, *amount, *expires_at);
            }
            let attempt = Attempt { shared: self, account, id, now: *now, is_over: false };
            match self.script.reserve(account, id, *amount, *expires_at, *now).await {
                Ok(Reserving::Held { left, available }) => {
                    attempt.succeed();
                    let available = available.saturating_add(left);
                    return Taken::Reserved(Reserved::Held(Reservation::new(id, *amount, available)));
                }
                Ok(Reserving::TooManyOpen) => {
                    attempt.fail();
                    return Taken::Reserved(Reserved::TooManyOpen);
                }
                Ok(Reserving::Used) => {
                    attempt.fail();
                    return Taken::TooLittle(loan);
                }
                Ok(Reserving::Other(other)) => {
                    attempt.fail();
                    self.book().set_loan(account, other);
                    if other.is_none() {
                        return Taken::TooLittle(None);
                    }
                }
                Err(SendError::Down) => {
                    attempt.fail();
                    return Taken::Failed;
                }
                Err(_) => return Taken::Failed,
            }
        }
        Taken::Failed
    }

    /// Takes a loan from the ledger, and opens it in Redis. `None`: the ledger lends nothing, or Redis does not answer.
    async fn borrow(&self, request: &OwnRequest, seen: Option<ReservationId>) -> Option<()> {
        let (account, now) = (&*request.account, request.now);
        let unanswered = self.book().unanswered_loan(account);
        let loan = match unanswered {
            Some(loan) => loan,
            None => self.take_loan(request, seen).await?,
        };
        match self.script.open(account, loan, seen, now).await {
            Ok(other) => {
                self.book().set_loan(account, Some(other.unwrap_or(loan.id)));
                self.book().set_unanswered_loan(account, None);
                // A loan that Redis has not answered at first is not released: a command that comes late could still open it.
                if other.is_some() && unanswered.is_none() {
                    let _ = self.release_loan(account, loan.id, now).await;
                }
                Some(())
            }
            Err(SendError::Down) if unanswered.is_none() => {
                let _ = self.release_loan(account, loan.id, now).await;
                None
            }
            Err(_) => {
                // It may be open. The next request that borrows asks again, so that at most one loan is lost.
                self.book().set_unanswered_loan(account, Some(loan));
                self.book().pause(account, now.checked_add(PAUSE)?);
                None
            }
        }
    }

    /// Reserves a loan in the ledger. `None`: the ledger has too little, or does not answer.
    async fn take_loan(&self, request: &OwnRequest, seen: Option<ReservationId>) -> Option<Loan> {
        let OwnRequest { account, amount, now, .. } = request;
        let known = self.book().available(account);
        let available = match known {
            Some(available) => available,
            None => self.ledger.balance(account, *now).await.ok()?.available,
        };
        let amount = self.book().size(available, *amount)?;
        let until = now.checked_add(LENDING_TIME)?;
        let expires_at = until.checked_add(self.longest + SPARE_TIME)?;
        // Of all processes, one takes the place of a loan that does not suffice. If the ledger takes loans and its answers are lost, the next one
        // is taken only after this time.
        let place = seen.map_or_else(|| "first".to_owned(), tag_of_loan);
        let key = format!("tollgate-loan-{place}-{}", millis(*now) / TAKEN_ONCE_IN);
        let idempotency = Idempotency::new(&key, Digest::of("loan"));
        let asked = ReserveRequest::new(account, amount, expires_at, *now).with_idempotency(idempotency);
        let taken = match self.ledger.reserve(&asked).await {
            Ok(Reserved::Held(taken)) => taken,
            Ok(Reserved::Insufficient(shortage)) => {
                self.record_shortage(account, &shortage);
                return None;
            }
            _ => {
                // It does not answer, or another process takes a loan. Requests that wait for their turn must not wait for it one after another.
                self.book().pause(account, now.checked_add(PAUSE)?);
                return None;
            }
        };
        self.book().set_available(account, taken.available);
        let loan = Loan {
            id: taken.id,
            amount,
            available: taken.available,
            until: millis(until),
            expires: millis(expires_at),
        };
        // Before it is open, so that a process which is killed in between leaves no charges behind. If this fails, the processes that use the
        // loan close it.
        let _ = self.script.list(account, loan).await;
        Some(loan)
    }

    /// Gives back what a loan still holds. If the ledger does not answer, the loan expires.
    pub(super) async fn release_loan(
        &self,
        account: &str,
        loan: ReservationId,
        now: SystemTime,
    ) -> Result<Settlement, Unavailable> {
        self.ledger.settle(&SettleRequest::new(account, loan, SettleAction::Release, now)).await
    }

    async fn reserve_in_ledger(&self, request: &OwnRequest) -> Result<Reserved, Unavailable> {
        // Others may take what was recalled.
        let mut recalls = 3;
        loop {
            let reserved = self.ledger.reserve(&request.request()).await?;
            let shortage = match &reserved {
                Reserved::Insufficient(shortage) => *shortage,
                Reserved::Held(held) => {
                    self.book().set_available(&request.account, held.available);
                    return Ok(reserved);
                }
                _ => return Ok(reserved),
            };
            self.record_shortage(&request.account, &shortage);
            // What is lent pays a debt first.
            let has_debt = shortage.owed > 0;
            let missing = shortage.needed.saturating_sub(shortage.available).max(1);
            let least = if has_debt { 1 } else { missing };
            let left = self.recall(&request.account, least, has_debt, request.now).await;
            if left < least || recalls == 0 {
                let available = shortage.available.saturating_add(left);
                let shortage = Shortage::new(available, shortage.needed).with_debt(shortage.owed);
                return Ok(Reserved::Insufficient(shortage));
            }
            recalls -= 1;
        }
    }

    fn record_shortage(&self, account: &str, shortage: &Shortage) {
        let available = if shortage.owed > 0 { 0 } else { shortage.available };
        self.book().set_available(account, available);
    }

    /// Gives what the loans of an account can lend back to the ledger, if it is at least so much, and keeps them from lending, then or
    /// `in_any_case`. Returns what they could lend.
    pub(super) async fn recall(&self, account: &str, least: u64, in_any_case: bool, now: SystemTime) -> u64 {
        if !self.script.redis().is_up() {
            return 0;
        }
        let Ok((left, loans)) = self.script.recall(account, least, in_any_case, now).await else { return 0 };
        for Recalled { loan, holds, returns } in loans {
            let shrunk = self.ledger.shrink(&ShrinkRequest::new(account, loan, holds, now)).await;
            // Until Redis has this, other requests repeat it.
            if shrunk.is_ok() {
                let _ = self.script.returned(account, loan, returns, now).await;
            }
        }
        left
    }
}

/// An attempt to reserve. Dropped, it releases what Redis may have reserved.
struct Attempt<'s, L: CreditLoans> {
    shared: &'s Shared<L>,
    account: &'s str,
    id: ReservationId,
    now: SystemTime,
    is_over: bool,
}

impl<L: CreditLoans> Attempt<'_, L> {
    fn succeed(mut self) {
        self.is_over = true;
        self.shared.book().reserved(self.id, self.now);
    }

    /// Redis has reserved nothing.
    fn fail(mut self) {
        self.is_over = true;
        self.shared.book().forget(self.id);
    }
}

impl<L: CreditLoans> Drop for Attempt<'_, L> {
    fn drop(&mut self) {
        if !self.is_over {
            // The keeper sends it.
            self.shared.book().request_settlement(self.account, self.id, SettleAction::Release, self.now);
        }
    }
}
