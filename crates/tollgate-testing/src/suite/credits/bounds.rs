//! The bounds on grants and reservations.

use std::time::{Duration, SystemTime};

use tollgate::{
    bounds::{MAX_CREDITS, MAX_GRANTS, MAX_RESERVATION_TIME},
    credits::{CreditAdminError, Excess, NewGrant, Refill, ReserveRequest, Reserved, Shortage},
};

use super::setup::{Setup, held};
use crate::at;

pub(super) async fn a_command_that_exceeds_a_bound_is_refused_with_its_name(setup: &Setup) {
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(tollgate::bounds::END_OF_CALENDAR_SECONDS);
    let grant = || NewGrant::new("acme", 1);
    for (invalid, named) in [
        (NewGrant::new("", 1), "an account is 1 to 200 bytes"),
        (NewGrant::new("x".repeat(201), 1), "an account is 1 to 200 bytes"),
        (NewGrant::new("acme", 0), "the amount of a grant is 1 to 1000000000000000"),
        (NewGrant::new("acme", MAX_CREDITS + 1), "the amount of a grant is 1 to 1000000000000000"),
        (grant().with_id(""), "the identifier of a grant is 1 to 200 bytes"),
        (grant().with_id("x".repeat(201)), "the identifier of a grant is 1 to 200 bytes"),
        (grant().with_note("ü".repeat(501)), "the note of a grant is at most 500 characters"),
        (grant().with_note("a\nb"), "without control characters"),
        (grant().with_expiry(at(0)), "the expiry of a grant is not in the future"),
        (grant().with_expiry(far), "the expiry is not before the year 9999"),
        (grant().with_refill(Refill::Monthly { day: 0 }), "the day of a monthly refill is 1 to 31"),
        (grant().with_refill(Refill::Monthly { day: 32 }), "the day of a monthly refill is 1 to 31"),
    ] {
        match setup.try_grant(invalid).await {
            Err(CreditAdminError::Invalid(text)) => assert!(text.contains(named), "{text}"),
            other => panic!("expected an error with {named:?}, got {other:?}"),
        }
    }
    assert_eq!(setup.ledger("acme").await, []);

    for number in 0..MAX_GRANTS {
        setup.grant(grant().with_id(number.to_string()).with_note("ü".repeat(500))).await;
    }
    let refused = setup.try_grant(grant()).await;
    assert!(
        matches!(&refused, Err(CreditAdminError::Invalid(text)) if text.contains("100 grants")),
        "{refused:?}"
    );
    setup.grant(grant().with_id("7")).await; // exists
    setup.try_withdraw("acme", "7").await.unwrap();
    setup.grant(grant()).await;
    assert_eq!(setup.available("acme").await, 100);
}

pub(super) async fn extreme_amounts_and_instants_change_nothing_by_mistake(setup: &Setup) {
    for number in 0..3 {
        setup.grant(NewGrant::new("acme", MAX_CREDITS).with_id(number.to_string())).await;
    }
    let all = 3 * MAX_CREDITS;
    for amount in [MAX_CREDITS + 1, all, all + 1, i64::MAX.unsigned_abs(), u64::MAX] {
        let refused = Reserved::Insufficient(Shortage::new(all, amount));
        assert_eq!(setup.reserve("acme", amount).await, refused);
    }
    let id = setup.hold("acme", MAX_CREDITS).await;
    let (charged, _) = setup.commit_with("acme", id, u64::MAX, Excess::Owe(u64::MAX)).await;
    assert_eq!(charged, all + MAX_CREDITS, "a debt is at most {MAX_CREDITS}");
    assert_eq!(setup.amounts("acme").await, [0, 0, MAX_CREDITS]);

    setup.grant(NewGrant::new("other", 10)).await;
    let now = setup.now();
    for (expires_at, is_open) in [(at(0) - Duration::from_secs(9), false), (at(u32::MAX.into()), true)] {
        held(&setup.credits.reserve(&ReserveRequest::new("other", 4, expires_at, now)).await.unwrap());
        let reserved = if is_open { 4 } else { 0 };
        assert_eq!(setup.amounts("other").await, [10 - reserved, reserved, 0]);
    }
    setup.clock.set(now + MAX_RESERVATION_TIME);
    assert_eq!(setup.amounts("other").await, [10, 0, 0], "no reservation lasts longer than this");
}
