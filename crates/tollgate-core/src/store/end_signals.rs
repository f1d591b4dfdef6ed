//! The signals of the principals that a store has returned.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::store::{EndReason, EndSignal, KeyRecord, StoreEvent, WeakEndSignal};

/// Tracks the [signals](EndSignal) of the principals that a store has returned, for as long as anything holds them, so that the
/// store can end them. A [`KeyStore`](crate::store::KeyStore) with events keeps one of these beside its
/// [`Listeners`](crate::store::Listeners).
///
/// A key may change while its record is read. So a lookup [begins](Self::begin) *before* the database is asked, and
/// [finishing](LookupInProgress::finish) it fails if the record is stale:
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
///     // queries the database ...
///     let principal = Principal::new("key_1").with_end_signal(EndSignal::new());
///     KeyRecord::new(Arc::new(principal), KeyStatus::Active, 7)
/// };
///
/// let lookup = signals.begin();
/// let record = lookup.finish(read()).expect("the key did not change meanwhile");
///
/// let lookup = signals.begin();
/// let stale = read();
/// signals.end(&StoreEvent::Key { id: "key_1".into(), generation: 8, end: Some(EndReason::Revoked) });
/// assert!(lookup.finish(stale).is_err()); // query the database again
/// assert_eq!(record.principal().end_signal().reason(), Some(EndReason::Revoked));
/// ```
///
/// Clones share their state.
#[derive(Clone, Default)]
pub struct EndSignals(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    by_key: HashMap<Box<str>, Vec<Tracked>>,
    // The events since each unfinished lookup began. `None` is a free slot.
    in_progress: Vec<Option<Vec<StoreEvent>>>,
    // How many keys were left after the last sweep.
    swept: usize,
}

/// The signal of a principal that was returned.
struct Tracked {
    signal: WeakEndSignal,
    tenant: Option<Box<str>>,
    generation: u64,
}

impl EndSignals {
    /// No principal was returned yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a lookup. Call this before the query.
    pub fn begin(&self) -> LookupInProgress {
        let mut inner = self.lock();
        let slot = inner.in_progress.iter().position(Option::is_none).unwrap_or(inner.in_progress.len());
        let events = Some(Vec::new());
        match inner.in_progress.get_mut(slot) {
            Some(free) => *free = events,
            None => inner.in_progress.push(events),
        }
        LookupInProgress { signals: self.clone(), slot }
    }

    /// Ends the principals that an event says have ended. Lookups in progress take note of every event, also of one that ends
    /// nothing: so every event goes here before it goes to the [listeners](crate::store::Listeners::notify).
    pub fn end(&self, event: &StoreEvent) {
        let mut ended = Vec::new();
        {
            let mut inner = self.lock();
            for events in inner.in_progress.iter_mut().flatten() {
                events.push(event.clone());
            }
            match event {
                StoreEvent::Key { id, generation, end: Some(reason) } => {
                    if let Some(of_key) = inner.by_key.get_mut(id) {
                        take_ended(of_key, *generation, *reason, &mut ended);
                    }
                }
                StoreEvent::Tenant { tenant, generation, end: Some(reason) } => {
                    for of_key in inner.by_key.values_mut() {
                        if of_key.iter().any(|one| one.tenant.as_ref() == Some(tenant)) {
                            take_ended(of_key, *generation, *reason, &mut ended);
                        }
                    }
                }
                _ => {}
            }
        }
        // A task that waits for a signal may run at once, so no lock may be held.
        for (signal, reason) in ended {
            signal.end(reason);
        }
    }

    /// The identifiers of the keys whose principals are still held, for example by streams.
    ///
    /// A store that was disconnected uses it as follows. It subscribes to the source of its events again. It
    /// [ends](Self::end) [`StoreEvent::Disconnected`], so that lookups which began earlier are stale. It checks whether the held keys
    /// have ended, and ends those. Then it notifies [`StoreEvent::Connected`].
    pub fn held(&self) -> Vec<Box<str>> {
        let mut inner = self.lock();
        inner.sweep();
        inner.by_key.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code panics between two related changes, so a panic on another thread leaves the value valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_ended(
    of_key: &mut Vec<Tracked>,
    generation: u64,
    reason: EndReason,
    ended: &mut Vec<(EndSignal, EndReason)>,
) {
    of_key.retain(|one| {
        let stays = one.generation >= generation;
        if !stays {
            ended.extend(one.signal.upgrade().map(|signal| (signal, reason)));
        }
        stays
    });
}

impl Inner {
    fn track(&mut self, record: &KeyRecord) {
        if self.by_key.len() > 2 * self.swept.max(1_024) {
            self.sweep();
        }
        let principal = record.principal();
        let of_key = self.by_key.entry(principal.id().into()).or_default();
        // A store may return the same principal again.
        let is_other = |one: &Tracked| !one.signal.is(principal.end_signal());
        of_key.retain(|one| one.signal.is_held() && is_other(one));
        of_key.push(Tracked {
            signal: principal.end_signal().downgrade(),
            tenant: principal.tenant().map(Into::into),
            generation: record.generation(),
        });
    }

    /// Removes the signals that nothing holds any more.
    fn sweep(&mut self) {
        self.by_key.retain(|_, of_key| {
            of_key.retain(|one| one.signal.is_held());
            !of_key.is_empty()
        });
        self.swept = self.by_key.len();
    }
}

impl fmt::Debug for EndSignals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndSignals").field("keys", &self.lock().by_key.len()).finish_non_exhaustive()
    }
}

/// A lookup that is not finished: see [`EndSignals`]. Dropping it abandons the lookup.
#[derive(Debug)]
#[must_use = "call `finish` with the record"]
pub struct LookupInProgress {
    signals: EndSignals,
    slot: usize,
}

impl LookupInProgress {
    /// Returns the record if it is not stale, and tracks the signal of its principal.
    ///
    /// # Errors
    /// [`ChangedDuringLookup`] if the key or its tenant has changed since the lookup began, and the record is older than that
    /// change: begin a new lookup.
    pub fn finish(self, record: KeyRecord) -> Result<KeyRecord, ChangedDuringLookup> {
        let mut inner = self.signals.lock();
        // The slot is freed by the drop only, or another lookup could be using it by then.
        let events = inner.in_progress.get_mut(self.slot).and_then(Option::as_mut).map(std::mem::take);
        let events = events.unwrap_or_default();
        let principal = record.principal();
        let is_stale = events.iter().any(|event| match event {
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
        inner.track(&record);
        Ok(record)
    }
}

impl Drop for LookupInProgress {
    fn drop(&mut self) {
        let mut inner = self.signals.lock();
        if let Some(slot) = inner.in_progress.get_mut(self.slot) {
            *slot = None;
        }
    }
}

/// The record is stale: the key changed while it was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedDuringLookup(());

impl fmt::Display for ChangedDuringLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key changed during the lookup: look it up again")
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
        let find = |id, tenant, generation| signals.begin().finish(record(id, tenant, generation)).unwrap();
        let (old, new) = (find("key", "acme", 1), find("key", "acme", 2));
        let (other, foreign) = (find("other", "acme", 1), find("foreign", "umbrella", 1));
        signals.end(&revoked("key", 2));
        assert_eq!([&old, &new, &other, &foreign].map(reason), [Some(EndReason::Revoked), None, None, None]);
        let end = Some(EndReason::TenantSuspended);
        signals.end(&StoreEvent::Tenant { tenant: "acme".into(), generation: 3, end });
        assert_eq!([&new, &other, &foreign].map(reason), [end, end, None]);
    }

    #[test]
    fn a_change_that_ends_nothing_makes_a_lookup_stale_and_ends_no_principal() {
        let signals = EndSignals::new();
        let held = signals.begin().finish(record("key", "acme", 1)).unwrap();
        let renamed = |id: &str| StoreEvent::Key { id: id.into(), generation: 2, end: None };
        let (stale, fresh, other) = (signals.begin(), signals.begin(), signals.begin());
        signals.end(&renamed("key"));
        assert!(stale.finish(record("key", "acme", 1)).is_err());
        assert!(fresh.finish(record("key", "acme", 2)).is_ok());
        assert!(other.finish(record("other", "acme", 1)).is_ok());
        assert!(signals.begin().finish(record("key", "acme", 1)).is_ok(), "it began after the change");
        assert_eq!(reason(&held), None);
        let lookup = signals.begin();
        signals.end(&StoreEvent::Disconnected);
        assert!(lookup.finish(record("other", "acme", 9)).is_err());
    }

    #[test]
    fn forgets_signals_that_nothing_holds() {
        let signals = EndSignals::new();
        let held = signals.begin().finish(record("held", "acme", 1)).unwrap();
        for number in 0..10_000 {
            drop(signals.begin().finish(record(&format!("key{number}"), "acme", 1)));
            drop(signals.begin());
        }
        assert!(signals.lock().by_key.len() <= 2_049);
        assert_eq!(signals.held(), ["held".into()]);
        assert!(signals.lock().in_progress.iter().all(Option::is_none));
        assert_eq!(signals.lock().in_progress.len(), 1);
        drop(held);
        assert!(signals.held().is_empty());
    }

    #[test]
    fn a_principal_that_is_found_again_is_tracked_once() {
        let (signals, principal) = (EndSignals::new(), Arc::new(Principal::new("key")));
        for generation in 1..100 {
            let record = KeyRecord::new(Arc::clone(&principal), KeyStatus::Active, generation);
            assert!(signals.begin().finish(record).is_ok());
        }
        assert_eq!(signals.lock().by_key["key"].len(), 1);
        signals.end(&revoked("key", 99));
        assert_eq!(principal.end_signal().reason(), None, "it was confirmed after that change");
        signals.end(&revoked("key", 100));
        assert_eq!(principal.end_signal().reason(), Some(EndReason::Revoked));
    }
}
