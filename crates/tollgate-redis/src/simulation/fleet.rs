//! Processes that run the code of this crate: its table of leases, its decisions, and its choice for an outage.
//!
//! The loop of `RedisLimiter` is here once more, with events in place of futures.

use std::{sync::Arc, time::SystemTime};

use tollgate_core::{
    denial::Unavailable,
    limit::{Counter, LimitRequest},
};

use super::{
    figures::{Figures, Log},
    load::{Arrivals, MILLIS, Request, SECOND, START, Setting, Subjects, latency},
    process::{Clock, Process},
    queue::Queue,
    random::Random,
    server::{Server, instant},
};
use crate::{
    leases::{Ask, Counters, GiveBack, Leases, Name, Step},
    limiter::{Charges, Exchange, Reply},
};

const DEADLINE: u64 = 50 * MILLIS;
const GIVE_BACK_EVERY: u64 = 100 * MILLIS;
const MOST_UNANSWERED: u32 = 3;
const FIRST_RETRY: u64 = 50 * MILLIS;

/// Simulates processes that decide with these leases.
pub(super) fn simulate(setting: &Setting, leases: Leases) -> Figures {
    let subjects = Subjects::new(setting);
    let mut fleet = Fleet::new(setting, &subjects, leases);
    fleet.run();
    fleet.log.figures(setting.limit())
}

struct Fleet<'s> {
    setting: &'s Setting,
    subjects: &'s Subjects,
    names: Vec<Name>,
    leases: Leases,
    random: Random,
    queue: Queue<Event>,
    now: u64,
    server: Server,
    processes: Vec<Process>,
    log: Log,
}

/// Small, because a heap moves its elements often.
enum Event {
    Reaches(Box<Trip>),
    Answers(Box<Trip>),
    GiveBack(usize),
    Crash(usize),
    /// The process cannot reach Redis until this instant.
    Cut(usize, u64),
    /// The process tries to reach Redis, and waits this long before the next attempt.
    Reconnect(usize, u64),
}

/// A call of the script, on its way.
struct Trip {
    process: usize,
    life: u32,
    subject: usize,
    sent_at: u64,
    charges: Arc<Charges>,
    returned: Option<(u64, Counters)>,
    purpose: Purpose,
    /// `None` on the way to Redis, and without an answer within the deadline.
    reply: Option<Reply>,
}

enum Purpose {
    Direct { request: Request, elapsed: u64 },
    Ask { request: Request, ask: Ask },
    GiveBack,
}

impl<'s> Fleet<'s> {
    fn new(setting: &'s Setting, subjects: &'s Subjects, leases: Leases) -> Self {
        let mut random = Random::new(setting.seed);
        // Adjacent places in the tables of a process are read from few cache lines. These reads take most of the time.
        let names = (0..setting.subjects as u128).map(|subject| subject << 64 | subject).collect();
        let clocks = (0..setting.processes).map(|_| Clock::new(setting, &mut random));
        let processes = clocks.map(|clock| Process::new(leases, clock, 0)).collect();
        let mut fleet = Self {
            setting,
            subjects,
            names,
            leases,
            random,
            queue: Queue::new(),
            now: START,
            server: Server::new(setting.subjects),
            processes,
            log: Log::new(setting.subjects, setting.windows),
        };
        fleet.plan();
        fleet
    }

    /// Plans what does not depend on requests.
    fn plan(&mut self) {
        let Setting { processes, has_faults, has_partitions, .. } = *self.setting;
        // Otherwise there is nothing to give back.
        for process in (0..processes).filter(|_| self.leases != Leases::Off) {
            self.queue.add(START + self.random.below(GIVE_BACK_EVERY), Event::GiveBack(process));
        }
        let length = self.setting.end() - START;
        let some = processes.div_ceil(10);
        for _ in (0..some).filter(|_| has_faults) {
            let process = self.random.below(processes as u64) as usize;
            self.queue.add(START + self.random.below(length), Event::Crash(process));
        }
        for _ in (0..some).filter(|_| has_partitions) {
            let process = self.random.below(processes as u64) as usize;
            let at = START + self.random.below(length);
            let until = at + 200 * MILLIS + self.random.below(2 * SECOND);
            self.queue.add(at, Event::Cut(process, until));
        }
    }

    fn run(&mut self) {
        let mut arrivals = Arrivals::new(self.setting);
        let end = self.setting.end();
        loop {
            let next = arrivals.next_at();
            while let Some((at, event)) = self.queue.next_before(next.min(end)) {
                self.now = at;
                self.happens(event);
            }
            if next >= end {
                break;
            }
            self.now = next;
            let request = arrivals.take(&mut self.random);
            self.log.requests += 1;
            self.log.cell(request.subject, self.setting.window_at(next)).demand += 1;
            self.decide(request);
        }
        // The answers to the last requests.
        while let Some((at, event)) = self.queue.next_before(end + SECOND / 2) {
            self.now = at;
            self.happens(event);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Reaches(trip) => self.reaches(trip),
            Event::Answers(trip) => self.answers(*trip),
            Event::GiveBack(process) => self.give_back(process),
            Event::Crash(process) => {
                let Process { life, clock, .. } = self.processes[process];
                self.processes[process] = Process::new(self.leases, clock, life + 1);
            }
            Event::Cut(process, until) => self.processes[process].cut_until = until,
            Event::Reconnect(process, wait) => self.reconnect(process, wait),
        }
    }

    // --- A process ----------------------------------------------------------------------------------------------

    fn decide(&mut self, request: Request) {
        let process = &mut self.processes[request.process];
        let charges = [self.subjects.charge(request.subject)];
        let limit_request = LimitRequest::new(&charges, process.clock.wall(self.now));
        let elapsed = process.clock.elapsed(self.now);
        match process.table.step(self.names[request.subject], &limit_request, elapsed) {
            Step::Decided(decision) => {
                if decision.is_allowed() {
                    self.admit(request, self.now);
                }
                self.log.longest_wait = self.log.longest_wait.max(self.now - request.came_at);
            }
            Step::Wait(_) if self.now - request.came_at <= DEADLINE / 2 => {
                process.waiting.entry(request.subject).or_default().push(request);
            }
            Step::Wait(_) | Step::Direct => {
                let charges = self.subjects.own_charges(request.subject, limit_request.now);
                self.send(
                    request.process,
                    request.subject,
                    charges,
                    None,
                    Purpose::Direct { request, elapsed },
                );
            }
            // Its caller hangs up before the question is sent.
            Step::Ask(_) if self.setting.has_faults && self.random.once_in(1_000) => {
                self.wake(request.process, request.subject);
            }
            Step::Ask(ask) => {
                let charges = self.subjects.own_charges(request.subject, limit_request.now);
                let returned = process.table.take_returned(&ask);
                self.send(request.process, request.subject, charges, returned, Purpose::Ask { request, ask });
            }
        }
    }

    fn admit(&mut self, request: Request, now: u64) {
        let window = self.setting.window_at(now);
        self.log.cell(request.subject, window).admitted += 1;
    }

    fn send(
        &mut self,
        process: usize,
        subject: usize,
        charges: Arc<Charges>,
        returned: Option<(u64, Counters)>,
        purpose: Purpose,
    ) {
        let Process { life, is_up, cut_until, .. } = self.processes[process];
        let sent_at = self.now;
        let trip =
            Box::new(Trip { process, life, subject, sent_at, charges, returned, purpose, reply: None });
        if !is_up {
            return self.fails(*trip);
        }
        self.log.trips += 1;
        if self.now < cut_until {
            self.queue.add(self.now + DEADLINE, Event::Answers(trip));
        } else {
            self.queue.add(self.now + latency(&mut self.random), Event::Reaches(trip));
        }
    }

    fn answers(&mut self, mut trip: Trip) {
        let process = &mut self.processes[trip.process];
        if process.life != trip.life {
            // It has crashed.
            return;
        }
        let Some(reply) = trip.reply.take() else {
            process.unanswered += 1;
            if process.unanswered == MOST_UNANSWERED {
                process.is_up = false;
                self.queue.add(self.now + FIRST_RETRY, Event::Reconnect(trip.process, FIRST_RETRY));
            }
            return self.fails(trip);
        };
        process.unanswered = 0;
        let Trip { process, subject, charges, purpose, .. } = trip;
        let table = &self.processes[process].table;
        let decision = charges.decide(&reply.counters, reply.at);
        assert_eq!(decision.is_allowed(), reply.is_allowed);
        match purpose {
            Purpose::Direct { request, elapsed } => {
                if !reply.is_allowed {
                    table.remember_refusal(self.names[subject], &charges, &reply, elapsed);
                }
                let is_there = self.takes(request, &charges, &reply);
                if reply.is_allowed && !is_there {
                    let window = self.setting.window_at(nanos(reply.at));
                    self.log.cell(subject, window).abandoned += charges.all[0].cost;
                }
            }
            Purpose::Ask { request, ask } => {
                table.answered(&ask, &charges, &reply);
                let is_there = self.takes(request, &charges, &reply);
                if reply.is_allowed && !is_there {
                    self.processes[process].table.put_back(&ask, &charges);
                }
                drop(ask);
                self.wake(process, subject);
            }
            Purpose::GiveBack => {}
        }
    }

    /// A request takes its answer, if its caller is still there and it has waited no longer than the deadline.
    fn takes(&mut self, request: Request, charges: &Charges, reply: &Reply) -> bool {
        if self.setting.has_faults && self.random.once_in(100) {
            return false;
        }
        if self.now - request.came_at > DEADLINE {
            self.decide_alone(request, charges);
            return false;
        }
        self.log.longest_wait = self.log.longest_wait.max(self.now - request.came_at);
        if reply.is_allowed {
            self.admit(request, nanos(reply.at));
        }
        true
    }

    fn fails(&mut self, trip: Trip) {
        match trip.purpose {
            Purpose::Direct { request, .. } => self.decide_alone(request, &trip.charges),
            Purpose::Ask { request, ask } => {
                drop(ask);
                self.decide_alone(request, &trip.charges);
                self.wake(trip.process, trip.subject);
            }
            Purpose::GiveBack => {}
        }
    }

    /// The choice for an outage: count in this process.
    fn decide_alone(&mut self, request: Request, charges: &Charges) {
        self.log.unanswered += 1;
        let outages = &self.processes[request.process].outages;
        let mut charges = charges.clone();
        charges.now = self.processes[request.process].clock.wall(self.now);
        if outages.decide(&charges, Unavailable::new("no answer")).unwrap().is_allowed() {
            let window = self.setting.window_at(self.now);
            self.log.cell(request.subject, window).admitted_locally += 1;
        }
    }

    /// Those who have waited for an answer go on.
    fn wake(&mut self, process: usize, subject: usize) {
        for request in self.processes[process].waiting.remove(&subject).unwrap_or_default() {
            self.decide(request);
        }
    }

    fn give_back(&mut self, process: usize) {
        let Process { table, clock, .. } = &self.processes[process];
        let mut unused = table.take_unused(clock.elapsed(self.now));
        // The table is in no order.
        unused.sort_by(|one, other| one.charges.all[0].key.cmp(&other.charges.all[0].key));
        for GiveBack { charges, units, counters } in unused {
            let (subject, charges) = (Subjects::of(&charges), Arc::new(charges.peek()));
            self.send(process, subject, charges, Some((units, counters)), Purpose::GiveBack);
        }
        self.queue.add(self.now + GIVE_BACK_EVERY, Event::GiveBack(process));
    }

    fn reconnect(&mut self, process: usize, wait: u64) {
        let Process { cut_until, is_up, unanswered, .. } = &mut self.processes[process];
        if self.now < *cut_until {
            let wait = (wait * 2).min(SECOND);
            self.queue.add(self.now + wait, Event::Reconnect(process, wait));
        } else {
            (*is_up, *unanswered) = (true, 0);
        }
    }

    // --- Redis --------------------------------------------------------------------------------------------------

    fn reaches(&mut self, mut trip: Box<Trip>) {
        let wanted = match &trip.purpose {
            Purpose::Ask { ask, .. } => ask.wanted,
            _ => 0,
        };
        let returned = trip.returned.as_ref().map(|(units, counters)| (*units, counters.as_slice()));
        let exchange = Exchange { wanted, returned };
        let reply = self.server.call(trip.subject, &trip.charges, &exchange, instant(self.now));

        let window = self.setting.window_ending(end_of(&reply.counters));
        let cell = self.log.cell(trip.subject, window);
        if let Some((units, counters)) = &trip.returned
            && self.setting.window_ending(end_of(counters)) == window
        {
            cell.counted -= units;
        }
        if reply.is_allowed {
            cell.counted += trip.charges.all[0].cost + reply.lent;
        }

        if self.now < self.processes[trip.process].cut_until {
            self.queue.add(trip.sent_at + DEADLINE, Event::Answers(trip));
        } else {
            trip.reply = Some(reply);
            self.queue.add(self.now + latency(&mut self.random), Event::Answers(trip));
        }
    }
}

fn end_of(counters: &[Counter]) -> u64 {
    match counters {
        [Counter::FixedWindow(counter)] => counter.ends_at,
        _ => unreachable!("each subject has one aligned window"),
    }
}

fn nanos(at: SystemTime) -> u64 {
    crate::limiter::nanos(at.duration_since(SystemTime::UNIX_EPOCH).unwrap())
}
