//! The losses of credits that other services have had, each as a test.

use tollgate::credits::{EntryKind, Excess, NewGrant, Reserved, SettleAction, Settlement, Shortage};

use super::setup::{Setup, held};

/// A stream failed, its error path released nothing, and the credits stayed reserved for ever.
pub(super) async fn the_error_of_a_stream_that_never_released_keeps_no_credits(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10)).await;
    for _ in 0..200 {
        setup.hold("acme", 10).await;
        setup.advance(60);
    }
    assert_eq!(setup.amounts("acme").await, [10, 0, 0]);
}

/// A commit was made, its answer was lost, and the commit that was sent again charged once more.
pub(super) async fn a_commit_whose_acknowledgement_was_lost_is_paid_once(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 100)).await;
    for excess in [Excess::Cap, Excess::TakeAvailable, Excess::Owe(50)] {
        let id = setup.hold("acme", 10).await;
        let commit = SettleAction::Commit { actual: 15, excess };
        let first = setup.settle("acme", id, commit).await;
        let available = setup.available("acme").await;
        for wait in [0, 59, 3_600, 20 * 3_600] {
            setup.advance(wait);
            assert_eq!(setup.settle("acme", id, commit).await, first);
        }
        assert_eq!(setup.available("acme").await, available);
    }
    assert_eq!(setup.amounts("acme").await, [100 - 10 - 15 - 15, 0, 0]);
}

/// The error path of a settlement made the reservation open again, and its credits were returned although they were charged.
pub(super) async fn a_settlement_that_is_reset_after_an_error_makes_no_credits(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10)).await;
    let id = setup.hold("acme", 6).await;
    assert_eq!(setup.commit("acme", id, 6).await, (6, 0));
    for _ in 0..3 {
        assert_eq!(setup.settle("acme", id, SettleAction::Release).await, Settlement::new(id, 6, 0));
        assert_eq!(setup.commit("acme", id, 0).await, (6, 0));
    }
    setup.advance(60);
    setup.credits.sweep(setup.now()).await.unwrap();
    assert_eq!(setup.amounts("acme").await, [4, 0, 0], "nor does its expiry return anything");

    let id = setup.hold("acme", 4).await;
    setup.advance(60);
    for _ in 0..3 {
        assert_eq!(setup.release("acme", id).await, (0, 0));
        assert_eq!(setup.amounts("acme").await, [4, 0, 0], "expired credits are returned once");
    }
}

/// A charge beyond what was available failed, and the code that handled the failure returned credits.
pub(super) async fn a_charge_that_failed_is_no_refund(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10)).await;
    let id = setup.hold("acme", 10).await;
    for excess in [Excess::TakeAvailable, Excess::Cap] {
        assert_eq!(setup.commit_with("acme", id, 1_000, excess).await, (10, 990));
        setup.release("acme", id).await;
        assert_eq!(setup.amounts("acme").await, [0, 0, 0]);
    }
    assert!(matches!(setup.reserve("acme", 1).await, Reserved::Insufficient(_)));
    let changes = setup.changes("acme").await;
    assert_eq!(changes, [(EntryKind::Granted, 10), (EntryKind::Reserved, -10)]);
}

/// Requests were slower than their reservations, whose credits were reserved again, and the late settlements found none to charge.
pub(super) async fn requests_that_outlive_their_reservations_spend_no_credit_twice(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10)).await;
    let mut slow = Vec::new();
    for _ in 0..5 {
        slow.push(setup.hold("acme", 10).await);
        setup.advance(60);
    }
    for (number, id) in slow.into_iter().enumerate() {
        assert_eq!(setup.commit("acme", id, 10).await, (10, 0));
        assert_eq!(setup.amounts("acme").await, [0, 0, 10 * number as u64]);
    }
    let refused = Reserved::Insufficient(Shortage::new(0, 1).with_debt(40));
    assert_eq!(setup.reserve("acme", 1).await, refused);
    setup.grant(NewGrant::new("acme", 45)).await;
    assert_eq!(setup.amounts("acme").await, [5, 0, 0]);
}

/// Keys were looked up without the tenant, so a request was answered and charged as another tenant's.
pub(super) async fn an_idempotency_key_matches_no_request_of_another_tenant(setup: &Setup) {
    let reserve = async |account: &str| setup.reserve_once(account, 4, "1", "scan").await;
    for account in ["acme", "other"] {
        setup.grant(NewGrant::new(account, 10)).await;
    }
    let of_acme = held(&reserve("acme").await).id;
    let of_other = held(&reserve("other").await).id;
    assert_ne!(of_acme, of_other);
    assert_eq!(setup.commit("other", of_acme, 4).await, (0, 4), "another tenant's reservation is not found");
    assert_eq!(setup.release("other", of_acme).await, (0, 0));
    assert_eq!(setup.amounts("acme").await, [6, 4, 0]);
    assert_eq!(setup.amounts("other").await, [6, 4, 0]);

    setup.commit("acme", of_acme, 3).await;
    assert_eq!(reserve("acme").await, Reserved::Repeated(Settlement::new(of_acme, 3, 0)));
    assert_eq!(reserve("other").await, Reserved::InProgress);
    setup.release("other", of_other).await;
    assert_eq!(setup.amounts("acme").await, [7, 0, 0]);
    assert_eq!(setup.amounts("other").await, [10, 0, 0]);
}
