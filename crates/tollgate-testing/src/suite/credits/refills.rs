//! Grants that are filled up again.

use std::time::Duration;

use tollgate::credits::{EntryKind, Excess, NewGrant, Refill};

use super::setup::Setup;
use crate::at;

const DAY: u64 = 86_400;

pub(super) async fn a_daily_grant_is_filled_up_at_midnight(setup: &Setup) {
    setup.clock.set(at(DAY / 2));
    setup.grant(NewGrant::new("acme", 10).with_refill(Refill::Daily)).await;
    let id = setup.hold("acme", 7).await;
    setup.commit("acme", id, 7).await;
    setup.clock.set(at(DAY) - Duration::from_micros(1));
    assert_eq!(setup.available("acme").await, 3);
    setup.clock.set(at(DAY));
    assert_eq!(setup.available("acme").await, 10, "what was left has lapsed");
    assert_eq!(setup.available("acme").await, 10);
}

pub(super) async fn a_monthly_grant_of_the_31st_is_filled_up_on_the_last_day_of_shorter_months(
    setup: &Setup,
) {
    // The test begins on 2033-05-19. The days until the 31st of May, the 30th of June, and so on, to the 31st of March.
    let days = [12, 42, 73, 104, 134, 165, 195, 226, 257, 285, 316];
    setup.grant(NewGrant::new("acme", 10).with_refill(Refill::Monthly { day: 31 })).await;
    for day in days {
        setup.clock.set(at(day * DAY) - Duration::from_micros(1));
        let id = setup.hold("acme", 10).await;
        setup.commit("acme", id, 10).await;
        assert_eq!(setup.available("acme").await, 0, "before day {day}");
        setup.clock.set(at(day * DAY));
        assert_eq!(setup.available("acme").await, 10, "on day {day}");
    }
}

pub(super) async fn missed_periods_are_filled_up_once(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10).with_refill(Refill::Daily)).await;
    setup.hold("acme", 4).await;
    setup.advance(100 * DAY);
    assert_eq!(setup.amounts("acme").await, [10, 0, 0]);
    let changes = setup.changes("acme").await;
    let expected = [
        (EntryKind::Granted, 10),
        (EntryKind::Reserved, -4),
        (EntryKind::Lapsed, -6),
        (EntryKind::Refilled, 10),
        (EntryKind::Returned, 4),
        (EntryKind::Lapsed, -4),
    ];
    assert_eq!(changes, expected);
}

pub(super) async fn a_clock_that_steps_back_fills_nothing_up(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10).with_refill(Refill::Daily)).await;
    setup.advance(DAY);
    let id = setup.hold("acme", 10).await;
    setup.commit("acme", id, 10).await;
    for second in [DAY - 1, DAY, DAY - 1, DAY] {
        setup.clock.set(at(second));
        assert_eq!(setup.available("acme").await, 0, "at second {second}");
    }
    setup.clock.set(at(2 * DAY));
    assert_eq!(setup.available("acme").await, 10);
}

pub(super) async fn credits_of_an_earlier_period_lapse_when_they_are_returned(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10).with_refill(Refill::Daily)).await;
    setup.clock.set(at(DAY - 30));
    let id = setup.hold("acme", 8).await;
    setup.clock.set(at(DAY));
    assert_eq!(setup.amounts("acme").await, [10, 8, 0]);
    assert_eq!(setup.commit("acme", id, 3).await, (3, 0));
    assert_eq!(setup.amounts("acme").await, [10, 0, 0]);
}

pub(super) async fn a_debt_is_paid_by_the_next_refill(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10).with_refill(Refill::Daily)).await;
    let id = setup.hold("acme", 10).await;
    assert_eq!(setup.commit_with("acme", id, 24, Excess::Owe(50)).await, (24, 0));
    assert_eq!(setup.amounts("acme").await, [0, 0, 14]);
    setup.advance(DAY);
    assert_eq!(setup.amounts("acme").await, [0, 0, 4]);
    setup.advance(DAY);
    assert_eq!(setup.amounts("acme").await, [6, 0, 0]);
}
