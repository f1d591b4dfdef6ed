//! The signals of principals that a store has handed out.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::store::{EndReason, EndSignal, KeyRecord, StoreEvent, end::WeakEndSignal};

/// Remembers the [signals](EndSignal) of the principals that a store has handed out, for as long as somebody holds them, so
/// that the store can end them: what a [`KeyStore`](crate::store::KeyStore) in a database needs besides its queries.
///
/// A record that was read while its key changed would slip through. So a look-up begins *before* the database is asked, and
/// its end tells whether the record is still the newest:
///
/// ```
/// use std::sync::Arc;
/// use tollgate_core::{
///     store::{EndReason, EndSignal, EndSignals, KeyRecord, KeyStatus, StoreEvent},
///     verify::Principal,
/// };
///
/// let signals = EndSignals::new();
/// let read = || {
///     // as of the database
///     let principal = Principal::new("key_1").with_end_signal(EndSignal::new());
///     KeyRecord::new(Arc::new(principal), KeyStatus::Active, 7)
/// };
///
/// let lookup = signals.begin();
/// let record = lookup.finish(read()).expect("nothing changed meanwhile");
///
/// let lookup = signals.begin();
/// let stale = read();
/// signals.end(&StoreEvent::Key { id: "key_1".into(), generation: 8, end: Some(EndReason::Revoked) });
/// assert!(lookup.finish(stale).is_err()); // the database is asked again
/// assert_eq!(record.principal().end_signal().reason(), Some(EndReason::Revoked));
/// ```
///
/// Clones are the same list.
#[derive(Clone, Default)]
pub struct EndSignals(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    handed_out: HashMap<Box<str>, Vec<HandedOut>>,
    // What changed since each look-up that is under way began; those that ended leave `None`.
    under_way: Vec<Option<Vec<StoreEvent>>>,
    // How many keys there were after the last sweep.
    swept: usize,
}

/// A signal that somebody may hold.
struct HandedOut {
    signal: WeakEndSignal,
    tenant: Option<Box<str>>,
    generation: u64,
}

impl EndSignals {
    /// Nothing was handed out yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a look-up: call this before the database is asked.
    pub fn begin(&self) -> LookupInProgress {
        let mut inner = self.lock();
        let place = inner.under_way.iter().position(Option::is_none).unwrap_or(inner.under_way.len());
        let noted = Some(Vec::new());
        match inner.under_way.get_mut(place) {
            Some(free) => *free = noted,
            None => inner.under_way.push(noted),
        }
        LookupInProgress { signals: self.clone(), place }
    }

    /// Ends what a change says has ended. Look-ups that are under way learn of every change, also of one that ends nothing.
    pub fn end(&self, change: &StoreEvent) {
        let mut ended = Vec::new();
        {
            let mut inner = self.lock();
            for under_way in inner.under_way.iter_mut().flatten() {
                under_way.push(change.clone());
            }
            match change {
                StoreEvent::Key { id, generation, end: Some(reason) } => {
                    if let Some(handed_out) = inner.handed_out.get_mut(id) {
                        take_ended(handed_out, *generation, *reason, &mut ended);
                    }
                }
                StoreEvent::Tenant { tenant, generation, end: Some(reason) } => {
                    for handed_out in inner.handed_out.values_mut() {
                        if handed_out.iter().any(|one| one.tenant.as_ref() == Some(tenant)) {
                            take_ended(handed_out, *generation, *reason, &mut ended);
                        }
                    }
                }
                _ => {}
            }
        }
        // Whoever waits for a signal may run at once: no lock is held any more.
        for (signal, reason) in ended {
            signal.end(reason);
        }
    }

    /// The identifiers of all keys whose principals somebody still holds: to be looked at again after news were lost.
    pub fn held(&self) -> Vec<Box<str>> {
        let mut inner = self.lock();
        inner.sweep();
        inner.handed_out.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing is ever left half changed, so a panic of another thread has left it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_ended(
    handed_out: &mut Vec<HandedOut>,
    generation: u64,
    reason: EndReason,
    ended: &mut Vec<(EndSignal, EndReason)>,
) {
    handed_out.retain(|one| {
        let stays = one.generation >= generation;
        if !stays {
            ended.extend(one.signal.upgrade().map(|signal| (signal, reason)));
        }
        stays
    });
}

impl Inner {
    fn hand_out(&mut self, record: &KeyRecord) {
        if self.handed_out.len() > 2 * self.swept.max(1_024) {
            self.sweep();
        }
        let principal = record.principal();
        let of_key = self.handed_out.entry(principal.id().into()).or_default();
        of_key.retain(|one| one.signal.is_held());
        of_key.push(HandedOut {
            signal: principal.end_signal().downgrade(),
            tenant: principal.tenant().map(Into::into),
            generation: record.generation(),
        });
    }

    /// Forgets what nobody holds any more.
    fn sweep(&mut self) {
        self.handed_out.retain(|_, of_key| {
            of_key.retain(|one| one.signal.is_held());
            !of_key.is_empty()
        });
        self.swept = self.handed_out.len();
    }
}

impl fmt::Debug for EndSignals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndSignals").field("keys", &self.lock().handed_out.len()).finish_non_exhaustive()
    }
}

/// A look-up that is under way: see [`EndSignals`]. Dropped, it is given up.
#[derive(Debug)]
#[must_use = "a look-up that is not finished hands nothing out"]
pub struct LookupInProgress {
    signals: EndSignals,
    place: usize,
}

impl LookupInProgress {
    /// Hands a record out, and remembers the signal of its principal.
    ///
    /// # Errors
    /// [`ChangedDuringLookup`] if the key or its tenant has changed since the look-up began, and the record does not know of that
    /// yet: look it up again.
    pub fn finish(self, record: KeyRecord) -> Result<KeyRecord, ChangedDuringLookup> {
        let mut inner = self.signals.lock();
        // Emptied, and not given back before the drop: another look-up could be in its place by then.
        let changes = inner.under_way.get_mut(self.place).and_then(Option::as_mut).map(std::mem::take);
        let changes = changes.unwrap_or_default();
        let principal = record.principal();
        let is_stale = changes.iter().any(|change| match change {
            StoreEvent::Key { id, generation, .. } => {
                **id == *principal.id() && *generation > record.generation()
            }
            StoreEvent::Tenant { tenant, generation, .. } => {
                principal.tenant() == Some(tenant) && *generation > record.generation()
            }
            StoreEvent::Disconnected => true,
            _ => false,
        });
        if is_stale {
            return Err(ChangedDuringLookup(()));
        }
        inner.hand_out(&record);
        Ok(record)
    }
}

impl Drop for LookupInProgress {
    fn drop(&mut self) {
        let mut inner = self.signals.lock();
        if let Some(under_way) = inner.under_way.get_mut(self.place) {
            *under_way = None;
        }
    }
}

/// What was looked up is not the newest any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedDuringLookup(());

impl fmt::Display for ChangedDuringLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key changed while it was looked up")
    }
}

impl std::error::Error for ChangedDuringLookup {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::KeyStatus, verify::Principal};

    fn record(id: &str, tenant: &str, generation: u64) -> KeyRecord {
        let principal = Principal::new(id).with_tenant(tenant);
        KeyRecord::new(Arc::new(principal), KeyStatus::Active, generation)
    }

    fn revoked(id: &str, generation: u64) -> StoreEvent {
        StoreEvent::Key { id: id.into(), generation, end: Some(EndReason::Revoked) }
    }

    fn reason(record: &KeyRecord) -> Option<EndReason> {
        record.principal().end_signal().reason()
    }

    #[test]
    fn ends_the_principals_of_earlier_generations_and_no_others() {
        let signals = EndSignals::new();
        let hand_out =
            |id, tenant, generation| signals.begin().finish(record(id, tenant, generation)).unwrap();
        let (old, new) = (hand_out("key", "acme", 1), hand_out("key", "acme", 2));
        let (other, foreign) = (hand_out("other", "acme", 1), hand_out("foreign", "umbrella", 1));
        signals.end(&revoked("key", 2));
        assert_eq!([&old, &new, &other, &foreign].map(reason), [Some(EndReason::Revoked), None, None, None]);
        let end = Some(EndReason::TenantSuspended);
        signals.end(&StoreEvent::Tenant { tenant: "acme".into(), generation: 3, end });
        assert_eq!([&new, &other, &foreign].map(reason), [end, end, None]);
    }

    #[test]
    fn a_change_that_ends_nothing_makes_a_look_up_stale_and_no_principal_end() {
        let signals = EndSignals::new();
        let held = signals.begin().finish(record("key", "acme", 1)).unwrap();
        let renamed = |id: &str| StoreEvent::Key { id: id.into(), generation: 2, end: None };
        let (stale, fresh, other) = (signals.begin(), signals.begin(), signals.begin());
        signals.end(&renamed("key"));
        assert!(stale.finish(record("key", "acme", 1)).is_err());
        assert!(fresh.finish(record("key", "acme", 2)).is_ok());
        assert!(other.finish(record("other", "acme", 1)).is_ok());
        assert!(signals.begin().finish(record("key", "acme", 1)).is_ok(), "it began later");
        assert_eq!(reason(&held), None);
        let lookup = signals.begin();
        signals.end(&StoreEvent::Disconnected);
        assert!(lookup.finish(record("other", "acme", 9)).is_err());
    }

    #[test]
    fn forgets_what_nobody_holds() {
        let signals = EndSignals::new();
        let held = signals.begin().finish(record("held", "acme", 1)).unwrap();
        for number in 0..10_000 {
            drop(signals.begin().finish(record(&format!("key{number}"), "acme", 1)));
            drop(signals.begin());
        }
        assert!(signals.lock().handed_out.len() <= 2_049);
        assert_eq!(signals.held(), ["held".into()]);
        assert!(signals.lock().under_way.iter().all(Option::is_none));
        assert_eq!(signals.lock().under_way.len(), 1);
        drop(held);
        assert!(signals.held().is_empty());
    }
}
