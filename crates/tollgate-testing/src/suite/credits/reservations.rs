//! Reservations and their settlement.

use tollgate::credits::{Excess, NewGrant, ReservationId, Reserved, SettleAction, Settlement, Shortage};

use super::setup::{Setup, held};

pub(super) async fn reserved_credits_are_not_available(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10)).await;
    let reservation = held(&setup.reserve("acme", 7).await);
    assert_eq!((reservation.amount, reservation.available), (7, 3));
    assert_eq!(setup.amounts("acme").await, [3, 7, 0]);
    assert_eq!(setup.reserve("acme", 4).await, Reserved::Insufficient(Shortage::new(3, 4)));
    assert_eq!(setup.commit("acme", reservation.id, 5).await, (5, 0));
    assert_eq!(setup.amounts("acme").await, [5, 0, 0], "what was not used is available again");
    let released = setup.hold("acme", 5).await;
    assert_eq!(setup.release("acme", released).await, (0, 0));
    assert_eq!(setup.amounts("acme").await, [5, 0, 0]);
}

pub(super) async fn the_first_settlement_wins(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 100)).await;
    let id = setup.hold("acme", 10).await;
    let expected = Settlement::new(id, 10, 2);
    for action in [
        SettleAction::Commit { actual: 12, excess: Excess::Cap },
        SettleAction::Commit { actual: 12, excess: Excess::Cap },
        SettleAction::Commit { actual: 50, excess: Excess::Owe(1_000) },
        SettleAction::Release,
    ] {
        assert_eq!(setup.settle("acme", id, action).await, expected, "{action:?}");
    }
    assert_eq!(setup.amounts("acme").await, [90, 0, 0]);

    let id = setup.hold("acme", 10).await;
    assert_eq!(setup.release("acme", id).await, (0, 0));
    assert_eq!(setup.commit("acme", id, 10).await, (0, 10), "a released reservation cannot be charged");
    assert_eq!(setup.amounts("acme").await, [90, 0, 0]);
}

pub(super) async fn an_excess_is_charged_as_its_caller_chose(setup: &Setup) {
    for (account, excess, expected, amounts) in [
        ("cap", Excess::Cap, (10, 25), [20, 0, 0]),
        ("take", Excess::TakeAvailable, (30, 5), [0, 0, 0]),
        ("owe 3", Excess::Owe(3), (33, 2), [0, 0, 3]),
        ("owe 9", Excess::Owe(9), (35, 0), [0, 0, 5]),
    ] {
        setup.grant(NewGrant::new(account, 30)).await;
        let id = setup.hold(account, 10).await;
        assert_eq!(setup.commit_with(account, id, 35, excess).await, expected, "{account}");
        assert_eq!(setup.amounts(account).await, amounts, "{account}");
    }
}

pub(super) async fn a_debt_has_a_limit_and_is_paid_first(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10).with_id("first")).await;
    let [one, two, three] =
        [setup.hold("acme", 3).await, setup.hold("acme", 3).await, setup.hold("acme", 4).await];
    assert_eq!(setup.commit_with("acme", one, 8, Excess::Owe(7)).await, (8, 0));
    assert_eq!(
        setup.commit_with("acme", two, 8, Excess::Owe(7)).await,
        (5, 3),
        "the whole debt is at most 7"
    );
    assert_eq!(setup.amounts("acme").await, [0, 4, 7]);
    for amount in [0, 1] {
        let refused = Reserved::Insufficient(Shortage::new(0, amount).with_debt(7));
        assert_eq!(setup.reserve("acme", amount).await, refused, "an account with a debt cannot reserve");
    }
    setup.release("acme", three).await;
    assert_eq!(setup.amounts("acme").await, [0, 0, 3], "returned credits pay the debt");
    let granted = setup.grant(NewGrant::new("acme", 5).with_id("second")).await;
    assert_eq!((granted.amount, granted.remaining), (5, 2));
    assert_eq!(setup.amounts("acme").await, [2, 0, 0]);
    setup.hold("acme", 2).await;
}

pub(super) async fn an_expired_reservation_gives_back_and_still_charges(setup: &Setup) {
    for (account, excess, expected, amounts) in [
        ("cap", Excess::Cap, (8, 2), [2, 0, 0]),
        ("take", Excess::TakeAvailable, (10, 0), [0, 0, 0]),
        ("owe", Excess::Owe(9), (10, 0), [0, 0, 0]),
    ] {
        setup.grant(NewGrant::new(account, 10)).await;
        let id = setup.hold(account, 8).await;
        setup.advance(59);
        assert_eq!(setup.amounts(account).await, [2, 8, 0], "{account}");
        setup.advance(1);
        assert_eq!(setup.amounts(account).await, [10, 0, 0], "{account}");
        for _ in 0..2 {
            assert_eq!(setup.commit_with(account, id, 10, excess).await, expected, "{account}");
        }
        assert_eq!(setup.amounts(account).await, amounts, "{account}");
    }

    // What was reserved is charged although others have spent it: 8. The excess is charged as its caller chose.
    for (account, actual, excess, expected, amounts) in [
        ("used, less", 5, Excess::Cap, (5, 0), [0, 6, 1]),
        ("used, cap", 11, Excess::Cap, (8, 3), [0, 6, 4]),
        ("used, take", 11, Excess::TakeAvailable, (8, 3), [0, 6, 4]),
        ("used, owe 3", 11, Excess::Owe(3), (8, 3), [0, 6, 4]),
        ("used, owe 6", 11, Excess::Owe(6), (10, 1), [0, 6, 6]),
        ("used, owe 9", 11, Excess::Owe(9), (11, 0), [0, 6, 7]),
    ] {
        setup.grant(NewGrant::new(account, 10)).await;
        let late = setup.hold(account, 8).await;
        setup.advance(60);
        setup.hold(account, 6).await;
        assert_eq!(setup.commit_with(account, late, actual, excess).await, expected, "{account}");
        assert_eq!(setup.amounts(account).await, amounts, "what others hold is not charged: {account}");
    }

    setup.grant(NewGrant::new("released", 10)).await;
    let id = setup.hold("released", 8).await;
    setup.advance(60);
    assert_eq!(setup.release("released", id).await, (0, 0));
    assert_eq!(setup.amounts("released").await, [10, 0, 0]);
}

pub(super) async fn an_unknown_reservation_charges_and_returns_nothing(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10)).await;
    let invented = ReservationId::from_number(7);
    assert_eq!(setup.commit_with("acme", invented, 5, Excess::Owe(100)).await, (0, 5));
    assert_eq!(setup.release("acme", invented).await, (0, 0));
    assert_eq!(setup.commit("no account", invented, 5).await, (0, 5));
    assert_eq!(setup.amounts("acme").await, [10, 0, 0]);

    let [committed, crashed] = [setup.hold("acme", 4).await, setup.hold("acme", 3).await];
    setup.commit("acme", committed, 4).await;
    setup.advance(60 + 24 * 3_600);
    for forgotten in [committed, crashed] {
        assert_eq!(setup.commit("acme", forgotten, 3).await, (0, 3));
        assert_eq!(setup.release("acme", forgotten).await, (0, 0));
    }
    assert_eq!(setup.amounts("acme").await, [6, 0, 0]);
}

pub(super) async fn a_sweep_releases_the_expired_reservations_of_all_accounts(setup: &Setup) {
    for number in 0..5 {
        let account = format!("account {number}");
        setup.grant(NewGrant::new(&*account, 10)).await;
        setup.hold(&account, 4).await;
        setup.advance(10);
    }
    let sweep = async || setup.credits.sweep(setup.now()).await.unwrap();
    setup.advance(30); // 80 s after the first one, 40 s after the last one
    assert_eq!(sweep().await, 3);
    assert_eq!(sweep().await, 0);
    for (number, available) in [10, 10, 10, 6, 6].into_iter().enumerate() {
        let check = setup.credits.check(&format!("account {number}")).await.unwrap();
        assert_eq!((check.available, check.agrees), (available, true), "account {number}");
    }
}
