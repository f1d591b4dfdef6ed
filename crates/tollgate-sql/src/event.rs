//! A change as the history records it.

use tollgate_core::store::{EndReason, StoreEvent};

use crate::{database::Row, fault::Fault, record::generation};

/// What other processes must know of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) generation: i64,
    pub(crate) key: Option<Box<str>>,
    pub(crate) tenant: Option<Box<str>>,
    pub(crate) ended: Option<EndReason>,
}

impl Event {
    /// Reads the columns `generation, key_id, tenant, ended` of the history.
    pub(crate) fn read(row: &Row) -> Result<Self, Fault> {
        let ended = row.optional_text(3)?;
        Ok(Self {
            generation: row.number(0)?,
            key: row.optional_text(1)?,
            tenant: row.optional_text(2)?,
            ended: ended.map(|ended| read_reason(&ended)),
        })
    }

    /// The event for listeners of this process.
    pub(crate) fn to_store_event(&self) -> Option<StoreEvent> {
        let (generation, end) = (generation(self.generation), self.ended);
        match (&self.key, &self.tenant) {
            (Some(id), _) => Some(StoreEvent::Key { id: id.clone(), generation, end }),
            (None, Some(tenant)) => Some(StoreEvent::Tenant { tenant: tenant.clone(), generation, end }),
            (None, None) => None,
        }
    }
}

/// The word for a reason in the history.
pub(crate) fn reason_word(reason: EndReason) -> &'static str {
    match reason {
        EndReason::TenantSuspended => "suspended",
        _ => "revoked",
    }
}

/// A newer version may write other words. They end a principal, too.
pub(crate) fn read_reason(word: &str) -> EndReason {
    if word == "suspended" { EndReason::TenantSuspended } else { EndReason::Revoked }
}
