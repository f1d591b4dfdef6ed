//! A process, and what it was lent and refused.

use std::{
    mem,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tollgate_core::limit::{Decision, LimitRequest, Quota};

use super::{
    MILLIS,
    server::{Counts, START, add_to_windows, ends, fixed},
};
use crate::{
    leases::{Ask, Counters, GiveBack, LeaseTable, Leases, Name, Step},
    limiter::{Charges, Reply, counted, nanos},
};

pub(super) struct Process {
    mode: Leases,
    table: LeaseTable,
    name: Name,
    /// How often it was started.
    pub(super) life: u32,
    /// The last one is the one that is spent, unless it is outdated.
    leases: Vec<Lease>,
    refusals: Vec<Refusal>,
}

struct Lease {
    charges: Arc<Charges>,
    /// The counters that have counted it.
    counters: Counters,
    units: u64,
    /// By the process's clock.
    ends_at: u64,
    /// The quota was another one since then.
    is_outdated: bool,
}

struct Refusal {
    quota: Quota,
    counters: Counters,
    sent_at: u64,
}

/// A lease may be spent for so long.
const LEASE_LIFE: u64 = 250 * MILLIS;

/// A refusal is remembered for so long.
const REFUSAL_LIFE: u64 = 1_000 * MILLIS;

impl Process {
    pub(super) fn new(mode: Leases) -> Self {
        Self {
            mode,
            table: LeaseTable::new(mode),
            name: 0,
            life: 0,
            leases: Vec::new(),
            refusals: Vec::new(),
        }
    }

    /// All that it has borrowed is lost.
    pub(super) fn crash(&mut self, lost: &mut Counts) {
        for lease in &self.leases {
            add_to_windows(lost, &lease.counters, lease.units);
        }
        *self = Self { life: self.life + 1, ..Self::new(self.mode) };
    }

    /// The process's own clock, which is not Redis's.
    pub(super) fn elapsed(&self, now: u64) -> u64 {
        now - START + u64::from(self.life) * 7
    }

    pub(super) fn step(&mut self, request: &LimitRequest<'_>) -> Step {
        let quota = request.charges[0].quota;
        self.refusals.retain(|refusal| refusal.quota == *quota);
        for lease in &mut self.leases {
            lease.is_outdated |= lease.charges.all[0].quota != *quota;
        }
        self.name = self.table.name(request.charges);
        let now = nanos(request.now.duration_since(UNIX_EPOCH).unwrap());
        self.table.step(self.name, request, self.elapsed(now))
    }

    /// An admission without Redis: it is borrowed, and counted in the present windows.
    pub(super) fn spends(&mut self, decision: &Decision, cost: u64, now: u64, admitted: &mut Counts) {
        let elapsed = self.elapsed(now);
        let lease = self.leases.last_mut().expect("a lease");
        assert!(!lease.is_outdated && elapsed < lease.ends_at, "it has ended");
        lease.units = lease.units.checked_sub(cost).expect("not more than was lent");
        for ((counter, end), window) in lease.counters.iter().zip(ends(now)).zip(decision.windows()) {
            assert_eq!(fixed(counter).ends_at, end, "it is spent in the windows that have counted it");
            assert_eq!((window.reset_second, window.used), (end, fixed(counter).used), "{window:?}");
        }
        add_to_windows(admitted, &lease.counters, cost);
    }

    /// A refusal without Redis: Redis has refused under the same quota, and the windows are still those.
    pub(super) fn may_refuse(
        &self,
        decision: &Decision,
        quota: &Quota,
        cost: u64,
        now: u64,
        is_asking: bool,
    ) {
        let elapsed = self.elapsed(now);
        let follows = |refusal: &&Refusal| {
            let is_used_up = |((counter, limit), end)| {
                let (counter, limit): (_, &tollgate_core::limit::WindowLimit) = (fixed(counter), limit);
                counter.ends_at == end && counter.used + cost > limit.limit
            };
            refusal.quota == *quota
                && (is_asking || elapsed - refusal.sent_at < REFUSAL_LIFE)
                && refusal.counters.iter().zip(quota.limits()).zip(ends(now)).any(is_used_up)
        };
        assert!(self.refusals.iter().any(|refusal| follows(&refusal)), "nothing has refused: {decision:?}");
    }

    pub(super) fn take_returned(&mut self, ask: &Ask) -> Option<(u64, Counters)> {
        let returned = self.table.take_returned(ask);
        let lease = self.leases.last_mut().filter(|lease| !lease.is_outdated);
        let left = lease.map_or(0, |lease| mem::take(&mut lease.units));
        assert_eq!(returned.as_ref().map_or(0, |(units, _)| *units), left, "all that is left is given back");
        returned
    }

    pub(super) fn take_unused(&mut self, now: u64) -> Vec<GiveBack> {
        let elapsed = self.elapsed(now);
        let unused = self.table.take_unused(elapsed);
        for given_back in &unused {
            let lease = self.leases.iter_mut().find(|lease| Arc::ptr_eq(&lease.charges, &given_back.charges));
            let lease = lease.expect("it was lent");
            assert!(lease.is_outdated || elapsed >= lease.ends_at, "it can still be spent");
            assert_eq!(mem::take(&mut lease.units), given_back.units, "all that is left is given back");
        }
        let kept = |lease: &Lease| lease.units > 0 && elapsed >= lease.ends_at;
        assert!(!self.leases.iter().any(kept), "what is not used is given back");
        self.leases.retain(|lease| lease.units > 0);
        unused
    }

    pub(super) fn is_answered(&mut self, ask: &Ask, charges: &Arc<Charges>, reply: &Reply, sent_at: u64) {
        self.table.answered(ask, charges, reply);
        if reply.is_allowed {
            self.refusals.clear();
        } else {
            self.keep_refusal(charges, reply, sent_at);
        }
        let counters = counted(charges, reply, reply.lent);
        let end = counters.iter().map(|counter| fixed(counter).ends_at).min().unwrap();
        let life = end * 1_000 * MILLIS - nanos(reply.at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        self.leases.push(Lease {
            charges: Arc::clone(charges),
            counters,
            units: reply.lent,
            ends_at: sent_at + life.min(LEASE_LIFE),
            is_outdated: false,
        });
    }

    pub(super) fn is_refused(&mut self, charges: &Arc<Charges>, reply: &Reply, sent_at: u64) {
        self.table.remember_refusal(self.name, charges, reply, sent_at);
        self.keep_refusal(charges, reply, sent_at);
    }

    fn keep_refusal(&mut self, charges: &Charges, reply: &Reply, sent_at: u64) {
        let quota = charges.all[0].quota.clone();
        self.refusals.push(Refusal { quota, counters: reply.counters.clone(), sent_at });
    }

    /// The caller of the request that has asked is gone: what it was to spend is left for others.
    pub(super) fn put_back(&mut self, ask: &Ask, charges: &Arc<Charges>) {
        self.table.put_back(ask, charges);
        let lease = self.leases.last_mut().expect("the lease of this question");
        lease.units += charges.all[0].cost;
    }
}
