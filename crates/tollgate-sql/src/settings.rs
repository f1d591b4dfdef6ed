//! What a store is configured with.

use std::time::Duration;

use crate::connect_error::ConnectError;

/// A longer time is a mistake: it bounds nothing.
const MAX_TIME: Duration = Duration::from_hours(1);

/// More than servers allow.
const MAX_CONNECTIONS: u32 = 10_000;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) deadline: Duration,
    pub(crate) credit_deadline: Duration,
    pub(crate) admin_deadline: Duration,
    pub(crate) connections: u32,
    pub(crate) heartbeat: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) migrates: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(250),
            credit_deadline: Duration::from_secs(2),
            admin_deadline: Duration::from_secs(5),
            connections: 10,
            heartbeat: Duration::from_secs(1),
            poll_interval: Duration::from_millis(100),
            migrates: true,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), ConnectError> {
        for (name, time) in [
            ("deadline", self.deadline),
            ("credit deadline", self.credit_deadline),
            ("admin deadline", self.admin_deadline),
            ("heartbeat", self.heartbeat),
            ("poll interval", self.poll_interval),
        ] {
            if time.is_zero() || time > MAX_TIME {
                let what = format!("the {name} of a key store must be more than zero and at most one hour");
                return Err(ConnectError::InvalidSetting(what.into()));
            }
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            return Err(ConnectError::InvalidSetting("a key store needs 1 to 10,000 connections".into()));
        }
        Ok(())
    }
}
