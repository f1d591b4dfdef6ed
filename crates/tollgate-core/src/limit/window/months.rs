//! Where months begin, in UTC: the Gregorian calendar, extended to all instants since the Unix epoch.
//!
//! The conversions are Howard Hinnant's, "chrono-compatible low-level date algorithms" (2013). A month has a number, its year
//! times 12 and the months before it in its year, so that the next month is the next number.

const SECONDS_PER_DAY: u64 = 86_400;

/// The end of the month that contains `second`: the start of the next one. Months begin on `first_day` (1 to 31), or on their
/// last day if they are shorter.
pub(super) fn end_after(first_day: u8, second: u64) -> u64 {
    start_in(first_day, month_that_contains(first_day, second) + 1)
}

/// The start of the month that contains `second`; the Unix epoch if it is earlier.
pub(super) fn start_of(first_day: u8, second: u64) -> u64 {
    start_in(first_day, month_that_contains(first_day, second))
}

/// The number of the calendar month in which the month began that contains `second`.
fn month_that_contains(first_day: u8, second: u64) -> i64 {
    // Cannot fail: the number is below 2^48.
    let day = i64::try_from(second / SECONDS_PER_DAY).unwrap_or(i64::MAX);
    let month = calendar_month_of(day);
    if day < start_day(first_day, month) { month - 1 } else { month }
}

/// The second at which the month begins that begins in a calendar month.
fn start_in(first_day: u8, month: i64) -> u64 {
    u64::try_from(start_day(first_day, month)).unwrap_or(0).saturating_mul(SECONDS_PER_DAY)
}

/// The day of that, counted from the Unix epoch. Each month's is computed from `first_day`, so it does not drift after a shorter month.
fn start_day(first_day: u8, month: i64) -> i64 {
    let first = first_of(month);
    let days_in_month = first_of(month + 1) - first;
    first + i64::from(first_day).min(days_in_month) - 1
}

/// The days from 0000-03-01 to 1970-01-01. Years that begin in March have their leap day at the end.
const DAYS_TO_EPOCH: i64 = 719_468;
/// The days in 400 years, after which the calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;

/// The calendar month of a day.
fn calendar_month_of(day: i64) -> i64 {
    let since_march_0 = day + DAYS_TO_EPOCH;
    let (era, day) = (since_march_0.div_euclid(DAYS_PER_ERA), since_march_0.rem_euclid(DAYS_PER_ERA));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let since_march = (5 * day_of_year + 2) / 153;
    (era * 400 + year) * 12 + since_march + 2
}

/// The first day of a calendar month.
fn first_of(month: i64) -> i64 {
    let since_march_0 = month - 2;
    let (year, since_march) = (since_march_0.div_euclid(12), since_march_0.rem_euclid(12));
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * since_march + 2) / 5;
    era * DAYS_PER_ERA + year * 365 + year / 4 - year / 100 + day_of_year - DAYS_TO_EPOCH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A calendar that is written day by day.
    struct Calendar {
        // The days since the Unix epoch on which months begin that begin on `first_day`.
        starts: Vec<u64>,
    }

    impl Calendar {
        /// From December 1969 to the year 2500.
        fn new(first_day: u64) -> Self {
            let is_leap =
                |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
            let (mut starts, mut today) = (vec![0], 0);
            for year in 1970..2500 {
                let february = if is_leap(year) { 29 } else { 28 };
                for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
                    for day_of_month in 1..=days {
                        let is_start =
                            day_of_month == first_day || (first_day > days && day_of_month == days);
                        if is_start && today > 0 {
                            starts.push(today);
                        }
                        today += 1;
                    }
                }
            }
            Self { starts }
        }

        fn month_of(&self, second: u64) -> (u64, u64) {
            let next = self.starts.partition_point(|day| day * 86_400 <= second);
            (self.starts[next - 1] * 86_400, self.starts[next] * 86_400)
        }
    }

    #[test]
    fn every_month_until_the_year_2500_begins_and_ends_as_in_the_calendar() {
        for first_day in 1..=31 {
            let calendar = Calendar::new(first_day.into());
            for start in calendar.starts.iter().take(calendar.starts.len() - 1) {
                for second in [start * 86_400, start * 86_400 + 1, (start * 86_400).saturating_sub(1)] {
                    let month = (start_of(first_day, second), end_after(first_day, second));
                    assert_eq!(month, calendar.month_of(second), "day {first_day}, second {second}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_calendar_that_is_written_day_by_day(
            (first_day, seconds) in (1_u8..=31, prop::collection::vec(0_u64..16_000_000_000, 100)),
        ) {
            let calendar = Calendar::new(first_day.into());
            for second in seconds {
                prop_assert_eq!((start_of(first_day, second), end_after(first_day, second)), calendar.month_of(second));
            }
        }

        #[test]
        fn no_numbers_overflow((first_day, second) in (1_u8..=31, any::<u64>())) {
            prop_assert!(start_of(first_day, second) <= second);
            let end = end_after(first_day, second);
            prop_assert!(end > second || end == u64::MAX);
        }
    }
}
