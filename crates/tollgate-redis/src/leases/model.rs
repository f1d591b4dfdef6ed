//! Compares the leases of several processes with plain counts, for any order of requests, answers and faults.
//!
//! Redis is a count for each window. The network delivers messages in any order, or never. What each process was lent is written down
//! beside it, and each of its decisions must follow from that. At the end, Redis has counted exactly what was admitted and what was
//! lost with a message, a caller or a process.

mod process;
mod server;

use std::{mem, sync::Arc};

use proptest::{prelude::*, test_runner::RngSeed};
use tollgate_core::limit::{Charge, LimitRequest};

use self::{
    process::Process,
    server::{Counts, QUOTAS, START, Server, add, instant, quota},
};
use super::{Ask, Counters, GiveBack, Leases, Step};
use crate::limiter::{Charges, Exchange, Reply};

const MILLIS: u64 = 1_000_000;

/// What the limiter does with a request that waits for longer than half of its deadline.
const LONGEST_WAIT: u64 = 25 * MILLIS;

const PROCESSES: usize = 3;

/// What happens, in any order.
#[derive(Clone, Debug)]
enum Event {
    /// Requests of one process at the same instant.
    Requests {
        process: usize,
        count: u64,
        cost: u64,
        hangs_up: HangsUp,
    },
    /// A message that is under way goes on: it reaches Redis, or the process.
    Deliver(usize),
    Lose(usize),
    /// The process looks for leases that are not used.
    GiveBack(usize),
    Advance(u64),
    /// The quota is raised or lowered.
    Quota(usize),
    Crash(usize),
}

/// When the caller of a request hangs up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum HangsUp {
    Never,
    BeforeTheQuestion,
    BeforeTheAnswer,
}

fn any_event() -> impl Strategy<Value = Event> {
    let hangs_up = prop_oneof![
        10 => Just(HangsUp::Never),
        1 => Just(HangsUp::BeforeTheQuestion),
        1 => Just(HangsUp::BeforeTheAnswer)
    ];
    let count = prop_oneof![3 => Just(1), 1 => 2..16_u64];
    let cost = prop_oneof![4 => Just(1), 1 => 2..5_u64];
    let pause = prop_oneof![6 => 0..5_u64, 3 => 5..120_u64, 2 => 120..400_u64, 1 => 900..3_000_u64];
    prop_oneof![
        12 => (0..PROCESSES, count, cost, hangs_up).prop_map(|(process, count, cost, hangs_up)| {
            Event::Requests { process, count, cost, hangs_up }
        }),
        16 => any::<prop::sample::Index>().prop_map(|at| Event::Deliver(at.index(1_000))),
        1 => any::<prop::sample::Index>().prop_map(|at| Event::Lose(at.index(1_000))),
        3 => (0..PROCESSES).prop_map(Event::GiveBack),
        6 => pause.prop_map(|pause| Event::Advance(pause * MILLIS)),
        1 => (0..QUOTAS).prop_map(Event::Quota),
        1 => (0..PROCESSES).prop_map(Event::Crash),
    ]
}

fn any_modes() -> impl Strategy<Value = [Leases; PROCESSES]> {
    prop::array::uniform(
        prop_oneof![3 => Just(Leases::Always), 2 => Just(Leases::Auto), 1 => Just(Leases::Off)],
    )
}

/// The same 100 cases each time, unless `PROPTEST_CASES` and `PROPTEST_RNG_SEED` choose others.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 100;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(15);
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn all_that_is_counted_was_admitted_or_lost(
        modes in any_modes(),
        events in prop::collection::vec(any_event(), 20..250),
    ) {
        let mut world = World::new(modes);
        for event in &events {
            world.happens(event);
        }
        world.ends();
    }
}

/// All processes, Redis, and what is under way between them.
struct World {
    now: u64,
    quota: usize,
    server: Server,
    processes: Vec<Process>,
    messages: Vec<Message>,
    waiting: Vec<Waiting>,
    admitted: Counts,
    lost: Counts,
}

struct Message {
    process: usize,
    life: u32,
    charges: Arc<Charges>,
    sent_at: u64,
    returned: Option<(u64, Counters)>,
    purpose: Purpose,
    is_caller_gone: bool,
    /// Once it has reached Redis.
    reply: Option<Reply>,
}

enum Purpose {
    Direct,
    Ask(Ask),
    GiveBack,
}

/// A request that waits for the answer to another one.
struct Waiting {
    process: usize,
    life: u32,
    cost: u64,
    came_at: u64,
    asked: tokio::sync::watch::Receiver<()>,
}

impl World {
    fn new(modes: [Leases; PROCESSES]) -> Self {
        Self {
            now: START,
            quota: 1,
            server: Server::default(),
            processes: modes.into_iter().map(Process::new).collect(),
            messages: Vec::new(),
            waiting: Vec::new(),
            admitted: Counts::new(),
            lost: Counts::new(),
        }
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Requests { process, count, cost, hangs_up } => {
                for _ in 0..count {
                    self.request(process, cost, self.now, hangs_up);
                }
            }
            Event::Deliver(at) => {
                if let Some(message) = self.take_message(at) {
                    self.deliver(message);
                }
            }
            Event::Lose(at) => {
                if let Some(message) = self.take_message(at) {
                    self.lose(&message);
                }
            }
            Event::GiveBack(process) => self.give_back(process),
            Event::Advance(pause) => self.now += pause,
            Event::Quota(quota) => self.quota = quota,
            Event::Crash(process) => self.processes[process].crash(&mut self.lost),
        }
        self.wake();
        self.server.holds_at_most_the_largest_quota();
    }

    fn take_message(&mut self, at: usize) -> Option<Message> {
        let at = at.checked_rem(self.messages.len())?;
        Some(self.messages.remove(at))
    }

    /// All messages arrive, and all processes give back what they have.
    fn ends(&mut self) {
        self.arrive();
        assert!(self.waiting.is_empty(), "a request waits, and nothing is under way");
        self.now += 250 * MILLIS;
        for process in 0..PROCESSES {
            self.give_back(process);
        }
        self.arrive();
        let mut expected = mem::take(&mut self.admitted);
        for (window, units) in mem::take(&mut self.lost) {
            add(&mut expected, window, units);
        }
        assert_eq!(self.server.counts(), expected, "what was admitted and lost");
    }

    fn arrive(&mut self) {
        while let Some(message) = self.messages.pop() {
            self.deliver(message);
            self.wake();
        }
    }

    // --- A process --------------------------------------------------------------------------------------------

    fn request(&mut self, at: usize, cost: u64, came_at: u64, hangs_up: HangsUp) {
        let quota = quota(self.quota);
        let charge = [Charge::new("key", "ada", "acme", &quota).with_cost(cost)];
        let request = LimitRequest::new(&charge, instant(self.now));
        let process = &mut self.processes[at];
        let (life, elapsed) = (process.life, process.elapsed(self.now));
        let is_asking = self.messages.iter().any(|message| {
            message.process == at && message.life == life && matches!(message.purpose, Purpose::Ask(_))
        });
        let charges = || Arc::new(Charges::new("tollgate", &request));
        match process.step(&request) {
            Step::Decided(decision) if decision.is_allowed() => {
                process.spends(&decision, cost, self.now, &mut self.admitted);
            }
            Step::Decided(decision) => process.may_refuse(&decision, &quota, cost, self.now, is_asking),
            Step::Wait(_) if self.now - came_at > LONGEST_WAIT => {
                self.send(at, charges(), None, Purpose::Direct, elapsed, hangs_up);
            }
            Step::Wait(asked) => {
                assert!(is_asking, "it would wait for a question that was dropped");
                self.waiting.push(Waiting { process: at, life, cost, came_at, asked });
            }
            Step::Direct => self.send(at, charges(), None, Purpose::Direct, elapsed, hangs_up),
            Step::Ask(_) if hangs_up == HangsUp::BeforeTheQuestion => {}
            Step::Ask(ask) => {
                assert!(!is_asking, "one question at a time");
                let returned = process.take_returned(&ask);
                self.send(at, charges(), returned, Purpose::Ask(ask), elapsed, hangs_up);
            }
        }
    }

    fn send(
        &mut self,
        process: usize,
        charges: Arc<Charges>,
        returned: Option<(u64, Counters)>,
        purpose: Purpose,
        sent_at: u64,
        hangs_up: HangsUp,
    ) {
        let life = self.processes[process].life;
        let is_caller_gone = hangs_up == HangsUp::BeforeTheAnswer;
        let reply = None;
        let message = Message { process, life, charges, sent_at, returned, purpose, is_caller_gone, reply };
        self.messages.push(message);
    }

    fn give_back(&mut self, at: usize) {
        let elapsed = self.processes[at].elapsed(self.now);
        for GiveBack { charges, units, counters } in self.processes[at].take_unused(self.now) {
            let peek = Arc::new(charges.peek());
            let returned = Some((units, counters));
            self.send(at, peek, returned, Purpose::GiveBack, elapsed, HangsUp::Never);
        }
    }

    /// Requests whose question has its answer, or was dropped, go on.
    fn wake(&mut self) {
        let (waiting, ready) = mem::take(&mut self.waiting)
            .into_iter()
            .filter(|waiting| waiting.life == self.processes[waiting.process].life)
            .partition::<Vec<_>, _>(|waiting| waiting.asked.has_changed().is_ok());
        self.waiting = waiting;
        for Waiting { process, cost, came_at, .. } in ready {
            self.request(process, cost, came_at, HangsUp::Never);
        }
    }

    // --- The network ------------------------------------------------------------------------------------------

    fn deliver(&mut self, mut message: Message) {
        let Some(reply) = &message.reply else {
            let wanted = if let Purpose::Ask(ask) = &message.purpose { ask.wanted } else { 0 };
            let returned = message.returned.take();
            let returned = returned.as_ref().map(|(units, counters)| (*units, counters.as_slice()));
            let exchange = Exchange { wanted, returned };
            message.reply = Some(self.server.call(&message.charges, &exchange, self.now));
            return self.messages.push(message);
        };
        let process = &mut self.processes[message.process];
        if process.life != message.life {
            return self.lose(&message);
        }
        let Message { charges, sent_at, is_caller_gone, .. } = &message;
        match &message.purpose {
            Purpose::GiveBack => return,
            Purpose::Direct if reply.is_allowed => {}
            Purpose::Direct => return process.is_refused(charges, reply, *sent_at),
            Purpose::Ask(ask) => {
                process.is_answered(ask, charges, reply, *sent_at);
                if !reply.is_allowed {
                    return;
                }
                if *is_caller_gone {
                    return process.put_back(ask, charges);
                }
            }
        }
        let to = if *is_caller_gone { &mut self.lost } else { &mut self.admitted };
        server::add_to_windows(to, &reply.counters, charges.all[0].cost);
    }

    fn lose(&mut self, message: &Message) {
        if let Some((units, counters)) = &message.returned {
            server::add_to_windows(&mut self.lost, counters, *units);
        }
        if let Some(reply) = message.reply.as_ref().filter(|reply| reply.is_allowed) {
            server::add_to_windows(&mut self.lost, &reply.counters, message.charges.all[0].cost + reply.lent);
        }
    }
}
