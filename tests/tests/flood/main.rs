//! A flood of subjects that somebody invents: memory stays under its cap, and whoever is known already notices nothing.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "whatever goes wrong in a test fails it"
)]

use std::time::{Duration, SystemTime};

use tests::suite::at;
use tollgate::{
    Answer, PerWindow as _, Quota,
    limit::{Charge, Decision, LimitRequest, Limiter as _, MemoryLimiter},
};

/// How many bytes of counters a subject may take at most, all in all. What is stated is "about 64".
const BYTES_PER_SUBJECT: usize = 68;

/// The same for those that are too wide for a table. What is stated is "some 200".
const BYTES_PER_WIDE_SUBJECT: usize = 260;

/// One in so many requests of the flood is one of a customer's.
const ONE_IN: usize = 1_000;

const CUSTOMERS: usize = 500;

/// Beyond the cap there are crowds: up to 64 in each of 64 shards for each policy.
const CROWDS: usize = 64 * 64;

fn ask(limiter: &MemoryLimiter, subject: &str, quota: &Quota, now: SystemTime) -> Decision {
    let charges = [Charge::new("address", subject, subject, quota)];
    let Answer::Now(Ok(decision)) = limiter.acquire(&LimitRequest::new(&charges, now)) else {
        panic!("counts at once")
    };
    decision
}

/// Lets so many invented subjects loose on a limiter for so many, and customers among them.
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
                assert!(decision.is_allowed(), "customer {which} was refused in the flood");
                assert!(decision.windows().iter().all(|window| window.used == asked[which]));
            }
        }
        assert!(limiter.subjects() <= capacity + CROWDS, "{} subjects", limiter.subjects());
    });
    let most = usize::try_from(measured.bytes_max).unwrap();
    let subjects = capacity + CROWDS;
    assert!(most < subjects * bytes, "{most} bytes for {subjects} subjects");

    // When its windows have passed, the flood is forgotten as others come.
    let limiter = limiter.unwrap();
    let later = at(2 * 86_400);
    for number in 0..invented / 4 {
        assert!(ask(&limiter, &format!("later {}", number % 1_000), quota, later).is_allowed());
    }
    assert!(limiter.subjects() < capacity / 5, "{} subjects are left", limiter.subjects());
}

#[test]
fn a_flood_of_invented_subjects_stays_under_the_cap_and_customers_keep_their_counts() {
    let quota = 100_000.per_minute().and(1_000_000.per_hour()).and(2_000_000.per_day());
    let [invented, capacity] = [tests::cases(150_000, 5_000_000), tests::cases(30_000, 1_000_000)];
    flood(invented as usize, capacity as usize, BYTES_PER_SUBJECT, &quota);
}

#[test]
fn the_same_for_sliding_windows_and_for_token_buckets() {
    let bucket = 1_000.per_hour().with_burst(9_000);
    // How full tables are depends on how many there are, and a little on chance: with 10,000 some have just grown, and one run in
    // a thousand was above the bound.
    flood(60_000, 15_000, BYTES_PER_SUBJECT, &1_000.per_minute().sliding().and(2_000.per_day()));
    flood(60_000, 15_000, BYTES_PER_SUBJECT, &bucket.clone().and(2_000.per_day()));
    flood(40_000, 10_000, BYTES_PER_WIDE_SUBJECT, &bucket.and(1_000.per_minute().sliding()));
}

#[test]
fn newcomers_in_a_flood_share_counters_and_none_gets_more_than_its_quota() {
    let (limiter, quota) = (MemoryLimiter::with_capacity(1_000), 5.per_minute());
    let passes = |subject: &str, seconds: u64| {
        (0..10).filter(|_| ask(&limiter, subject, &quota, at(seconds)).is_allowed()).count()
    };
    for number in 0..1_000 {
        assert_eq!(passes(&format!("known {number}"), 0), 5);
    }
    let newcomers: usize = (0..5_000).map(|number| passes(&format!("newcomer {number}"), 1)).sum();
    assert!(newcomers <= CROWDS * 5, "{newcomers} requests of newcomers passed");
    assert!((0..5_000).all(|number| passes(&format!("newcomer {number}"), 2) <= 5));
    assert!((0..1_000).all(|number| passes(&format!("known {number}"), 3) == 0));

    // In the next window there is room again: but for the first few, who come before it is made, and those who share with them.
    let unhindered = (0..500).filter(|number| passes(&format!("newcomer {number}"), 60) == 5).count();
    assert!(unhindered > 450, "{unhindered} of 500 newcomers had their quota");
}

#[test]
fn whoever_leaves_a_crowd_within_its_window_begins_with_what_the_crowd_has_used() {
    let (limiter, minute, hour) = (MemoryLimiter::with_capacity(1), 9.per_minute(), 1_000.per_hour());
    assert!(ask(&limiter, "first", &minute, at(0)).is_allowed());
    for used in 1..=4 {
        assert_eq!(ask(&limiter, "second", &hour, at(1)).windows()[0].used, used);
    }
    assert_eq!(limiter.subjects(), 2, "the first one, and a crowd");
    // The first one's minute has passed, and the second one takes its place as soon as that is cleared away.
    for used in 5..=200 {
        assert_eq!(ask(&limiter, "second", &hour, at(60)).windows()[0].used, used);
    }
    let much_later = at(0) + Duration::from_hours(1);
    assert_eq!(ask(&limiter, "second", &hour, much_later).windows()[0].used, 1);
}
