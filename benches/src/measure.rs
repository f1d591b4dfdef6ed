//! What is measured, one figure a file.

pub mod instructions;
pub mod lines;
pub mod threads;
pub mod time;

/// The middle one of `values`: half of the others are smaller. Time on a machine with other work to do has outliers on one
/// side only, which an average would follow.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
