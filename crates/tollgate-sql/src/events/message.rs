//! What one process tells the others by a notification.

use tollgate_core::store::StoreEvent;

use super::event::read_reason;
use crate::record::generation;

/// What a notification says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// This happened.
    Event(StoreEvent),
    /// What happened is too long for a notification: it stands in the history, under this generation.
    LookUp(i64),
    /// Somebody tries out whether notifications get through.
    Trial,
    /// A newer version says something that this one does not understand.
    Unknown,
}

impl Message {
    pub(crate) const TRIAL: &str = "trial";

    pub(crate) fn read(payload: &str) -> Self {
        if payload == Self::TRIAL {
            return Self::Trial;
        }
        let mut words = payload.splitn(4, ' ');
        let (what, number) = (words.next(), words.next().and_then(|number| number.parse().ok()));
        let (Some(what), Some(number)) = (what, number) else { return Self::Unknown };
        let (ended, whose) = (words.next(), words.next());
        let end = ended.filter(|ended| *ended != "-").map(read_reason);
        match (what, whose) {
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

    use super::{super::Event, *};

    fn event(key: Option<&str>, tenant: Option<&str>, ended: Option<EndReason>) -> Event {
        Event { generation: 42, key: key.map(Into::into), tenant: tenant.map(Into::into), ended }
    }

    #[test]
    fn what_is_sent_is_what_is_heard() {
        for (key, tenant, ended) in [
            (Some("key_1"), None, None),
            (Some("  a b\n'\"ü "), Some("acme"), Some(EndReason::Revoked)),
            (None, Some("acme  inc "), Some(EndReason::TenantSuspended)),
            (None, Some(""), None),
        ] {
            let event = event(key, tenant, ended);
            let heard = Message::read(&event.to_payload());
            assert_eq!(heard, Message::Event(event.to_store_event().unwrap()), "{event:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_looked_up() {
        let payload = event(Some(&"x".repeat(8_000)), None, Some(EndReason::Revoked)).to_payload();
        assert_eq!(Message::read(&payload), Message::LookUp(42));
    }

    #[test]
    fn what_is_not_understood_is_not_taken_for_something_else() {
        for payload in
            ["", "key", "key 1", "key x - id", "key 1 -", "look", "look x", "lock 1 - id", "trial 1"]
        {
            assert_eq!(Message::read(payload), Message::Unknown, "{payload}");
        }
        assert_eq!(Message::read(Message::TRIAL), Message::Trial);
    }
}
