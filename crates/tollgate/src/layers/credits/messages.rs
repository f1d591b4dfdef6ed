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
        // A stream holds no places for its messages: its caller waits for one at a time.
        payer.reserve(cost, None, false, now, Vec::new()).map(|answered| match answered? {
            Answered::Held(reservation, _) => Ok(reservation),
            Answered::Other(reserved) => Err(refusal(reserved)),
        })
    }
}
