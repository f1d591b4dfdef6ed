//! The history of keys and tenants, bounded for each tenant.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tollgate_core::manage::{HistoryQuery, KeyEvent};

/// The events of one tenant. More would let a tenant's user fill the memory.
const MAX_OF_TENANT: usize = 1_000;

/// The events of all tenants.
const MAX_OF_ALL: usize = 100_000;

/// The latest events of each tenant, and of the keys without a tenant: an event displaces the oldest one of the same tenant.
#[derive(Default)]
pub(super) struct History {
    // By generation.
    events: BTreeMap<u64, KeyEvent>,
    // The generations of each tenant's events, the oldest first.
    by_tenant: HashMap<Option<Box<str>>, VecDeque<u64>>,
}

impl History {
    pub(super) fn add(&mut self, event: KeyEvent) {
        let of_tenant = self.by_tenant.entry(event.tenant.clone()).or_default();
        of_tenant.push_back(event.generation);
        if of_tenant.len() > MAX_OF_TENANT
            && let Some(oldest) = of_tenant.pop_front()
        {
            self.events.remove(&oldest);
        }
        self.events.insert(event.generation, event);
        if self.events.len() > MAX_OF_ALL {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        let Some((_, oldest)) = self.events.pop_first() else { return };
        if let Some(of_tenant) = self.by_tenant.get_mut(&oldest.tenant) {
            // It is the tenant's oldest one, too.
            of_tenant.pop_front();
            if of_tenant.is_empty() {
                self.by_tenant.remove(&oldest.tenant);
            }
        }
    }

    /// The events that a query selects of those before this generation, latest first.
    pub(super) fn select(
        &self,
        query: &HistoryQuery,
        before: Option<u64>,
    ) -> impl Iterator<Item = &KeyEvent> {
        self.events.range(..before.unwrap_or(u64::MAX)).rev().map(|(_, event)| event).filter(move |event| {
            (query.key.is_none() || query.key == event.key)
                && (query.tenant.is_none() || query.tenant == event.tenant)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use tollgate_core::manage::KeyAction;

    use super::*;

    fn event(generation: u64, tenant: Option<&str>) -> KeyEvent {
        let mut event = KeyEvent::new(generation, UNIX_EPOCH, "ada", KeyAction::Updated);
        event.tenant = tenant.map(Into::into);
        event
    }

    fn generations(history: &History, query: &HistoryQuery) -> Vec<u64> {
        history.select(query, None).map(|event| event.generation).collect()
    }

    #[test]
    fn keeps_the_latest_events_of_each_tenant() {
        let mut history = History::default();
        history.add(event(1, Some("quiet")));
        history.add(event(2, None));
        (3..=1_500).for_each(|generation| history.add(event(generation, Some("busy"))));
        assert_eq!(generations(&history, &HistoryQuery::all().with_tenant("quiet")), [1]);
        let busy = generations(&history, &HistoryQuery::all().with_tenant("busy"));
        assert_eq!(busy, (501..=1_500).rev().collect::<Vec<_>>());
        let all = generations(&history, &HistoryQuery::all());
        assert_eq!((all.len(), &all[1_000..]), (1_002, &[2, 1][..]));
        let before: Vec<_> = history.select(&HistoryQuery::all(), Some(502)).map(|e| e.generation).collect();
        assert_eq!(before, [501, 2, 1]);
    }

    #[test]
    fn keeps_a_bounded_number_of_events_of_all_tenants() {
        let mut history = History::default();
        for generation in 1..=100_100 {
            history.add(event(generation, Some(&(generation % 1_000).to_string())));
        }
        assert_eq!(history.events.len(), 100_000);
        assert_eq!(history.events.first_key_value().map(|(generation, _)| *generation), Some(101));
        assert_eq!(history.by_tenant.values().map(VecDeque::len).sum::<usize>(), 100_000);
        for generation in 100_101..=200_100 {
            history.add(event(generation, Some(&format!("new {}", generation % 1_000))));
        }
        assert_eq!(history.by_tenant.len(), 1_000, "tenants without events take no memory");
    }
}
