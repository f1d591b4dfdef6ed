//! What the messages of a stream cost in credits: who pays is found out once, and each charge is reserved and settled at once.

use std::{sync::Arc, time::SystemTime};

use tollgate_core::{
    answer::Answer,
    denial::{Denial, DenialKind},
};

use super::{
    CreditsGate, OpenReservation, no_account, refusal,
    settle::{Answered, PayingAccount},
};
use crate::RequestContext;

/// How many charges of messages may wait for the backend at a time, for a layer and its clones together.
pub(super) const MAX_WAITING: usize = 10_000;

/// What a message of a stream costs, and who pays.
pub(crate) struct MessageCredits {
    payer: Payer,
    cost: u64,
}

enum Payer {
    Account(Arc<PayingAccount>),
    /// An anonymous caller has no account.
    Anonymous,
    /// `with_account` names none for the principal.
    Unnamed,
}

impl CreditsGate {
    /// What a message costs the caller of this stream, if one message costs `cost`.
    pub(crate) fn message_credits(&self, cost: u64, context: &RequestContext) -> MessageCredits {
        let payer = match context.principal() {
            None => Payer::Anonymous,
            Some(principal) => match self.account_of(principal) {
                None => Payer::Unnamed,
                Some(account) => Payer::Account(PayingAccount::new(&self.backend, &account, context.clock())),
            },
        };
        MessageCredits { payer, cost }
    }
}

impl MessageCredits {
    /// Reserves what so many messages cost. A reservation that is dropped is released.
    pub(crate) fn reserve(
        &self,
        count: u64,
        now: SystemTime,
    ) -> Answer<Result<Arc<OpenReservation>, Denial>> {
        let cost = self.cost.saturating_mul(count);
        let payer = match &self.payer {
            Payer::Account(payer) => payer,
            Payer::Anonymous => return Answer::Now(Err(DenialKind::CredentialMissing.into())),
            Payer::Unnamed => return Answer::Now(Err(no_account(cost))),
        };
        // The places of the request may be free by now: a caller that resets one stream after another would leave a task of each.
        let Some(place) = payer.message_place() else {
            return Answer::Now(Err(Denial::unavailable(format!(
                "{MAX_WAITING} charges of messages wait for the backend of credits"
            ))));
        };
        payer.reserve(cost, None, false, now, place).map(|answered| match answered? {
            Answered::Held(reservation, _) => Ok(reservation),
            Answered::Other(reserved) => Err(refusal(&reserved)),
        })
    }
}
