//! What processes publish: `v1 PROCESS key GENERATION END ID`, `v1 PROCESS tenant GENERATION END TENANT`, or `v1 PROCESS all`.
//!
//! Others than Tollgate may publish on the channel. So a message only says what to read again in the store, and by itself ends no
//! principal.

use tollgate_core::store::{EndReason, StoreEvent};

const VERSION: &str = "v1";

/// A message, as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A key or a tenant has changed.
    Event(StoreEvent),
    /// Any key may have changed. Also what a newer version says that this one does not know.
    All,
    /// From this process itself, or from no process of Tollgate.
    Ignored,
}

/// The text that says that any key may have changed.
pub(super) fn text_of_all(process: &str) -> String {
    format!("{VERSION} {process} all")
}

/// The text of an event.
pub(super) fn text_of(process: &str, event: &StoreEvent) -> String {
    match event {
        StoreEvent::Key { id, generation, end } => {
            format!("{VERSION} {process} key {generation} {} {id}", word(*end))
        }
        StoreEvent::Tenant { tenant, generation, end } => {
            format!("{VERSION} {process} tenant {generation} {} {tenant}", word(*end))
        }
        _ => text_of_all(process),
    }
}

fn word(end: Option<EndReason>) -> &'static str {
    match end {
        None => "-",
        Some(EndReason::TenantSuspended) => "suspended",
        Some(_) => "revoked",
    }
}

impl Message {
    pub(super) fn read(own_process: &str, payload: &[u8]) -> Self {
        let Ok(text) = str::from_utf8(payload) else { return Self::Ignored };
        // An identifier may contain spaces.
        let words: Vec<_> = text.splitn(6, ' ').collect();
        match *words {
            [VERSION, process, ..] if process == own_process => Self::Ignored,
            [VERSION, _, what @ ("key" | "tenant"), generation, end, name] => {
                let Ok(generation) = generation.parse() else { return Self::All };
                let end = read_end(end);
                Self::Event(if what == "key" {
                    StoreEvent::Key { id: name.into(), generation, end }
                } else {
                    StoreEvent::Tenant { tenant: name.into(), generation, end }
                })
            }
            [version, _, _, ..] if is_version(version) => Self::All,
            _ => Self::Ignored,
        }
    }
}

/// A newer version may write other words.
fn read_end(word: &str) -> Option<EndReason> {
    match word {
        "-" => None,
        "suspended" => Some(EndReason::TenantSuspended),
        _ => Some(EndReason::Revoked),
    }
}

fn is_version(word: &str) -> bool {
    word.strip_prefix('v').is_some_and(|number| number.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written_but_not_by_its_writer() {
        let reasons = [None, Some(EndReason::Revoked), Some(EndReason::TenantSuspended)];
        for (end, name) in reasons.into_iter().zip(["key_1", "", "a b\n\u{e9}  "]) {
            let key = StoreEvent::Key { id: name.into(), generation: u64::MAX, end };
            let tenant = StoreEvent::Tenant { tenant: name.into(), generation: 7, end };
            for event in [key, tenant] {
                let text = text_of("one", &event);
                assert_eq!(Message::read("other", text.as_bytes()), Message::Event(event), "{text:?}");
                assert_eq!(Message::read("one", text.as_bytes()), Message::Ignored, "{text:?}");
            }
        }
        assert_eq!(Message::read("other", text_of_all("one").as_bytes()), Message::All);
    }

    #[test]
    fn what_a_newer_version_says_may_be_about_any_key() {
        for text in ["v2 one key 1 - key_1", "v1 one plan 7", "v1 one key x - key_1", "v17 one everything"] {
            assert_eq!(Message::read("other", text.as_bytes()), Message::All, "{text:?}");
        }
    }

    #[test]
    fn what_strangers_say_is_ignored() {
        let texts: [&[u8]; 8] =
            [b"", b"hello", b"v1", b"v1 one", b"vx one all", b"revoked key_1", b"\xff\xfe", b"v99999 a b"];
        for text in texts {
            assert_eq!(Message::read("other", text), Message::Ignored, "{text:?}");
        }
    }
}
