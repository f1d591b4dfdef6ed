//! The changes of an account. They own their values, since a transaction may outlive its caller.

use std::time::SystemTime;

use tollgate_core::{
    credits::{
        Account, CreditAdminError, Grant, GrantId, Idempotency, NewGrant, ReservationId, ReserveRequest,
        Reserved, SettleAction, SettleRequest, Settlement, WithdrawGrant,
    },
    denial::Unavailable,
    key::Digest,
    manage::{Actor, Command},
};

use super::{
    rows::{Known, Wanted},
    transaction::Call,
};
use crate::fault::Fault;

pub(super) struct ReserveCall {
    account: Box<str>,
    amount: u64,
    expires_at: SystemTime,
    idempotency: Option<(Box<str>, Digest)>,
    now: SystemTime,
    id: ReservationId,
}

impl ReserveCall {
    pub(super) fn new(request: &ReserveRequest<'_>, id: ReservationId) -> Self {
        let ReserveRequest { account, amount, expires_at, idempotency, now, .. } = *request;
        let idempotency = idempotency.map(|asked| (asked.key.into(), asked.fingerprint));
        Self { account: account.into(), amount, expires_at, idempotency, now, id }
    }
}

impl Call for ReserveCall {
    type Answer = Reserved;
    type Error = Unavailable;

    fn account(&self) -> &str {
        &self.account
    }

    fn now(&self) -> SystemTime {
        self.now
    }

    fn wanted(&self) -> Wanted<'_> {
        self.idempotency.as_ref().map_or(Wanted::Nothing, |(key, _)| Wanted::ReservationWithKey(key))
    }

    fn new_reservation(&self) -> Option<ReservationId> {
        Some(self.id)
    }

    fn apply(&self, account: &mut Account, known: Known) -> Result<Reserved, Unavailable> {
        let mut request = ReserveRequest::new(&self.account, self.amount, self.expires_at, self.now);
        if let Some((key, fingerprint)) = &self.idempotency {
            request = request.with_idempotency(Idempotency::new(key, *fingerprint));
        }
        account.reserve(&request, self.id, known.reservation)
    }
}

pub(super) struct SettleCall {
    account: Box<str>,
    id: ReservationId,
    action: SettleAction,
    now: SystemTime,
}

impl SettleCall {
    pub(super) fn new(request: &SettleRequest<'_>) -> Self {
        let SettleRequest { account, id, action, now, .. } = *request;
        Self { account: account.into(), id, action, now }
    }
}

impl Call for SettleCall {
    type Answer = Settlement;
    type Error = Unavailable;

    fn account(&self) -> &str {
        &self.account
    }

    fn now(&self) -> SystemTime {
        self.now
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted::Reservation(self.id)
    }

    fn apply(&self, account: &mut Account, known: Known) -> Result<Settlement, Unavailable> {
        let request = SettleRequest::new(&self.account, self.id, self.action, self.now);
        Ok(account.settle(&request, known.reservation))
    }
}

pub(super) struct GrantCall {
    pub(super) command: Command<NewGrant>,
    pub(super) id: GrantId,
}

impl Call for GrantCall {
    type Answer = Grant;
    type Error = CreditAdminError;

    fn account(&self) -> &str {
        &self.command.change.account
    }

    fn now(&self) -> SystemTime {
        self.command.at
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted::EndedGrant(&self.id)
    }

    fn apply(&self, account: &mut Account, _known: Known) -> Result<Grant, CreditAdminError> {
        refuse_nul(&self.command.actor)?;
        account.grant(&self.command, &self.id)
    }
}

pub(super) struct WithdrawCall {
    pub(super) command: Command<WithdrawGrant>,
}

impl Call for WithdrawCall {
    type Answer = Grant;
    type Error = CreditAdminError;

    fn account(&self) -> &str {
        &self.command.change.account
    }

    fn now(&self) -> SystemTime {
        self.command.at
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted::EndedGrant(&self.command.change.id)
    }

    fn apply(&self, account: &mut Account, _known: Known) -> Result<Grant, CreditAdminError> {
        refuse_nul(&self.command.actor)?;
        account.withdraw(&self.command)
    }
}

/// Releases what has expired, and changes nothing else.
pub(super) struct ExpireCall {
    pub(super) account: Box<str>,
    pub(super) now: SystemTime,
}

impl Call for ExpireCall {
    type Answer = ();
    type Error = Fault;

    fn account(&self) -> &str {
        &self.account
    }

    fn now(&self) -> SystemTime {
        self.now
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted::Nothing
    }

    fn apply(&self, _account: &mut Account, _known: Known) -> Result<(), Fault> {
        Ok(())
    }
}

/// Core refuses control characters in all other texts.
fn refuse_nul(actor: &Actor) -> Result<(), CreditAdminError> {
    if actor.name().contains('\0') {
        return Err(CreditAdminError::Invalid(
            "the name of an actor contains a NUL character: remove it".into(),
        ));
    }
    Ok(())
}
