//! The newest events about tenants: they tell whether an answer that was read earlier is still true.

use std::collections::VecDeque;

use tollgate_core::key::Digest;

/// How many events are kept. What was read before the oldest of them counts as changed.
const KEPT: usize = 1_024;

/// The newest events, and whether the store is connected.
pub(crate) struct RecentEvents {
    // What they are about: a tenant, or all (`None`). The newest is the last.
    about: VecDeque<Option<Digest>>,
    count: u64,
    is_connected: bool,
}

/// A moment: how many events there were.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AsOf(u64);

impl RecentEvents {
    pub(crate) fn new(is_connected: bool) -> Self {
        Self { about: VecDeque::new(), count: 0, is_connected }
    }

    pub(crate) fn now(&self) -> AsOf {
        AsOf(self.count)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected
    }

    pub(crate) fn record_tenant(&mut self, tenant: &str) {
        self.record(Some(Digest::of(tenant)));
    }

    /// Records an event about all tenants.
    pub(crate) fn record_all(&mut self) {
        self.record(None);
    }

    /// Records that the store was connected or disconnected: its answers up to now may be outdated.
    pub(crate) fn record_connected(&mut self, is_connected: bool) {
        self.is_connected = is_connected;
        self.record(None);
    }

    fn record(&mut self, about: Option<Digest>) {
        if self.about.len() == KEPT {
            self.about.pop_front();
        }
        self.about.push_back(about);
        self.count += 1;
    }

    /// Whether there was an event about this tenant, or about all, since `as_of`.
    pub(crate) fn has_changed(&self, tenant: Option<&str>, as_of: AsOf) -> bool {
        let Ok(events) = usize::try_from(self.count.saturating_sub(as_of.0)) else { return true };
        if events == 0 {
            return false;
        }
        let tenant = tenant.map(Digest::of);
        let is_meant = |about: &Option<Digest>| about.is_none() || *about == tenant;
        events > self.about.len() || self.about.iter().rev().take(events).any(is_meant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_changes_what_was_read_earlier_about_its_tenant() {
        let mut events = RecentEvents::new(true);
        events.record_tenant("acme");
        let as_of = events.now();
        assert!(!events.has_changed(Some("acme"), as_of), "it was read after the event");
        events.record_tenant("other");
        assert!(!events.has_changed(Some("acme"), as_of) && !events.has_changed(None, as_of));
        assert!(events.has_changed(Some("other"), as_of));
        events.record_tenant("acme");
        assert!(events.has_changed(Some("acme"), as_of) && !events.has_changed(None, as_of));
        events.record_connected(false);
        assert!(events.has_changed(None, as_of) && events.has_changed(Some("third"), as_of));
    }

    #[test]
    fn what_was_read_before_all_kept_events_counts_as_changed() {
        let mut events = RecentEvents::new(true);
        let as_of = events.now();
        for _ in 0..KEPT {
            events.record_tenant("other");
        }
        assert!(!events.has_changed(Some("acme"), as_of));
        events.record_tenant("other");
        assert!(events.has_changed(Some("acme"), as_of));
        assert_eq!(events.about.len(), KEPT);
    }
}
