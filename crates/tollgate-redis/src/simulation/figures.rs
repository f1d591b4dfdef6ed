//! What is counted during a simulation, and the figures that follow from it.

/// What happened to each subject in each window.
pub(super) struct Log {
    subjects: usize,
    /// One for each subject in each window.
    cells: Vec<Cell>,
    pub(super) requests: u64,
    pub(super) trips: u64,
    /// Requests that were decided without Redis, because it did not answer in time.
    pub(super) unanswered: u64,
    /// The longest time for which a request waited for its decision, in nanoseconds.
    pub(super) longest_wait: u64,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Cell {
    pub(super) demand: u64,
    pub(super) admitted: u64,
    /// Admitted by a process that could not reach Redis.
    pub(super) admitted_locally: u64,
    /// What Redis has counted.
    pub(super) counted: u64,
    /// Counted for a request whose caller no longer waited for the answer.
    pub(super) abandoned: u64,
}

impl Log {
    pub(super) fn new(subjects: usize, windows: usize) -> Self {
        // Requests of the last window can be decided after its end.
        let cells = vec![Cell::default(); subjects * (windows + 1)];
        Self { subjects, cells, requests: 0, trips: 0, unanswered: 0, longest_wait: 0 }
    }

    pub(super) fn cell(&mut self, subject: usize, window: usize) -> &mut Cell {
        &mut self.cells[window * self.subjects + subject]
    }

    /// The figures of these windows of busy subjects, whose demand was above the quota by a tenth or more.
    pub(super) fn figures(&self, quota: u64) -> Figures {
        for cell in &self.cells {
            assert!(cell.admitted <= cell.counted, "admitted in another window than counted");
        }
        let last = self.cells.len() - self.subjects;
        let busy: Vec<_> =
            self.cells[..last].iter().filter(|cell| cell.demand * 10 >= quota * 11).copied().collect();
        assert!(!busy.is_empty(), "no subject has more demand than its quota");
        let share = |units: u64| units as f64 / quota as f64;
        let total = |of: fn(&Cell) -> u64| busy.iter().map(of).sum::<u64>();
        let windows = busy.len() as f64;
        let all_admitted: u64 = self.cells.iter().map(|cell| cell.admitted + cell.admitted_locally).sum();
        let every = || self.cells.iter().map(|cell| share(cell.admitted + cell.admitted_locally));
        Figures {
            admitted: share(total(|cell| cell.admitted + cell.admitted_locally)) / windows,
            most_admitted: every().fold(0.0, f64::max),
            by_redis: self.cells.iter().map(|cell| share(cell.admitted)).fold(0.0, f64::max),
            stranded: share(total(|cell| cell.counted.saturating_sub(cell.admitted))) / windows,
            abandoned: share(total(|cell| cell.abandoned)) / windows,
            trips: self.trips as f64 / self.requests as f64,
            per_trip: all_admitted as f64 / self.trips as f64,
            unanswered: self.unanswered,
            longest_wait: self.longest_wait,
        }
    }
}

/// Figures of a simulation. Shares are of the quota.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    /// What was admitted: on average in windows with demand above the quota, and the most in any window.
    pub(super) admitted: f64,
    pub(super) most_admitted: f64,
    /// The most in any window without what was admitted locally.
    pub(super) by_redis: f64,
    /// What was counted and not used.
    pub(super) stranded: f64,
    /// The part of it that was counted for requests whose callers no longer waited.
    pub(super) abandoned: f64,
    /// Trips to Redis per request, and admissions per trip, of all subjects.
    pub(super) trips: f64,
    pub(super) per_trip: f64,
    pub(super) unanswered: u64,
    pub(super) longest_wait: u64,
}
