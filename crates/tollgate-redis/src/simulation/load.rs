//! The load: who asks when.

use std::{sync::Arc, time::SystemTime};

use tollgate_core::limit::{Charge, LimitRequest, PerWindow as _, Quota, Window};

use super::{
    random::{Random, Zipf},
    server::instant,
};
use crate::limiter::Charges;

pub(super) const MILLIS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MILLIS;

/// The start of a simulation, in nanoseconds since the Unix epoch: that of a window.
pub(super) const START: u64 = 1_800_000_000 * SECOND;

/// Who asks for how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Few of many subjects are busy, and one of them has more than 100 requests per second in each process.
    Skewed,
    /// One subject, which is busy in each process.
    Busy,
    /// The same load, however many processes there are.
    Spread,
}

impl Load {
    pub(super) const ALL: [Self; 3] = [Self::Skewed, Self::Busy, Self::Spread];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Skewed => "Many subjects, few busy",
            Self::Busy => "A busy subject",
            Self::Spread => "The same load, spread out",
        }
    }

    pub(super) fn requests(self) -> &'static str {
        match self {
            Self::Skewed => "600 requests per second and process",
            Self::Busy => "500 requests per second and process",
            Self::Spread => "30,000 requests per second in all",
        }
    }

    pub(super) fn subjects(self) -> &'static str {
        match self {
            Self::Skewed => "50 subjects by Zipf's law, five of them above their quota",
            Self::Busy => "one subject, which asks for twice its quota",
            Self::Spread => "five subjects, which ask for twice their quota",
        }
    }

    /// A window without faults.
    pub(super) fn setting(self, processes: usize) -> Setting {
        let (rate, subjects, skew, part) = match self {
            Self::Skewed => (600, 50, 1.0, 24),
            Self::Busy => (500, 1, 0.0, 2),
            Self::Spread => (30_000 / processes as u64, 5, 0.0, 10),
        };
        Setting {
            processes,
            rate,
            subjects,
            skew,
            part,
            window: 10,
            windows: 1,
            has_faults: false,
            has_partitions: false,
            seed: 15,
        }
    }
}

/// One simulation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) processes: usize,
    /// Requests per second that each process gets, on average.
    pub(super) rate: u64,
    pub(super) subjects: usize,
    /// The exponent of Zipf's law. With 0, all subjects are equal.
    pub(super) skew: f64,
    /// The quota of each subject is all requests of a window divided by this.
    pub(super) part: u64,
    /// The length of a window, in seconds, and how many are simulated.
    pub(super) window: u64,
    pub(super) windows: usize,
    /// Processes crash, clocks are wrong, and callers hang up.
    pub(super) has_faults: bool,
    /// Some processes cannot reach Redis for a while.
    pub(super) has_partitions: bool,
    pub(super) seed: u64,
}

impl Setting {
    pub(super) fn limit(&self) -> u64 {
        self.processes as u64 * self.rate * self.window / self.part
    }

    pub(super) fn quota(&self) -> Quota {
        self.limit().per(Window::lasting(std::time::Duration::from_secs(self.window)))
    }

    /// The end of the last window.
    pub(super) fn end(&self) -> u64 {
        START + self.window * SECOND * self.windows as u64
    }

    /// The number of the window of an instant.
    pub(super) fn window_at(&self, now: u64) -> usize {
        usize::try_from((now - START) / (self.window * SECOND)).unwrap()
    }

    /// The number of the window that ends at a second.
    pub(super) fn window_ending(&self, second: u64) -> usize {
        self.window_at(second * SECOND) - 1
    }
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) process: usize,
    pub(super) subject: usize,
    pub(super) came_at: u64,
}

/// Requests at random times, as those of many independent callers.
pub(super) struct Arrivals {
    zipf: Zipf,
    processes: u64,
    /// The mean time between two requests, in nanoseconds.
    interval: f64,
    next: u64,
}

impl Arrivals {
    pub(super) fn new(setting: &Setting) -> Self {
        let processes = setting.processes as u64;
        Self {
            zipf: Zipf::new(setting.subjects, setting.skew),
            processes,
            interval: SECOND as f64 / (processes * setting.rate) as f64,
            next: START,
        }
    }

    /// When the next request comes.
    pub(super) fn next_at(&self) -> u64 {
        self.next
    }

    pub(super) fn take(&mut self, random: &mut Random) -> Request {
        let request = Request {
            process: random.below(self.processes) as usize,
            subject: self.zipf.subject(random),
            came_at: self.next,
        };
        self.next += random.wait(self.interval);
        request
    }
}

/// The subjects, which have one charge each.
pub(super) struct Subjects {
    names: Vec<String>,
    quota: Quota,
    /// As they outlive a request. To copy them is faster than to write the name of a key once more.
    charges: Vec<Charges>,
}

impl Subjects {
    pub(super) fn new(setting: &Setting) -> Self {
        let names: Vec<_> = (0..setting.subjects).map(|rank| format!("key_{rank}")).collect();
        let quota = setting.quota();
        let charges = names.iter().map(|name| {
            let charge = [Charge::new("key", name, name, &quota)];
            Charges::new("tollgate", &LimitRequest::new(&charge, instant(START)))
        });
        let charges = charges.collect();
        Self { names, quota, charges }
    }

    pub(super) fn charge(&self, subject: usize) -> Charge<'_> {
        Charge::new("key", &self.names[subject], &self.names[subject], &self.quota)
    }

    pub(super) fn own_charges(&self, subject: usize, now: SystemTime) -> Arc<Charges> {
        Arc::new(Charges { now, ..self.charges[subject].clone() })
    }

    /// The subject of charges.
    pub(super) fn of(charges: &Charges) -> usize {
        let key = &charges.all[0].key;
        key.rsplit('_').next().and_then(|rank| rank.parse().ok()).unwrap()
    }
}

/// The time of a message from a process to Redis or back: usually a fraction of a millisecond, sometimes several.
pub(super) fn latency(random: &mut Random) -> u64 {
    let usual = 150_000 + random.wait(100_000.0);
    if random.once_in(1_000) { usual + random.below(8 * MILLIS) } else { usual }
}
