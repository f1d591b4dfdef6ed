//! What is measured, one figure a file.

pub mod instructions;
pub mod lines;
pub mod threads;
pub mod time;

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    thread,
};

use time::Case;

/// What `measure` finds for `cases` and their bases, for each once. As many run at a time as there are processors, so it is for figures
/// that are the same beside other work.
fn of_each<T: Send>(cases: &[Case], measure: impl Fn(Case) -> T + Sync) -> HashMap<Case, T> {
    let all: HashSet<Case> = cases.iter().flat_map(|case| [*case, case.base()]).collect();
    let (left, found) = (Mutex::new(all.into_iter()), Mutex::new(HashMap::new()));
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZeroUsize::get) {
            scope.spawn(|| {
                while let Some(case) = next() {
                    let figure = measure(case);
                    found.lock().unwrap_or_else(PoisonError::into_inner).insert(case, figure);
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The middle one of `values`: half of the others are smaller. Time on a machine with other work to do has outliers on one
/// side only, which an average would follow.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
