//! A flood of invented subjects: memory stays under its cap, and known subjects keep their counters.

use std::time::{Duration, SystemTime};

use tests::suite::at;
use tollgate::{
    Answer, PerWindow as _, Quota,
    limit::{Charge, Decision, LimitRequest, Limiter as _, MemoryLimiter},
};

/// The maximum of bytes per subject. The documentation says "about 64".
const BYTES_PER_SUBJECT: usize = 68;

/// The same for counters that do not fit a table. The documentation says "some 200".
const BYTES_PER_WIDE_SUBJECT: usize = 260;

/// What a full limiter remembers of new subjects: 1,024 fingerprints in each of 64 shards.
const NEW_SUBJECTS_BYTES: usize = 64 * 1_024 * 16;

/// A customer sends one request after this many requests of the flood.
const ONE_IN: usize = 1_000;

const CUSTOMERS: usize = 500;

/// Beyond the cap, new subjects share counters: up to 64 shared counters in each of 64 shards for each policy.
const SHARED_COUNTERS: usize = 64 * 64;

fn ask(limiter: &MemoryLimiter, subject: &str, quota: &Quota, now: SystemTime) -> Decision {
    let charges = [Charge::new("address", subject, subject, quota)];
    let Answer::Now(Ok(decision)) = limiter.acquire(&LimitRequest::new(&charges, now)) else {
        panic!("the limiter in memory never waits")
    };
    decision
}

/// Sends requests of `invented` subjects to a limiter for `capacity` subjects, with requests of customers in between.
fn flood(invented: usize, capacity: usize, bytes: usize, quota: &Quota) {
    let mut limiter = None;
    let customers: Vec<_> = (0..CUSTOMERS).map(|number| format!("customer {number}")).collect();
    let measured = allocation_counter::measure(|| {
        let limiter = limiter.insert(MemoryLimiter::with_capacity(capacity));
        let mut asked = vec![0; CUSTOMERS];
        for (customer, asked) in customers.iter().zip(&mut asked) {
            assert!(ask(limiter, customer, quota, at(0)).is_allowed());
            *asked += 1;
        }
        for number in 0..invented {
            ask(limiter, &format!("invented {number}"), quota, at(1));
            if number % ONE_IN == 0 {
                let which = number / ONE_IN % CUSTOMERS;
                let decision = ask(limiter, &customers[which], quota, at(2));
                asked[which] += 1;
                assert!(decision.is_allowed(), "customer {which} was refused during the flood");
                assert!(decision.windows().iter().all(|window| window.used == asked[which]));
            }
        }
        assert!(limiter.subjects() <= capacity + SHARED_COUNTERS, "{} subjects", limiter.subjects());
    });
    let most = usize::try_from(measured.bytes_max).unwrap();
    let subjects = capacity + SHARED_COUNTERS;
    assert!(most < subjects * bytes + NEW_SUBJECTS_BYTES, "{most} bytes for {subjects} subjects");

    // After its windows have passed, later requests remove the flood's counters.
    let limiter = limiter.unwrap();
    let later = at(2 * 86_400);
    for number in 0..invented / 4 {
        assert!(ask(&limiter, &format!("later {}", number % 1_000), quota, later).is_allowed());
    }
    assert!(limiter.subjects() < capacity / 5, "{} subjects remain", limiter.subjects());
}

#[test]
fn a_flood_of_invented_subjects_stays_under_the_cap_and_customers_keep_their_counts() {
    let quota = 100_000.per_minute().and(1_000_000.per_hour()).and(2_000_000.per_day());
    let [invented, capacity] = [tests::cases(150_000, 5_000_000), tests::cases(30_000, 1_000_000)];
    flood(invented as usize, capacity as usize, BYTES_PER_SUBJECT, &quota);
}

#[test]
fn a_flood_stays_under_the_cap_with_sliding_windows_and_token_buckets() {
    let bucket = 1_000.per_hour().with_burst(9_000);
    // How full the tables are depends on the number of subjects, and a little on chance. With 10,000 subjects some tables have just
    // grown, and one run in 1,000 exceeded the bound.
    flood(60_000, 15_000, BYTES_PER_SUBJECT, &1_000.per_minute().sliding().and(2_000.per_day()));
    flood(60_000, 15_000, BYTES_PER_SUBJECT, &bucket.clone().and(2_000.per_day()));
    flood(40_000, 10_000, BYTES_PER_WIDE_SUBJECT, &bucket.and(1_000.per_minute().sliding()));
}

#[test]
fn new_subjects_in_a_flood_share_counters_and_none_gets_more_than_its_quota() {
    let (limiter, quota) = (MemoryLimiter::with_capacity(1_000), 5.per_minute());
    let passes = |subject: &str, seconds: u64| {
        (0..10).filter(|_| ask(&limiter, subject, &quota, at(seconds)).is_allowed()).count()
    };
    for number in 0..1_000 {
        assert_eq!(passes(&format!("known {number}"), 0), 5);
    }
    let admitted: usize = (0..5_000).map(|number| passes(&format!("new {number}"), 1)).sum();
    assert!(admitted <= SHARED_COUNTERS * 5, "{admitted} requests of new subjects passed");
    assert!((0..5_000).all(|number| passes(&format!("new {number}"), 2) <= 5));
    assert!((0..1_000).all(|number| passes(&format!("known {number}"), 3) == 0));

    // In the next window most new subjects get their own counters again. The first ones arrive before the old counters are removed, and
    // others share with them.
    let with_quota = (0..500).filter(|number| passes(&format!("new {number}"), 60) == 5).count();
    assert!(with_quota > 450, "{with_quota} of 500 new subjects had their quota");
}

#[test]
fn a_subject_that_leaves_a_shared_counter_within_its_window_keeps_the_count() {
    let (limiter, minute, hour) = (MemoryLimiter::with_capacity(1), 9.per_minute(), 1_000.per_hour());
    assert!(ask(&limiter, "first", &minute, at(0)).is_allowed());
    for used in 1..=4 {
        assert_eq!(ask(&limiter, "second", &hour, at(1)).windows()[0].used, used);
    }
    assert_eq!(limiter.subjects(), 2, "the first subject, and a shared counter");
    // The first subject's minute has passed. The second one takes its place when it is removed.
    for used in 5..=200 {
        assert_eq!(ask(&limiter, "second", &hour, at(60)).windows()[0].used, used);
    }
    let much_later = at(0) + Duration::from_hours(1);
    assert_eq!(ask(&limiter, "second", &hour, much_later).windows()[0].used, 1);
}
