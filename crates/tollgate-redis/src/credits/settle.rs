//! Settles what was reserved: on its loan, else in the ledger.

use std::time::SystemTime;

use tollgate_core::{
    credits::{
        ChargeLentRequest, CreditLoans, Excess, ReservationId, SettleAction, SettleRequest, Settlement,
    },
    denial::Unavailable,
};

use super::{
    Shared,
    book::OpenReservation,
    id::{is_lent, of_charge},
    script::{Settled, Settling},
};

/// Under this name is charged what other processes have reserved.
const OTHERS: &str = "0";

impl<L: CreditLoans> Shared<L> {
    pub(super) async fn settle(
        &self,
        account: &str,
        id: ReservationId,
        action: SettleAction,
        now: SystemTime,
    ) -> Result<Settlement, Unavailable> {
        if !is_lent(id) {
            return self.ledger.settle(&SettleRequest::new(account, id, action, now)).await;
        }
        // From now on, the keeper repeats it until Redis has answered, also if the caller gives up.
        let own = self.book().request_settlement(account, id, action, now);
        if let Some(settled) = own.as_ref().and_then(|open| open.answer) {
            return self.finish(account, id, &settled, now).await;
        }
        let (action, now) = own.as_ref().and_then(|open| open.requested).unwrap_or((action, now));
        let process = if own.is_some() { &*self.ids.process } else { OTHERS };
        match self.script.settle(account, id, action, process, now).await? {
            Settling::Settled(settled) => {
                self.book().answered(id, settled);
                self.finish(account, id, &settled, now).await
            }
            Settling::Released | Settling::Forgotten => {
                self.book().forget(id);
                Ok(nothing(id, action))
            }
            Settling::Unknown => match own {
                Some(open) => self.settle_without_loan(id, &open, action, now).await,
                // A process that has lost it in Redis may have settled it in the ledger.
                None => self.ledger.settle(&SettleRequest::new(account, id, action, now)).await,
            },
        }
    }

    /// Charges the rest of a settlement that Redis has made.
    async fn finish(
        &self,
        account: &str,
        id: ReservationId,
        settled: &Settled,
        now: SystemTime,
    ) -> Result<Settlement, Unavailable> {
        let settlement = self.charge_rest(account, id, settled, now).await?;
        self.book().forget(id);
        Ok(settlement)
    }

    /// Charges in the ledger what the loan could not pay: an excess, or a promise whose credits others have used since it has expired.
    async fn charge_rest(
        &self,
        account: &str,
        id: ReservationId,
        settled: &Settled,
        now: SystemTime,
    ) -> Result<Settlement, Unavailable> {
        let Settled { charged, promised, beyond, actual, excess } = *settled;
        let rest = promised.saturating_add(beyond);
        if rest == 0 {
            return Ok(Settlement::new(id, charged, actual.saturating_sub(charged)));
        }
        let charge = ChargeLentRequest::new(account, id, promised, rest, now).with_excess(excess);
        let of_rest = self.ledger.charge_lent(&charge).await?;
        // If it has made a debt, nothing may be lent any more.
        let can_owe = promised > 0 || matches!(excess, Excess::Owe(_));
        if can_owe && self.ledger.balance(account, now).await.map_or(true, |balance| balance.owed > 0) {
            self.recall(account, 1, true, now).await;
        }
        let charged = charged.saturating_add(of_rest.charged);
        Ok(Settlement::new(id, charged, actual.saturating_sub(charged)))
    }

    /// Settles a reservation of this process that Redis has lost. Its credits are still reserved in the ledger, by the loan.
    async fn settle_without_loan(
        &self,
        id: ReservationId,
        open: &OpenReservation,
        action: SettleAction,
        now: SystemTime,
    ) -> Result<Settlement, Unavailable> {
        let SettleAction::Commit { actual, excess } = action else {
            self.book().forget(id);
            return Ok(nothing(id, action));
        };
        self.charge_own(&open.account, open.loan, now).await?;
        // Another task may have settled it meanwhile: in the ledger, which then repeats its settlement, or by a late answer of Redis.
        let Some(open) = self.book().open(id) else {
            return self.ledger.settle(&SettleRequest::new(&open.account, id, action, now)).await;
        };
        if let Some(settled) = open.answer {
            return self.finish(&open.account, id, &settled, now).await;
        }
        let most = if excess == Excess::Cap { actual.min(open.amount) } else { actual };
        let before = self.book().take_charged_before(id, most);
        let lent = open.amount.saturating_sub(before);
        let charge = ChargeLentRequest::new(&open.account, id, lent, actual - before, now)
            .with_loan(open.loan)
            .with_excess(excess);
        let settlement = self.ledger.charge_lent(&charge).await?;
        self.book().forget(id);
        Ok(Settlement::new(id, settlement.charged.saturating_add(before), settlement.uncharged))
    }

    /// Charges in the ledger what this process has charged on a loan that Redis does not have. A process that closes a loan charges by
    /// the same identifiers, so it is charged once.
    pub(super) async fn charge_own(
        &self,
        account: &str,
        loan: ReservationId,
        now: SystemTime,
    ) -> Result<(), Unavailable> {
        let charged = self.book().charged(loan);
        let mut in_ledger = 0;
        if charged == 0 {
            // The process that has closed the loan may have charged a settlement whose answer was lost.
            let id = of_charge(loan, &self.ids.process, 0);
            in_ledger = self.ledger.charged(account, id, now).await?;
        }
        while in_ledger < charged {
            let id = of_charge(loan, &self.ids.process, in_ledger);
            let settlement = self.charge_loan(account, id, loan, charged - in_ledger, now).await?;
            if settlement.charged == 0 {
                break;
            }
            in_ledger = in_ledger.saturating_add(settlement.charged);
        }
        self.book().set_in_ledger(loan, in_ledger);
        Ok(())
    }

    /// Charges a part of a loan.
    pub(super) async fn charge_loan(
        &self,
        account: &str,
        id: ReservationId,
        loan: ReservationId,
        amount: u64,
        now: SystemTime,
    ) -> Result<Settlement, Unavailable> {
        let charge = ChargeLentRequest::new(account, id, amount, amount, now).with_loan(loan);
        self.ledger.charge_lent(&charge).await
    }
}

fn nothing(id: ReservationId, action: SettleAction) -> Settlement {
    match action {
        SettleAction::Commit { actual, .. } => Settlement::new(id, 0, actual),
        _ => Settlement::new(id, 0, 0),
    }
}
