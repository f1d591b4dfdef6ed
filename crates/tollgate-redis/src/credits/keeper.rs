//! The task that closes loans, and repeats settlements that Redis has not answered.

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};
use tollgate_core::{
    credits::{CreditLoans, ReservationId},
    denial::Unavailable,
};

use super::{
    Shared,
    id::{of_charge, tag_of_loan},
    script::{Closing, Lent},
};

/// How often settlements are repeated.
const TICK: Duration = Duration::from_millis(250);

/// How many ticks are between two attempts to close the loans of this process, and those of all.
const TICKS_OF_OWN: u64 = 4;
const TICKS_OF_ALL: u64 = 40;

/// How many calls wait for their replies at the same time.
const MOST_CALLS: usize = 32;

/// Ends when no handle is left, and all settlements are answered.
pub(super) async fn keep<L: CreditLoans>(shared: Arc<Shared<L>>, handle: Weak<()>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number: u64 = 0;
    let mut connection = shared.script.redis().number();
    loop {
        ticks.tick().await;
        let now = shared.clock.now();
        if handle.strong_count() == 0 && shared.book().is_settled() {
            return;
        }
        let (of_own, of_all) = (number.is_multiple_of(TICKS_OF_OWN), number.is_multiple_of(TICKS_OF_ALL));
        number += 1;
        if of_all {
            shared.book().tidy(now);
        }
        if !shared.script.redis().is_up() {
            continue;
        }
        shared.repeat_settlements().await;
        // A new connection may be to a server that has lost its data.
        let present = shared.script.redis().number();
        if of_own || present != connection {
            shared.close_own(now, present != connection).await;
            connection = present;
        }
        if of_all {
            shared.close_listed(now).await;
        }
    }
}

impl<L: CreditLoans> Shared<L> {
    async fn repeat_settlements(&self) {
        let requested = self.book().requested_settlements();
        for some in requested.chunks(MOST_CALLS) {
            let calls =
                some.iter().map(|(id, account, action, now)| self.settle(account, *id, *action, *now));
            // If none succeeds, the others have to wait, too.
            if join_all(calls).await.iter().all(Result::is_err) {
                return;
            }
        }
    }

    async fn close_own(&self, now: SystemTime, all: bool) {
        let loans = self.book().to_close(now, all);
        for some in loans.chunks(MOST_CALLS) {
            let calls = some.iter().map(|(loan, account)| self.close_used(account, *loan, now));
            for closed in join_all(calls).await {
                log(closed);
            }
        }
    }

    /// The loans that are to be closed of all processes, also of those that have ended.
    async fn close_listed(&self, now: SystemTime) {
        let Ok(loans) = self.script.listed(now).await else { return };
        for some in loans.chunks(MOST_CALLS) {
            let calls = some.iter().map(|(tag, account)| self.close(account, tag, now));
            let closed = join_all(calls).await;
            let has_failed = closed.iter().all(Result::is_err);
            for closed in closed {
                log(closed.map(drop));
            }
            // If none succeeds, the others have to wait, too.
            if has_failed {
                return;
            }
        }
    }

    async fn close_used(
        &self,
        account: &str,
        loan: ReservationId,
        now: SystemTime,
    ) -> Result<(), Unavailable> {
        match self.close(account, &tag_of_loan(loan), now).await? {
            Closing::Begun(_, charged) | Closing::Done(charged) => {
                let own = charged.iter().find(|(process, _)| *process == self.ids.process);
                let own = own.map_or(0, |(_, charged)| *charged);
                // A replica that took over, or an older state of the server, may not have all that this process has charged.
                if own < self.book().charged(loan) {
                    self.charge_own(account, loan, now).await?;
                } else {
                    self.book().set_in_ledger(loan, own);
                }
            }
            Closing::Unknown => self.charge_own(account, loan, now).await?,
            Closing::Open => {}
        }
        Ok(())
    }

    /// Closes the loans of an account that have ended. Returns the others. `None` if Redis does not answer.
    pub(super) async fn close_ended(&self, account: &str, now: SystemTime) -> Option<Lent> {
        let lent = self.look(account, now).await?;
        if lent.to_close().next().is_none() {
            return Some(lent);
        }
        for tag in lent.to_close() {
            log(self.close(account, tag, now).await.map(drop));
        }
        self.look(account, now).await
    }

    /// The loans of an account. `None` if Redis does not answer.
    pub(super) async fn look(&self, account: &str, now: SystemTime) -> Option<Lent> {
        if !self.script.redis().is_up() {
            return None;
        }
        self.script.look(account, now).await.ok()
    }

    /// Settles what is not settled, and recalls the loans that this process has used.
    ///
    /// # Errors
    /// If Redis or the ledger does not answer.
    pub(super) async fn end(&self) -> Result<(), Unavailable> {
        let now = self.clock.now();
        self.repeat_settlements().await;
        let accounts = self.book().borrowers();
        for account in accounts {
            self.recall_and_close(&account, now).await;
        }
        self.close_own(now, true).await;
        let settlements = self.book().requested_settlements().len();
        let loans = self.book().uncharged();
        if settlements + loans == 0 {
            return Ok(());
        }
        Err(Unavailable::new(format!(
            "{settlements} settlements have no answer, and the ledger has not charged {loans} loans"
        )))
    }

    /// Gives back what the loans of an account can lend, and closes those that have ended.
    pub(super) async fn recall_and_close(&self, account: &str, now: SystemTime) {
        self.recall(account, 1, false, now).await;
        self.close_ended(account, now).await;
    }

    /// Closes a loan, if it lends no more and has no open reservations: the ledger charges what each process has charged on it, and the rest
    /// is available again.
    async fn close(&self, account: &str, tag: &str, now: SystemTime) -> Result<Closing, Unavailable> {
        let mut closing = self.script.close(account, tag, now).await?;
        match &mut closing {
            Closing::Begun(loan, charged) => {
                for (process, charged) in charged.iter_mut() {
                    let id = of_charge(*loan, process, 0);
                    // If the ledger was asked before Redis went back to an older state, it repeats what it has charged then. The process itself
                    // charges the rest.
                    *charged = self.charge_loan(account, id, *loan, *charged, now).await?.charged;
                }
                self.release_loan(account, *loan, now).await?;
                self.script.closed(account, tag, charged, now).await?;
            }
            Closing::Open => return Ok(closing),
            Closing::Done(_) | Closing::Unknown => {}
        }
        self.script.unlist(account, tag).await?;
        Ok(closing)
    }
}

/// It is tried again.
fn log(closed: Result<(), Unavailable>) {
    if let Err(error) = closed {
        tracing::debug!(name: "tollgate.loan_not_closed", "a loan of credits is not closed yet: {error:#}");
    }
}
