//! One change of an account, in one transaction.
//!
//! PostgreSQL locks the row of the account before it reads the rest. At its default isolation level, `READ COMMITTED`, each later statement
//! sees what the former owner of the lock has committed. SQLite locks the whole database.

use std::{sync::Arc, time::SystemTime};

use tokio::time::{Instant, timeout_at};
use tollgate_core::credits::{Account, ReservationId};

use super::rows::{self, Known, LockedAccount, MAX_DUE, Wanted};
use crate::{
    database::{Connection, Done, Urgency},
    fault::Fault,
    shared::Shared,
};

/// A change of an account. Core decides; this says what core has to know, and calls it.
pub(super) trait Call: Send + Sync + 'static {
    type Answer: Send + 'static;
    type Error: From<Fault> + Send + 'static;

    fn account(&self) -> &str;

    /// The caller's instant. The database's clock is not asked.
    fn now(&self) -> SystemTime;

    /// What is to be loaded beside the account.
    fn wanted(&self) -> Wanted<'_>;

    /// The identifier of the reservation that the call makes, unless it was made before.
    fn new_reservation(&self) -> Option<ReservationId> {
        None
    }

    /// Changes the account, which was brought to the instant of the call. `known` is what is stored of its reservation.
    fn apply(&self, account: &mut Account, known: Known) -> Result<Self::Answer, Self::Error>;
}

/// The outcome of a call.
pub(super) struct Outcome<A> {
    pub(super) answer: A,
    /// The number of reservations that have expired.
    pub(super) expired: u64,
}

/// Makes a change. The limit includes the wait for other changes of the account.
///
/// Many reservations that have expired at once are released in several transactions before that of the call, so that each one is short, and
/// a call that exceeds its deadline has done some of the work.
pub(super) async fn run<C: Call>(
    shared: &Shared,
    call: Arc<C>,
    urgency: Urgency,
) -> Result<Outcome<C::Answer>, C::Error> {
    if call.account().contains('\0') {
        // No account can have this name, as PostgreSQL cannot store it.
        let answer = call.apply(&mut Account::default(), Known::default())?;
        return Ok(Outcome { answer, expired: 0 });
    }
    let deadline = Instant::now() + shared.settings.credit_deadline;
    let turn = timeout_at(deadline, shared.queues.turn(call.account())).await;
    let _turn = turn.unwrap_or(Err(Fault::TimedOut))?;
    let mut expired = 0;
    loop {
        let (call, left) = (Arc::clone(&call), deadline.saturating_duration_since(Instant::now()));
        let transaction =
            shared.database.transact(left, urgency, |connection| Box::pin(change(connection, call)));
        let (now_expired, answer) = transaction.await?;
        expired += now_expired;
        if let Some(answer) = answer {
            return Ok(Outcome { answer, expired });
        }
    }
}

/// The steps of one transaction. Returns the number of reservations that it has released, and the answer, unless there are more of them.
async fn change<C: Call>(
    connection: &mut Connection,
    call: Arc<C>,
) -> Result<Done<(u64, Option<C::Answer>)>, C::Error> {
    let (name, now) = (call.account(), call.now());
    let mut locked = LockedAccount::lock(connection, name).await?;
    let found = locked.load(connection, now, call.wanted()).await?;
    let expired = found.due.len();
    locked.account.advance(now, found.due);
    let known = found.wanted.reservation.as_ref().map(|reservation| reservation.id);
    let answer = if expired < MAX_DUE { Some(call.apply(&mut locked.account, found.wanted)?) } else { None };
    let new = call.new_reservation().filter(|new| known != Some(*new));
    let has_changed = locked.store(connection, new).await?;
    if found.has_forgotten {
        rows::delete_forgotten(connection, name, now).await?;
    }
    let outcome = (expired as u64, answer);
    Ok(if has_changed || found.has_forgotten { Done::Commit(outcome) } else { Done::RollBack(outcome) })
}
