//! A simulation of many processes that share a Redis server, on a clock of events: the same seed gives the same figures.
//!
//! Each process runs the leases and the decisions of this crate. Redis, the network and the callers are simulated.
//!
//! - Redis checks and counts by the counters of `tollgate-core`, and takes no time: there is no load too high for it.
//! - Messages take 150 µs and more, one in a thousand several milliseconds.
//! - Requests come at random times to random processes. There are 100 subjects. The one with rank r has a share of the requests in
//!   proportion to 1 / r (Zipf), and each has the same quota, a fiftieth of all requests: nine subjects ask for more than it.
//! - With faults, processes crash and start again with nothing, wall clocks are up to 30 s wrong, monotonic clocks are up to 100
//!   millionths too fast or slow, and one caller in a hundred hangs up. With partitions, some processes do not reach Redis for 0.2
//!   to 2.2 s, and count alone.

mod figures;
mod fleet;
mod load;
mod queue;
mod random;
mod server;
mod synchronised;

use std::fmt::Write as _;

use self::{figures::Figures, load::Setting};
use crate::Leases;

/// How a fleet shares its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    /// By leases for busy subjects, the default.
    Leases,
    /// By one call of the script for each request.
    Script,
    /// By counts of each process, which are added up every 100 ms.
    Synchronisation,
}

impl Sharing {
    const ALL: [Self; 3] = [Self::Leases, Self::Script, Self::Synchronisation];

    fn name(self) -> &'static str {
        match self {
            Self::Leases => "leases",
            Self::Script => "a script per request",
            Self::Synchronisation => "synchronised every 100 ms",
        }
    }

    fn simulate(self, setting: &Setting) -> Figures {
        let figures = match self {
            Self::Leases => fleet::simulate(setting, Leases::Auto),
            Self::Script => fleet::simulate(setting, Leases::Off),
            Self::Synchronisation => return synchronised::simulate(setting),
        };
        assert!(figures.by_redis <= 1.0, "Redis has admitted more than the quota: {setting:?} {figures:?}");
        if !setting.has_partitions {
            assert_eq!(figures.unanswered, 0, "{setting:?}");
            assert!(figures.most_admitted <= 1.0, "{setting:?} {figures:?}");
        }
        figures
    }
}

/// How many processes, and how many windows of 10 s.
struct Scale(&'static [(usize, usize)]);

impl Scale {
    /// The whole simulation takes a few minutes in a release build. In a debug build, a small one runs as a usual test.
    fn of_environment() -> Self {
        let is_whole = std::env::var_os("TOLLGATE_LONG").is_some();
        if is_whole { Self(&[(3, 12), (30, 6), (300, 3), (3_000, 2)]) } else { Self(&[(3, 2), (12, 1)]) }
    }
}

fn setting(processes: usize, windows: usize) -> Setting {
    Setting {
        processes,
        rate: 1_000,
        subjects: 100,
        window: 10,
        windows,
        has_faults: false,
        has_partitions: false,
        seed: 15,
    }
}

/// Without partitions, no window has more than its quota, whatever crashes, and no request goes without an answer of Redis. With
/// them, what Redis has admitted is at most the quota.
///
/// The whole simulation:
/// `TOLLGATE_LONG=1 cargo test --release -p tollgate-redis --lib simulation -- --nocapture`
#[test]
fn fleets_share_their_quotas() {
    println!(
        "| processes | | admitted | least | most | stranded | trips per request | longest wait | without an answer |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (processes, windows) in Scale::of_environment().0 {
        let plain = setting(*processes, *windows);
        for sharing in Sharing::ALL {
            let figures = sharing.simulate(&plain);
            println!("{}", row(&plain, sharing.name(), &figures));
        }
        let faults = Setting { has_faults: true, ..plain };
        let figures = Sharing::Leases.simulate(&faults);
        println!("{}", row(&faults, "leases, with crashes", &figures));
        let partitions = Setting { has_partitions: true, ..faults };
        let figures = Sharing::Leases.simulate(&partitions);
        println!("{}", row(&partitions, "leases, with crashes and partitions", &figures));
    }
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let faults = Setting { has_faults: true, has_partitions: true, window: 2, ..setting(5, 1) };
    assert_eq!(Sharing::Leases.simulate(&faults), Sharing::Leases.simulate(&faults));
    let other = Setting { seed: 16, ..faults };
    assert_ne!(Sharing::Leases.simulate(&faults), Sharing::Leases.simulate(&other));
}

/// A row of a table in Markdown.
fn row(setting: &Setting, name: &str, figures: &Figures) -> String {
    let mut row = format!("| {} | {name} |", setting.processes);
    for share in [figures.admitted, figures.least_admitted, figures.most_admitted, figures.stranded] {
        let _ = write!(row, " {:.2} % |", share * 100.0);
    }
    let _ = write!(
        row,
        " {:.4} | {:.1} ms | {} |",
        figures.trips,
        figures.longest_wait as f64 / load::MILLIS as f64,
        figures.unanswered
    );
    row
}
