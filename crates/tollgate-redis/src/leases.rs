//! What a process has borrowed of busy subjects' quotas, and which quotas it knows to be used up.
//!
//! There is no input and output here, and no clock: the limiter asks what to do about a request, and tells what Redis has answered. A
//! simulation does the same.

#[cfg(test)]
mod model;
mod pace;
mod subject;

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use smallvec::SmallVec;
use tokio::sync::watch;
use tollgate_core::limit::{Algorithm, Charge, Counter, Decision, LimitRequest};

use self::{
    pace::Pace,
    subject::{Local, Subject},
};
use crate::limiter::{Charges, Reply};

/// Which subjects a process borrows for: it takes many units of a quota at once, and spends them without asking Redis.
///
/// # What holds
///
/// - All processes together never admit more than the quota. What is borrowed is counted when it is borrowed, and is only spent in the
///   window in which it was counted, by the server's clock. A machine whose own clock stands still meanwhile, because it is suspended, can
///   spend one lease later.
/// - A process borrows at most an eighth of what remains, and about what the subject uses in 100 ms. So near the limit, each request is
///   decided by Redis again.
/// - What is not spent within 250 ms is given back, at the next request or after 100 ms more.
/// - The headers show what remained in Redis at most 250 ms before, without what is borrowed. Each process can admit it, as long as other
///   requests of the subject do not use or borrow it first, and the process has not refused the subject within the last second.
/// - A process that is killed takes its leases with it: these units remain unused until their windows end.
///   [`RedisLimiter::close`](crate::RedisLimiter::close) gives them back.
///
/// A lease is for a set of charges that a request has, such as a key and its tenant, and spends all their windows at once. Requests with
/// a token bucket, with a cost that is known later, or with different costs for different policies are always decided by Redis.
///
/// # Memory
///
/// At most 65,536 sets of charges have a lease or are known to be used up, at about 1 KiB each. Others are decided by Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leases {
    /// Redis decides about each request that it has to admit.
    Off,
    /// Subjects with more than 100 requests per second in this process are leased. The default.
    #[default]
    Auto,
    /// Every subject is leased from its first request on.
    Always,
}

/// Identifies a set of charges.
pub(crate) type Name = u128;

/// The counters of a set of charges, one for each limit.
pub(crate) type Counters = SmallVec<[Counter; 4]>;

/// What to do about a request.
#[derive(Debug)]
pub(crate) enum Step {
    /// It is decided.
    Decided(Decision),
    /// Ask Redis for this request alone.
    Direct,
    /// Another request of the same charges is asking. The receiver learns when it has its answer.
    Wait(watch::Receiver<()>),
    /// Ask Redis, and tell the table.
    Ask(Ask),
}

/// A question for Redis, on behalf of all requests with the same charges. Dropped, those who wait for its answer go on, and one of them
/// asks again: a caller can hang up before the question is sent.
#[derive(Debug)]
pub(crate) struct Ask {
    name: Name,
    /// How many units to borrow beyond the request's cost.
    pub(crate) wanted: u64,
    sent_at: u64,
    _asked: watch::Sender<()>,
}

/// Units that are not used, and the counters that have counted them.
#[derive(Debug)]
pub(crate) struct GiveBack {
    pub(crate) charges: Arc<Charges>,
    pub(crate) units: u64,
    pub(crate) counters: Counters,
}

/// All leases of a process.
pub(crate) struct LeaseTable {
    mode: Leases,
    shards: [Mutex<HashMap<Name, Subject>>; SHARDS],
    hashers: [RandomState; 2],
    pace: Pace,
}

const SHARDS: usize = 64;
const MOST_PER_SHARD: usize = 1_024;

impl LeaseTable {
    pub(crate) fn new(mode: Leases) -> Self {
        Self {
            mode,
            shards: std::array::from_fn(|_| Mutex::default()),
            hashers: [RandomState::new(), RandomState::new()],
            pace: Pace::new(),
        }
    }

    /// What to do about a request at `now`, in nanoseconds. `name` is that of its charges.
    pub(crate) fn step(&self, name: Name, request: &LimitRequest<'_>, now: u64) -> Step {
        let Some(kind) = Kind::of(request.charges) else { return Step::Direct };
        let mode = if kind.is_lent { self.mode } else { Leases::Off };
        let mut shard = self.shard(name);
        let is_full = shard.len() >= MOST_PER_SHARD;
        match shard.entry(name) {
            Entry::Occupied(mut entry) => match entry.get_mut().decide(request, kind.cost, mode, now) {
                Local::Decided(decision) => Step::Decided(decision),
                Local::Wait(asked) => Step::Wait(asked),
                Local::Ask { wanted, asked } => Step::Ask(Ask { name, wanted, sent_at: now, _asked: asked }),
                Local::Direct => Step::Direct,
                Local::Forget => {
                    entry.remove();
                    Step::Direct
                }
            },
            Entry::Vacant(entry) => match self.pace.first_lease(mode, name, now) {
                Some(wanted) if !is_full => {
                    let (subject, asked) = Subject::asking(wanted, now);
                    entry.insert(subject);
                    Step::Ask(Ask { name, wanted, sent_at: now, _asked: asked })
                }
                _ => Step::Direct,
            },
        }
    }

    /// Takes what is left of the lease before, to give it back with the question, and the counters that have counted it.
    pub(crate) fn take_returned(&self, ask: &Ask) -> Option<(u64, Counters)> {
        let returned = self.shard(ask.name).get_mut(&ask.name)?.take_left()?;
        Some((returned.units, returned.counters))
    }

    /// Keeps what was borrowed, or that the quota is used up.
    pub(crate) fn answered(&self, ask: &Ask, charges: &Arc<Charges>, reply: &Reply) {
        if let Some(subject) = self.shard(ask.name).get_mut(&ask.name) {
            subject.answered(charges, reply, ask.sent_at);
        }
    }

    /// Puts back what the request was to spend, because its caller is gone. `charges` are those of the answer.
    pub(crate) fn put_back(&self, ask: &Ask, charges: &Arc<Charges>) {
        if let Some(subject) = self.shard(ask.name).get_mut(&ask.name) {
            subject.put_back(charges);
        }
    }

    /// Remembers that Redis has refused a request that was sent at `sent_at`.
    pub(crate) fn remember_refusal(&self, name: Name, charges: &Arc<Charges>, reply: &Reply, sent_at: u64) {
        if Kind::of(&charges.borrowed()).is_none() {
            return;
        }
        let mut shard = self.shard(name);
        let is_full = shard.len() >= MOST_PER_SHARD;
        match shard.entry(name) {
            Entry::Occupied(mut entry) => entry.get_mut().refused(charges, reply, sent_at),
            Entry::Vacant(entry) if !is_full => {
                let mut subject = Subject::new(sent_at);
                subject.refused(charges, reply, sent_at);
                entry.insert(subject);
            }
            Entry::Vacant(_) => {}
        }
    }

    /// Takes what is borrowed and was not spent in time, and forgets subjects that are no longer used.
    pub(crate) fn take_unused(&self, now: u64) -> Vec<GiveBack> {
        self.take(|subject| subject.is_due(now), |subject| subject.is_idle(now))
    }

    /// Takes all that is borrowed.
    pub(crate) fn take_all(&self) -> Vec<GiveBack> {
        self.take(|_| true, |_| false)
    }

    fn take(&self, is_due: impl Fn(&Subject) -> bool, is_idle: impl Fn(&Subject) -> bool) -> Vec<GiveBack> {
        let mut unused = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            for subject in shard.values_mut().filter(|subject| is_due(subject)) {
                unused.extend(subject.take());
            }
            shard.retain(|_, subject| !is_idle(subject));
            if shard.is_empty() {
                shard.shrink_to_fit();
            }
        }
        unused
    }

    /// The fingerprint of the names of all charges, by a hash that strangers cannot predict.
    pub(crate) fn name(&self, charges: &[Charge<'_>]) -> Name {
        let [low, high] = self.hashers.each_ref().map(|hasher| {
            let mut hasher = hasher.build_hasher();
            for charge in charges {
                (charge.policy.as_str(), charge.group, charge.subject).hash(&mut hasher);
            }
            hasher.finish()
        });
        u128::from(low) | u128::from(high) << 64
    }

    fn shard(&self, name: Name) -> MutexGuard<'_, HashMap<Name, Subject>> {
        // Cannot fail: it is below 64.
        let at = usize::try_from(name % SHARDS as u128).unwrap_or_default();
        #[expect(clippy::indexing_slicing, reason = "taken modulo the length")]
        lock(&self.shards[at])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change leaves a subject valid, so a panic on another thread does no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the charges of a request have in common, if a quota that is used up can be remembered for them.
struct Kind {
    cost: u64,
    /// Whether units can be lent.
    is_lent: bool,
}

impl Kind {
    fn of(charges: &[Charge<'_>]) -> Option<Self> {
        let cost = charges.first()?.cost;
        let is_plain = |charge: &Charge<'_>| charge.cost == cost && charge.required == cost;
        let limits = || charges.iter().flat_map(|charge| charge.quota.limits());
        (cost > 0 && charges.iter().all(is_plain) && limits().next().is_some()).then(|| Self {
            cost,
            is_lent: !limits().any(|limit| matches!(limit.algorithm, Algorithm::TokenBucket { .. })),
        })
    }
}

impl fmt::Debug for LeaseTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseTable").field("mode", &self.mode).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use tollgate_core::limit::{FixedWindow, PerWindow as _, Quota};

    use super::*;

    fn charge(quota: &Quota) -> [Charge<'_>; 1] {
        [Charge::new("key", "ada", "acme", quota)]
    }

    fn step(table: &LeaseTable, quota: &Quota, now: u64) -> Step {
        table.step(7, &LimitRequest::new(&charge(quota), UNIX_EPOCH), now)
    }

    fn answer(table: &LeaseTable, ask: &Ask, quota: &Quota, lent: u64) -> Arc<Charges> {
        let charges =
            Arc::new(Charges::new("tollgate", &LimitRequest::new(&charge(quota), SystemTime::UNIX_EPOCH)));
        let counter = Counter::FixedWindow(FixedWindow { ends_at: 60, used: 0 });
        let reply =
            Reply { is_allowed: true, lent, at: UNIX_EPOCH, counters: std::iter::once(counter).collect() };
        table.answered(ask, &charges, &reply);
        charges
    }

    fn ask(step: Step) -> Ask {
        match step {
            Step::Ask(ask) => ask,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_that_is_never_sent_does_not_block_others() {
        let (table, quota) = (LeaseTable::new(Leases::Always), 900.per_minute());
        let first = ask(step(&table, &quota, 0));
        assert!(matches!(step(&table, &quota, 1), Step::Wait(_)));
        drop(first);
        assert!(matches!(step(&table, &quota, 2), Step::Ask(_)));
    }

    #[test]
    fn exactly_what_is_lent_is_spent_and_what_a_caller_left_is_put_back() {
        let (table, quota) = (LeaseTable::new(Leases::Always), 900.per_minute());
        let first = ask(step(&table, &quota, 0));
        let charges = answer(&table, &first, &quota, 2);
        table.put_back(&first, &charges);
        drop(first);
        for _ in 0..3 {
            assert!(matches!(step(&table, &quota, 1), Step::Decided(decision) if decision.is_allowed()));
        }
        assert!(matches!(step(&table, &quota, 1), Step::Ask(_)));
    }

    #[test]
    fn the_leases_of_two_former_quotas_are_given_back() {
        let table = LeaseTable::new(Leases::Always);
        let (one, two, three) = (100.per_minute(), 200.per_minute(), 300.per_minute());
        let first = ask(step(&table, &one, 0));
        let charges = answer(&table, &first, &one, 5);
        drop(first);
        let second = ask(step(&table, &one, 300_000_000));
        table.put_back(&second, &charges);
        // The quota changes while it is being asked for, and once more.
        assert!(matches!(step(&table, &two, 300_000_001), Step::Direct));
        answer(&table, &second, &one, 8);
        drop(second);
        assert!(matches!(step(&table, &three, 300_000_002), Step::Direct));
        let units: Vec<_> = table.take_unused(300_000_003).iter().map(|unused| unused.units).collect();
        assert_eq!(units, [6, 8]);
        assert!(matches!(step(&table, &three, 300_000_004), Step::Ask(_)));
    }

    #[test]
    fn a_lease_is_not_spent_after_250_ms_and_is_given_back() {
        let (table, quota) = (LeaseTable::new(Leases::Always), 900.per_minute());
        let first = ask(step(&table, &quota, 0));
        answer(&table, &first, &quota, 5);
        drop(first);
        assert!(table.take_unused(249_999_999).is_empty());
        let next = ask(step(&table, &quota, 250_000_000));
        assert_eq!(table.take_returned(&next).map(|(units, _)| units), Some(5));
        assert!(table.take_all().is_empty(), "it is given back once");
    }

    #[test]
    fn a_subject_that_is_not_used_for_two_seconds_is_forgotten() {
        let (table, quota) = (LeaseTable::new(Leases::Always), 900.per_minute());
        let first = ask(step(&table, &quota, 0));
        answer(&table, &first, &quota, 1);
        drop(first);
        assert!(matches!(step(&table, &quota, 200_000_000), Step::Decided(_)));
        for (now, is_kept) in [(2_200_000_000, true), (2_200_000_001, false)] {
            table.take_unused(now);
            assert_eq!(table.shard(7).contains_key(&7), is_kept, "{now}");
        }
    }

    #[test]
    fn the_table_has_a_bound_and_others_are_decided_directly() {
        let (table, quota) = (LeaseTable::new(Leases::Always), 900.per_minute());
        let charge = charge(&quota);
        let request = LimitRequest::new(&charge, UNIX_EPOCH);
        // All of one shard.
        let step = |subject: usize| table.step((subject * SHARDS) as Name, &request, 0);
        for subject in 0..MOST_PER_SHARD {
            assert!(matches!(step(subject), Step::Ask(_)), "{subject}");
        }
        assert!(matches!(step(MOST_PER_SHARD), Step::Direct));
        assert_eq!(table.shard(0).len(), MOST_PER_SHARD);
    }

    #[test]
    fn a_lease_ends_with_its_window() {
        let (table, quota) = (LeaseTable::new(Leases::Always), 900.per_minute());
        let first = ask(step(&table, &quota, 0));
        let at = UNIX_EPOCH + std::time::Duration::from_millis(59_900);
        let charges = Arc::new(Charges::new("tollgate", &LimitRequest::new(&charge(&quota), at)));
        let counter = Counter::FixedWindow(FixedWindow { ends_at: 60, used: 0 });
        let reply = Reply { is_allowed: true, lent: 5, at, counters: std::iter::once(counter).collect() };
        table.answered(&first, &charges, &reply);
        drop(first);
        assert!(matches!(step(&table, &quota, 99_999_999), Step::Decided(_)));
        assert!(matches!(step(&table, &quota, 100_000_000), Step::Ask(_)));
    }
}
