//! What others do: each process counts alone, and adds up with Redis every 100 ms if it had requests.

use super::{
    figures::{Figures, Log},
    load::{Arrivals, MILLIS, START, Setting, latency},
    queue::Queue,
    random::Random,
};

const EVERY: u64 = 100 * MILLIS;

/// Simulates processes that admit while what they know of is below the quota: the sum of all processes at the last synchronisation, and
/// their own requests since then.
pub(super) fn simulate(setting: &Setting) -> Figures {
    let mut random = Random::new(setting.seed);
    let mut arrivals = Arrivals::new(setting);
    let mut queue = Queue::new();
    let mut log = Log::new(setting.subjects, setting.windows);
    let mut server = Sums::new(setting.subjects);
    let mut processes: Vec<_> = (0..setting.processes).map(|_| Process::new(setting.subjects)).collect();
    for process in 0..setting.processes {
        queue.add(START + random.below(EVERY), Event::Send(process));
    }
    let limit = setting.limit();
    while arrivals.next_at() < setting.end() {
        let now = arrivals.next_at();
        while let Some((at, event)) = queue.next_before(now) {
            let window = setting.window_at(at);
            match event {
                Event::Send(process) => {
                    if let Some(added) = processes[process].send(window) {
                        log.trips += 1;
                        queue.add(at + latency(&mut random), Event::Reaches(process, window, added));
                    }
                    queue.add(at + EVERY, Event::Send(process));
                }
                Event::Reaches(process, of, added) => {
                    server.add(window, of, &added);
                    let sums = server.of.clone();
                    queue.add(at + latency(&mut random), Event::Answers(process, server.window, sums));
                }
                Event::Answers(process, window, sums) => processes[process].answered(window, sums),
            }
        }
        let request = arrivals.take(&mut random);
        let window = setting.window_at(now);
        log.requests += 1;
        let cell = log.cell(request.subject, window);
        cell.demand += 1;
        if processes[request.process].admits(window, request.subject, limit) {
            cell.admitted += 1;
            cell.counted += 1;
        }
    }
    log.figures(limit)
}

enum Event {
    Send(usize),
    Reaches(usize, usize, Vec<u64>),
    Answers(usize, usize, Vec<u64>),
}

/// A number for each subject in one window.
struct Sums {
    window: usize,
    of: Vec<u64>,
}

impl Sums {
    fn new(subjects: usize) -> Self {
        Self { window: 0, of: vec![0; subjects] }
    }

    fn turn_to(&mut self, window: usize) {
        if self.window < window {
            self.window = window;
            self.of.fill(0);
        }
    }

    /// Adds what belongs to the present window.
    fn add(&mut self, window: usize, of: usize, added: &[u64]) {
        self.turn_to(window);
        if self.window == of {
            self.of.iter_mut().zip(added).for_each(|(sum, added)| *sum += added);
        }
    }
}

struct Process {
    /// The sums of all processes, as Redis has answered last, and what this process has sent but is not yet in them.
    known: Sums,
    sent: Sums,
    /// What this process has admitted since it sent, and whether it had requests.
    own: Sums,
    is_used: bool,
}

impl Process {
    fn new(subjects: usize) -> Self {
        Self {
            known: Sums::new(subjects),
            sent: Sums::new(subjects),
            own: Sums::new(subjects),
            is_used: false,
        }
    }

    fn admits(&mut self, window: usize, subject: usize, limit: u64) -> bool {
        self.turn_to(window);
        let used = self.known.of[subject] + self.sent.of[subject] + self.own.of[subject];
        let is_admitted = used < limit;
        self.own.of[subject] += u64::from(is_admitted);
        self.is_used = true;
        is_admitted
    }

    fn send(&mut self, window: usize) -> Option<Vec<u64>> {
        if !std::mem::take(&mut self.is_used) {
            return None;
        }
        self.turn_to(window);
        self.sent.of.copy_from_slice(&self.own.of);
        self.own.of.fill(0);
        Some(self.sent.of.clone())
    }

    fn answered(&mut self, window: usize, sums: Vec<u64>) {
        if self.known.window <= window {
            self.turn_to(window);
            self.known.of = sums;
            self.sent.of.fill(0);
        }
    }

    fn turn_to(&mut self, window: usize) {
        for sums in [&mut self.known, &mut self.sent, &mut self.own] {
            sums.turn_to(window);
        }
    }
}
