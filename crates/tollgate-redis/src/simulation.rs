//! A simulation of many processes that share a Redis server, on a clock of events: the same seed gives the same figures.
//!
//! Each process runs the leases and the decisions of this crate. Redis, the network and the callers are simulated.
//!
//! - Redis checks and counts by the counters of `tollgate-core`, and takes no time: there is no load too high for it.
//! - Messages take 150 µs and more, one in a thousand several milliseconds.
//! - Requests come at random times to random processes. There are three loads: see [`Load`].
//! - With faults, processes crash and start again with nothing, wall clocks are up to 30 s wrong, monotonic clocks are up to 100
//!   millionths too fast or slow, and one caller in a hundred hangs up. With partitions, some processes do not reach Redis for 0.2
//!   to 2.2 s, and count alone.
//!
//! The whole simulation takes two to three minutes on one core. It writes the tables and the picture of `docs/design/distributed-limits.md`:
//!
//! `TOLLGATE_LONG=1 cargo test --release -p tollgate-redis --lib simulation -- --nocapture`

mod figures;
mod fleet;
mod load;
mod page;
mod picture;
mod process;
mod queue;
mod random;
mod server;
mod synchronised;

use self::{
    figures::Figures,
    load::{Load, Setting},
};
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
            assert!(setting.has_faults || figures.admitted > 0.99, "{setting:?} {figures:?}");
        }
        figures
    }
}

/// How much is simulated.
struct Scale {
    /// The length of a window, in seconds.
    window: u64,
    /// How many processes, and how many windows.
    fleets: &'static [(usize, usize)],
}

impl Scale {
    const WHOLE: Self = Self { window: 10, fleets: &[(3, 12), (30, 6), (300, 2), (3_000, 1)] };
    const SHORT: Self = Self { window: 2, fleets: &[(3, 2), (12, 1)] };

    /// In a debug build, the whole simulation would take too long for a test.
    fn is_whole() -> bool {
        std::env::var_os("TOLLGATE_LONG").is_some() && !cfg!(debug_assertions)
    }
}

/// Without partitions, no window has more than its quota, whatever crashes, and no request goes without an answer of Redis. With
/// them, what Redis has admitted is at most the quota. Without faults, what is requested and fits is admitted.
#[test]
fn fleets_share_their_quotas() {
    let is_whole = Scale::is_whole();
    let scale = if is_whole { Scale::WHOLE } else { Scale::SHORT };
    let mut tables = String::new();
    let mut print = |text: String| {
        print!("{text}");
        tables.push_str(&text);
    };
    for load in Load::ALL {
        print(page::head(load));
        for (processes, windows) in scale.fleets {
            let plain = Setting { window: scale.window, windows: *windows, ..load.setting(*processes) };
            let shared = Sharing::ALL.map(|sharing| sharing.simulate(&plain));
            for (sharing, figures) in Sharing::ALL.iter().zip(&shared) {
                print(page::row(*processes, sharing.name(), figures));
            }
            let [leases, script, _] = shared;
            // Where no subject is busy, a few are leased by chance, and are given back.
            assert!(leases.trips < script.trips * 1.01, "{leases:?} {script:?}");
            match load {
                // Where few are busy, faults have the most to spoil.
                Load::Skewed => {
                    let faults = Setting { has_faults: true, ..plain };
                    print(page::row(*processes, "leases, with faults", &Sharing::Leases.simulate(&faults)));
                    let partitions = Setting { has_partitions: true, ..faults };
                    let figures = Sharing::Leases.simulate(&partitions);
                    print(page::row(*processes, "leases, with faults and partitions", &figures));
                }
                Load::Busy => assert!(leases.trips * 10.0 < script.trips, "{leases:?} {script:?}"),
                Load::Spread => {}
            }
        }
    }
    let picture = picture::draw(&tables);
    if is_whole {
        page::write(&tables, &picture);
    }
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let faults =
        Setting { has_faults: true, has_partitions: true, window: 2, windows: 1, ..Load::Skewed.setting(5) };
    assert_eq!(Sharing::Leases.simulate(&faults), Sharing::Leases.simulate(&faults));
    let other = Setting { seed: 16, ..faults };
    assert_ne!(Sharing::Leases.simulate(&faults), Sharing::Leases.simulate(&other));
}

/// The picture in the documentation is that of the figures beside it.
#[test]
fn the_picture_shows_the_figures_of_the_page() {
    if Scale::is_whole() {
        // Both are being written.
        return;
    }
    let page = page::read(page::PAGE);
    assert!(page::read(page::PICTURE) == picture::draw(page::tables_of(&page)), "run the whole simulation");
}
