//! What a process knows of one set of charges.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;
use tollgate_core::limit::{Charge, Counter, Decision, LimitRequest};

use super::{Counters, GiveBack, Leases, pace::FIRST_LEASE};
use crate::limiter::{Charges, Reply, counted, decide, nanos};

const MILLIS: u64 = 1_000_000;

/// A lease is as large as what is spent in this time, in nanoseconds.
pub(super) const LEASE_LENGTH: u64 = 100 * MILLIS;

/// After this time, what is left of a lease is given back.
const LEASE_LIFE: u64 = 250 * MILLIS;

/// How long a quota is taken to be used up without asking. It can be raised by a reset, and by what other processes give back.
const REFUSAL_LIFE: u64 = 1_000 * MILLIS;

/// A subject that spends less than this in 100 ms borrows nothing.
const LEAST_WANTED: u64 = 4;

/// The most that is borrowed at once.
const MOST_WANTED: u64 = 1_000_000;

/// A subject that is not used for this time is forgotten.
const IDLE: u64 = 2_000 * MILLIS;

/// A set of charges that has a lease, is asking for one, or is used up.
pub(super) struct Subject {
    known: Option<Known>,
    /// How much of the lease is left, and until when it may be spent.
    left: u64,
    lease_ends_at: u64,
    /// What is left of leases under other quotas: at most one that was being spent, and one that was being asked for.
    outdated: Vec<GiveBack>,
    /// A question keeps the sender, until it has its answer.
    asked: Option<watch::Receiver<()>>,
    /// What was spent since the last answer, and how much those need who wait for the next one.
    spent: u64,
    waiting: u64,
    answered_at: u64,
    /// How much was wanted last.
    wanted: u64,
    used_at: u64,
}

/// What Redis has answered last.
struct Known {
    charges: Arc<Charges>,
    /// The counters after that.
    counters: Counters,
    /// The instant of the decision by the clock that decides, and when it was asked for. By now, that clock shows at most this instant
    /// and the time since the question.
    at: SystemTime,
    sent_at: u64,
    is_refused: bool,
}

/// What a subject decides.
pub(super) enum Local {
    Decided(Decision),
    Direct,
    Wait(watch::Receiver<()>),
    Ask {
        wanted: u64,
        asked: watch::Sender<()>,
    },
    /// As `Direct`, and the subject is no longer needed.
    Forget,
}

impl Subject {
    pub(super) fn new(now: u64) -> Self {
        Self {
            known: None,
            left: 0,
            lease_ends_at: 0,
            outdated: Vec::new(),
            asked: None,
            spent: 0,
            waiting: 0,
            answered_at: now,
            wanted: 0,
            used_at: now,
        }
    }

    /// A subject whose first request asks.
    pub(super) fn asking(wanted: u64, now: u64) -> (Self, watch::Sender<()>) {
        let (sender, receiver) = watch::channel(());
        (Self { asked: Some(receiver), wanted, ..Self::new(now) }, sender)
    }

    /// The question that has no answer yet.
    fn asked(&self) -> Option<&watch::Receiver<()>> {
        self.asked.as_ref().filter(|asked| asked.has_changed().is_ok())
    }

    pub(super) fn decide(&mut self, request: &LimitRequest<'_>, cost: u64, mode: Leases, now: u64) -> Local {
        self.used_at = self.used_at.max(now);
        self.drop_other_quota(request.charges);
        if let Some(known) = &self.known {
            if self.left >= cost && now < self.lease_ends_at {
                self.left -= cost;
                self.spent = self.spent.saturating_add(cost);
                return Local::Decided(known.admit(request.charges, now));
            }
            let is_trusted = self.asked().is_some() || now.saturating_sub(known.sent_at) < REFUSAL_LIFE;
            if known.is_refused
                && is_trusted
                && let Some(refusal) = known.refuse(request.charges, now)
            {
                return Local::Decided(refusal);
            }
        }
        self.ask_or_wait(cost, mode, now)
    }

    fn ask_or_wait(&mut self, cost: u64, mode: Leases, now: u64) -> Local {
        // Requests with two quotas by turns would only give back what each other has borrowed.
        if !self.outdated.is_empty() {
            return Local::Direct;
        }
        if let Some(asked) = self.asked().cloned() {
            if mode == Leases::Off {
                return Local::Direct;
            }
            self.waiting = self.waiting.saturating_add(cost);
            return Local::Wait(asked);
        }
        self.wanted = self.wanted(mode, now);
        let is_refused = self.known.as_ref().is_some_and(|known| known.is_refused);
        if self.wanted == 0 && self.left == 0 && !is_refused {
            return Local::Forget;
        }
        self.waiting = 0;
        let (sender, receiver) = watch::channel(());
        self.asked = Some(receiver);
        Local::Ask { wanted: self.wanted, asked: sender }
    }

    /// How much to borrow: what is spent in 100 ms, as since the last answer. After a refusal, as much as before it.
    fn wanted(&self, mode: Leases, now: u64) -> u64 {
        if mode == Leases::Off {
            return 0;
        }
        if self.known.as_ref().is_some_and(|known| known.is_refused) {
            return self.wanted;
        }
        let elapsed = now.saturating_sub(self.answered_at).max(MILLIS);
        let used = self.spent.saturating_add(self.waiting);
        let wanted = u128::from(used) * u128::from(LEASE_LENGTH) / u128::from(elapsed);
        let wanted = u64::try_from(wanted).unwrap_or(MOST_WANTED).min(MOST_WANTED);
        match mode {
            Leases::Always => wanted.max(FIRST_LEASE),
            _ if wanted < LEAST_WANTED => 0,
            _ => wanted,
        }
    }

    pub(super) fn answered(&mut self, charges: &Arc<Charges>, reply: &Reply, sent_at: u64) {
        let counters = counted(charges, reply, reply.lent);
        self.left = reply.lent;
        self.lease_ends_at = sent_at.saturating_add(life(&counters, reply.at));
        self.spent = 0;
        self.answered_at = sent_at;
        self.known = Some(Known {
            charges: Arc::clone(charges),
            counters,
            at: reply.at,
            sent_at,
            is_refused: !reply.is_allowed,
        });
    }

    /// Redis has refused a request that did not ask for a lease.
    pub(super) fn refused(&mut self, charges: &Arc<Charges>, reply: &Reply, sent_at: u64) {
        // The counters of a lease are needed to give it back.
        if self.left == 0 {
            self.answered(charges, reply, sent_at);
        }
    }

    /// Puts back what was admitted by the answer to a question, if that is still what is known.
    pub(super) fn put_back(&mut self, charges: &Arc<Charges>) {
        let cost = charges.all.first().map_or(0, |charge| charge.cost);
        if self.known.as_ref().is_some_and(|known| Arc::ptr_eq(&known.charges, charges)) {
            self.left = self.left.saturating_add(cost);
        }
    }

    pub(super) fn is_due(&self, now: u64) -> bool {
        !self.outdated.is_empty() || (self.left > 0 && now >= self.lease_ends_at)
    }

    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.left == 0
            && self.outdated.is_empty()
            && self.asked().is_none()
            && now.saturating_sub(self.used_at) > IDLE
    }

    /// Takes all that is to be given back.
    pub(super) fn take(&mut self) -> Vec<GiveBack> {
        let mut unused = std::mem::take(&mut self.outdated);
        unused.extend(self.take_left());
        unused
    }

    /// Takes what is left of the lease.
    pub(super) fn take_left(&mut self) -> Option<GiveBack> {
        let units = std::mem::take(&mut self.left);
        let known = self.known.as_ref().filter(|_| units > 0)?;
        Some(GiveBack { charges: Arc::clone(&known.charges), units, counters: known.counters.clone() })
    }

    /// What is known under another quota does not count.
    fn drop_other_quota(&mut self, charges: &[Charge<'_>]) {
        if self.known.as_ref().is_some_and(|known| !known.has_quotas_of(charges)) {
            let left = self.take_left();
            self.outdated.extend(left);
            self.known = None;
        }
    }
}

/// For how long after the question what was borrowed may be spent: only in the windows that have counted it.
fn life(counters: &[Counter], at: SystemTime) -> u64 {
    let at = nanos(at.duration_since(UNIX_EPOCH).unwrap_or_default());
    let ends = counters.iter().filter_map(|counter| match counter {
        Counter::FixedWindow(counter) => Some(counter.ends_at),
        Counter::SlidingWindow(counter) => Some(counter.ends_at),
        _ => None,
    });
    let left = ends.map(|ends_at| ends_at.saturating_mul(1_000 * MILLIS).saturating_sub(at));
    left.min().unwrap_or(0).min(LEASE_LIFE)
}

impl Known {
    fn has_quotas_of(&self, charges: &[Charge<'_>]) -> bool {
        self.charges.all.iter().map(|own| &own.quota).eq(charges.iter().map(|charge| charge.quota))
    }

    /// An admission that is counted already.
    fn admit(&self, charges: &[Charge<'_>], now: u64) -> Decision {
        decide(charges.iter().map(|charge| charge.settled(0)), &self.counters, self.instant(now))
    }

    /// The refusal, if the quota is still used up.
    fn refuse(&self, charges: &[Charge<'_>], now: u64) -> Option<Decision> {
        let instant = self.instant(now);
        let limits = charges.iter().flat_map(|charge| charge.quota.limits());
        let counters: Counters =
            limits.zip(&self.counters).map(|(limit, counter)| counter.at(limit, instant)).collect();
        let decision = decide(charges.iter().copied(), &counters, instant);
        (!decision.is_allowed()).then_some(decision)
    }

    /// The latest instant that the clock that decides can show now.
    fn instant(&self, now: u64) -> SystemTime {
        self.at + Duration::from_nanos(now.saturating_sub(self.sent_at))
    }
}
