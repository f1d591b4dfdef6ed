//! What happened, as the history has it and as others are told.

use tollgate_core::store::{EndReason, StoreEvent};

use crate::{database::Row, fault::Fault, record::generation};

/// The most bytes that PostgreSQL sends along with a notification, and a bit less.
const LONGEST: usize = 7_900;

/// What others must know of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) generation: i64,
    pub(crate) key: Option<Box<str>>,
    pub(crate) tenant: Option<Box<str>>,
    pub(crate) ended: Option<EndReason>,
}

impl Event {
    pub(crate) fn read(row: &Row) -> Result<Self, Fault> {
        let ended = row.some_text(3)?;
        Ok(Self {
            generation: row.number(0)?,
            key: row.some_text(1)?,
            tenant: row.some_text(2)?,
            ended: ended.map(|ended| read_reason(&ended)),
        })
    }

    /// The news that it is.
    pub(crate) fn to_store_event(&self) -> Option<StoreEvent> {
        let (generation, end) = (generation(self.generation), self.ended);
        match (&self.key, &self.tenant) {
            (Some(id), _) => Some(StoreEvent::Key { id: id.clone(), generation, end }),
            (None, Some(tenant)) => Some(StoreEvent::Tenant { tenant: tenant.clone(), generation, end }),
            (None, None) => None,
        }
    }

    /// What a notification says of it.
    pub(crate) fn to_payload(&self) -> String {
        let (what, whose) = match (&self.key, &self.tenant) {
            (Some(key), _) => ("key", &**key),
            (None, tenant) => ("tenant", tenant.as_deref().unwrap_or_default()),
        };
        let ended = self.ended.map_or("-", reason_word);
        let payload = format!("{what} {} {ended} {whose}", self.generation);
        if payload.len() > LONGEST { format!("look {}", self.generation) } else { payload }
    }
}

/// The word for a reason, in the history and in notifications.
pub(crate) fn reason_word(reason: EndReason) -> &'static str {
    match reason {
        EndReason::TenantSuspended => "suspended",
        _ => "revoked",
    }
}

/// An end for a reason that this version does not know is an end.
pub(super) fn read_reason(word: &str) -> EndReason {
    if word == "suspended" { EndReason::TenantSuspended } else { EndReason::Revoked }
}
