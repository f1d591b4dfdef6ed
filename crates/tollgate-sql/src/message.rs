//! The payloads of PostgreSQL notifications.
//!
//! Every login of the database can send notifications. So a payload only names an entry of the history, and by itself ends no
//! principal.

/// What a payload says.
#[cfg(feature = "postgres")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The history has an entry with this generation.
    Change(i64),
    /// A test whether notifications arrive.
    Probe,
    /// From a newer version, or from another program.
    Unknown,
}

/// The payload of a [probe](Message::Probe).
#[cfg(feature = "postgres")]
pub(crate) const PROBE: &str = "trial";

/// The payload of a [change](Message::Change).
pub(crate) fn payload_of_change(generation: i64) -> String {
    format!("change {generation}")
}

#[cfg(feature = "postgres")]
impl Message {
    pub(crate) fn read(payload: &str) -> Self {
        if payload == PROBE {
            return Self::Probe;
        }
        // A newer version may write more after the generation.
        let mut words = payload.split(' ');
        match (words.next(), words.next().and_then(|number| number.parse().ok())) {
            (Some("change"), Some(generation)) => Self::Change(generation),
            _ => Self::Unknown,
        }
    }

    /// The generation of a change.
    pub(crate) fn generation(&self) -> Option<i64> {
        match self {
            Self::Change(generation) => Some(*generation),
            Self::Probe | Self::Unknown => None,
        }
    }
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_read_as_it_was_written() {
        for generation in [1, 42, i64::MAX] {
            assert_eq!(Message::read(&payload_of_change(generation)), Message::Change(generation));
        }
        assert_eq!(Message::read("change 42 and more"), Message::Change(42));
        assert_eq!(Message::read(PROBE), Message::Probe);
        for payload in ["", "change", "change x", "change  1", "key 1 revoked key_1", "trial 1"] {
            assert_eq!(Message::read(payload), Message::Unknown, "{payload:?}");
        }
    }
}
