//! What each account owns: its targets, their scans, and the alerts of these. In memory, while the service runs.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Map, Value, json};

/// How many targets an account has at most.
const MAX_TARGETS: usize = 100;

/// How many scans an account keeps. A new one removes the oldest one, with its alert.
const MAX_SCANS: usize = 500;

/// The inventories of all accounts. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Inventory(Arc<Mutex<HashMap<String, Owned>>>);

impl Inventory {
    /// Acts on what an account owns. No other account's data can be reached by `act`.
    pub(crate) fn of<T>(&self, account: &str, act: impl FnOnce(&mut Owned) -> T) -> T {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(accounts.entry(account.to_owned()).or_default())
    }
}

/// What one account owns, oldest first.
#[derive(Default)]
pub(crate) struct Owned {
    pub(crate) targets: Vec<Target>,
    pub(crate) scans: VecDeque<Scan>,
    pub(crate) alerts: VecDeque<Alert>,
}

pub(crate) struct Target {
    pub(crate) id: String,
    /// As sent: `target`, `label`, `scan_profile`, `interval`, `enabled`, and other fields.
    pub(crate) settings: Map<String, Value>,
}

pub(crate) struct Scan {
    pub(crate) id: String,
    pub(crate) target: String,
    pub(crate) host: String,
}

/// One alert for each scan: a port that was not open before.
pub(crate) struct Alert {
    pub(crate) id: String,
    scan: String,
    target: String,
    pub(crate) status: &'static str,
}

impl Owned {
    /// Adds a target. `None` if there are too many.
    pub(crate) fn add(&mut self, settings: Map<String, Value>) -> Option<&Target> {
        if self.targets.len() >= MAX_TARGETS {
            return None;
        }
        self.targets.push(Target { id: new_id("target"), settings });
        self.targets.last()
    }

    /// A target that was scanned once.
    pub(crate) fn add_samples(&mut self) {
        let sample =
            json!({ "target": "192.0.2.10", "label": "sample", "scan_profile": "standard", "interval": 60 });
        let target = sample.as_object().cloned().and_then(|settings| self.add(settings));
        if let Some(id) = target.map(|target| target.id.clone()) {
            self.scan(&id);
        }
    }

    pub(crate) fn target(&mut self, id: &str) -> Option<&mut Target> {
        self.targets.iter_mut().find(|target| target.id == id)
    }

    /// Removes a target, its scans and its alerts. Returns whether it existed.
    pub(crate) fn remove(&mut self, id: &str) -> bool {
        let before = self.targets.len();
        self.targets.retain(|target| target.id != id);
        self.scans.retain(|scan| scan.target != id);
        self.alerts.retain(|alert| alert.target != id);
        self.targets.len() < before
    }

    /// Scans a target, which is done at once.
    pub(crate) fn scan(&mut self, target: &str) -> Option<&Scan> {
        let host = self.target(target)?.host();
        if self.scans.len() >= MAX_SCANS
            && let Some(oldest) = self.scans.pop_front()
        {
            self.alerts.retain(|alert| alert.scan != oldest.id);
        }
        let scan = Scan { id: new_id("scan"), target: target.to_owned(), host };
        self.alerts.push_back(Alert {
            id: new_id("alert"),
            scan: scan.id.clone(),
            target: target.to_owned(),
            status: "open",
        });
        self.scans.push_back(scan);
        self.scans.back()
    }
}

impl Target {
    pub(crate) fn is_enabled(&self) -> bool {
        self.settings.get("enabled") != Some(&Value::Bool(false))
    }

    fn host(&self) -> String {
        self.settings.get("target").and_then(Value::as_str).unwrap_or(&self.id).to_owned()
    }

    pub(crate) fn describe(&self) -> Value {
        let mut described = self.settings.clone();
        described.insert("id".to_owned(), self.id.clone().into());
        described.into()
    }
}

impl Scan {
    pub(crate) fn describe(&self) -> Value {
        json!({ "id": self.id, "target_id": self.target, "status": "completed", "progress": 100 })
    }
}

impl Alert {
    pub(crate) fn describe(&self) -> Value {
        json!({
            "id": self.id,
            "target_id": self.target,
            "scan_id": self.scan,
            "kind": "new_port",
            "port": 8080,
            "status": self.status,
        })
    }
}

/// An identifier that no other account has, so that a mix-up of accounts is found.
fn new_id(kind: &str) -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    format!("{kind}_{}", LAST.fetch_add(1, Ordering::Relaxed) + 1)
}
