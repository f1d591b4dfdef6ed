//! Idempotency keys.

use tollgate::credits::{NewGrant, Reserved, Settlement, Shortage};

use super::setup::{Setup, held};

pub(super) async fn a_repeated_request_is_charged_once(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 100)).await;
    let reserve = async |request: &str| setup.reserve_once("acme", 10, "key", request).await;
    let id = held(&reserve("scan").await).id;
    assert_eq!(reserve("scan").await, Reserved::InProgress);
    assert_eq!(reserve("batch").await, Reserved::KeyReused);
    setup.commit("acme", id, 12).await;
    for _ in 0..2 {
        assert_eq!(reserve("scan").await, Reserved::Repeated(Settlement::new(id, 10, 2)));
        assert_eq!(reserve("batch").await, Reserved::KeyReused);
    }
    assert_eq!(setup.amounts("acme").await, [90, 0, 0]);

    let other = setup.reserve_once("acme", 90, "other key", "scan").await;
    held(&other);
    assert_eq!(
        reserve("scan").await,
        Reserved::Repeated(Settlement::new(id, 10, 2)),
        "a request that was charged is repeated without credits"
    );
}

pub(super) async fn a_key_of_a_released_request_can_be_used_again(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10)).await;
    let reserve = async |amount, request: &str| setup.reserve_once("acme", amount, "key", request).await;
    let first = held(&reserve(8, "scan").await).id;
    setup.release("acme", first).await;
    assert_eq!(reserve(8, "batch").await, Reserved::KeyReused);
    assert_eq!(reserve(11, "scan").await, Reserved::Insufficient(Shortage::new(10, 11)));
    let second = held(&reserve(8, "scan").await).id;
    assert_ne!(first, second);
    assert_eq!(setup.commit("acme", first, 8).await, (0, 8), "the first one stays released");
    assert_eq!(setup.commit("acme", second, 8).await, (8, 0));
    assert_eq!(reserve(8, "scan").await, Reserved::Repeated(Settlement::new(second, 8, 0)));
    assert_eq!(setup.amounts("acme").await, [2, 0, 0]);
}

/// A slow request outlives its reservation, and its caller sends it again. Both are at work, so both are charged.
pub(super) async fn a_key_that_moved_to_a_new_reservation_leaves_the_earlier_one_to_be_charged(
    setup: &Setup,
) {
    setup.grant(NewGrant::new("acme", 100)).await;
    let slow = held(&setup.reserve_once("acme", 10, "key", "scan").await).id;
    setup.advance(60);
    let again = held(&setup.reserve_once("acme", 10, "key", "scan").await).id;
    assert_eq!(setup.commit("acme", slow, 10).await, (10, 0));
    assert_eq!(setup.reserve_once("acme", 10, "key", "scan").await, Reserved::InProgress);
    assert_eq!(setup.commit("acme", again, 10).await, (10, 0));
    assert_eq!(
        setup.reserve_once("acme", 10, "key", "scan").await,
        Reserved::Repeated(Settlement::new(again, 10, 0)),
        "the key belongs to the later one"
    );
    assert_eq!(setup.amounts("acme").await, [80, 0, 0]);

    let slow = held(&setup.reserve_once("acme", 10, "another key", "scan").await).id;
    setup.advance(60);
    assert_eq!(setup.commit("acme", slow, 10).await, (10, 0), "it is charged if it is not sent again before");
    let repeated = setup.reserve_once("acme", 10, "another key", "scan").await;
    assert_eq!(repeated, Reserved::Repeated(Settlement::new(slow, 10, 0)));
    assert_eq!(setup.amounts("acme").await, [70, 0, 0]);
}

pub(super) async fn a_key_is_forgotten_24_hours_after_the_settlement(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 100)).await;
    let id = held(&setup.reserve_once("acme", 10, "key", "scan").await).id;
    setup.advance(30);
    setup.commit("acme", id, 10).await;
    setup.advance(24 * 3_600 - 1);
    setup.credits.sweep(setup.now()).await.unwrap();
    assert_eq!(setup.commit("acme", id, 10).await, (10, 0));
    let repeated = setup.reserve_once("acme", 10, "key", "scan").await;
    assert_eq!(repeated, Reserved::Repeated(Settlement::new(id, 10, 0)));
    setup.advance(1);
    held(&setup.reserve_once("acme", 10, "key", "batch").await);
    assert_eq!(setup.amounts("acme").await, [80, 10, 0]);
}
