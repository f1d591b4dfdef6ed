//! The lines on stderr: who admits how much of the quota, each second.

use std::{fmt::Write as _, time::Duration};

use jiff::Timestamp;
use support::Shutdown;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    counts::{Counts, Window, Windows},
    instance::quota,
};

/// The counts of all instances, and the last window of which a line was printed.
pub(crate) struct Board {
    instances: Vec<Counts>,
    shown: Option<u64>,
}

impl Board {
    pub(crate) fn new(instances: Vec<Counts>) -> Self {
        Self { instances, shown: None }
    }

    /// Prints a line each second until the shutdown.
    pub(crate) async fn run(mut self, mut shutdown: Shutdown) {
        eprintln!(
            "The quota of the key `{}` is {}. Each second: what each instance has admitted and refused in the present window, and how \
             much of both it has decided locally, without waiting for Redis.",
            crate::BUSY,
            quota()
        );
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = seconds.tick() => self.print(),
                () = shutdown.requested() => return,
            }
        }
    }

    fn print(&mut self) {
        let instances: Vec<_> = self.instances.iter().map(Counts::get).collect();
        let Some(present) = instances.iter().filter_map(|windows| windows.keys().next_back()).max() else {
            return;
        };
        if let Some(shown) = self.shown.filter(|shown| shown < present) {
            eprintln!("{}  <- the window has ended", line(shown, &instances));
        }
        eprintln!("{}", line(*present, &instances));
        self.shown = Some(*present);
    }
}

/// `until 12:00:10 | 1: 402 + 0, 390 locally | 2: ...`
fn line(ends_at: u64, instances: &[Windows]) -> String {
    let end = i64::try_from(ends_at).ok().and_then(|second| Timestamp::from_second(second).ok());
    let mut line = format!("until {}", end.unwrap_or_default().strftime("%H:%M:%S"));
    let (mut admitted, mut decided, mut locally) = (0, 0, 0);
    for (at, windows) in instances.iter().enumerate() {
        let window: Window = windows.get(&ends_at).copied().unwrap_or_default();
        admitted += window.admitted;
        decided += window.admitted + window.refused;
        locally += window.locally;
        let Window { admitted, refused, locally } = window;
        // Writing to a string cannot fail.
        let _ = write!(line, " | {}: {admitted:4} admitted {refused:4} refused {locally:4} locally", at + 1);
    }
    let limit = quota().limits().first().map_or(0, |limit| limit.limit);
    let share = (100 * locally).checked_div(decided).unwrap_or(0);
    let _ = write!(line, " | all: {admitted:4} of {limit} admitted, {share:3} % locally");
    line
}
