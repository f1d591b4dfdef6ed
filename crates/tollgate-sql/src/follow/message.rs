//! The payloads of PostgreSQL notifications.

use tollgate_core::store::StoreEvent;

use crate::{event::read_reason, record::generation};

/// What a payload says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A change.
    Event(StoreEvent),
    /// A change that is too long for a payload. The history has it under this generation.
    LookUp(i64),
    /// A test whether notifications arrive.
    Probe,
    /// A payload of a newer version.
    Unknown,
}

impl Message {
    pub(crate) const PROBE: &str = "trial";

    pub(crate) fn read(payload: &str) -> Self {
        if payload == Self::PROBE {
            return Self::Probe;
        }
        let mut words = payload.splitn(4, ' ');
        let (kind, number) = (words.next(), words.next().and_then(|number| number.parse().ok()));
        let (Some(kind), Some(number)) = (kind, number) else { return Self::Unknown };
        let (ended, id) = (words.next(), words.next());
        let end = ended.filter(|ended| *ended != "-").map(read_reason);
        match (kind, id) {
            ("key", Some(id)) => {
                Self::Event(StoreEvent::Key { id: id.into(), generation: generation(number), end })
            }
            ("tenant", Some(tenant)) => {
                Self::Event(StoreEvent::Tenant { tenant: tenant.into(), generation: generation(number), end })
            }
            ("look", None) => Self::LookUp(number),
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_core::store::EndReason;

    use super::*;
    use crate::event::Event;

    fn event(key: Option<&str>, tenant: Option<&str>, ended: Option<EndReason>) -> Event {
        Event { generation: 42, key: key.map(Into::into), tenant: tenant.map(Into::into), ended }
    }

    #[test]
    fn a_payload_is_read_as_it_was_written() {
        for (key, tenant, ended) in [
            (Some("key_1"), None, None),
            (Some("  a b\n'\"ü "), Some("acme"), Some(EndReason::Revoked)),
            (None, Some("acme  inc "), Some(EndReason::TenantSuspended)),
            (None, Some(""), None),
        ] {
            let event = event(key, tenant, ended);
            let read = Message::read(&event.to_payload());
            assert_eq!(read, Message::Event(event.to_store_event().unwrap()), "{event:?}");
        }
    }

    #[test]
    fn a_long_payload_refers_to_the_history() {
        let payload = event(Some(&"x".repeat(8_000)), None, Some(EndReason::Revoked)).to_payload();
        assert_eq!(Message::read(&payload), Message::LookUp(42));
    }

    #[test]
    fn an_unknown_payload_is_read_as_unknown() {
        for payload in
            ["", "key", "key 1", "key x - id", "key 1 -", "look", "look x", "lock 1 - id", "trial 1"]
        {
            assert_eq!(Message::read(payload), Message::Unknown, "{payload}");
        }
        assert_eq!(Message::read(Message::PROBE), Message::Probe);
    }
}
