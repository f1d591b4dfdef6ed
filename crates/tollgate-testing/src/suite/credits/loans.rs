//! Loans: reservations whose credits a backend in front of the store lends to requests.

use tollgate::credits::{EntryKind, Excess, NewGrant, ReservationId};

use super::setup::Setup;

pub(super) async fn a_shrunk_loan_stays_open_with_the_rest(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 6).with_id("a")).await;
    setup.grant(NewGrant::new("acme", 6).with_id("b")).await;
    let id = setup.hold("acme", 10).await;
    for amount in [7, 9, 7] {
        setup.shrink("acme", id, amount).await;
        assert_eq!(setup.amounts("acme").await, [5, 7, 0], "it never grows again");
    }
    assert_eq!(setup.commit("acme", id, 20).await, (7, 13), "it is a reservation of 7");
    setup.shrink("acme", id, 1).await;
    assert_eq!(setup.commit("acme", id, 20).await, (7, 13), "it is settled");
    assert_eq!(setup.amounts("acme").await, [5, 0, 0]);

    let expired = setup.hold("acme", 5).await;
    setup.advance(60);
    setup.shrink("acme", expired, 1).await;
    assert_eq!(setup.amounts("acme").await, [5, 0, 0]);
    assert_eq!(setup.commit("acme", expired, 5).await, (5, 0), "what was promised is charged");
    let unknown = ReservationId::from_number(7);
    setup.shrink("acme", unknown, 1).await;
    assert_eq!(setup.commit("acme", unknown, 5).await, (0, 5), "it makes no reservation");
    assert_eq!(setup.amounts("acme").await, [0, 0, 0]);
}

pub(super) async fn what_is_lent_is_charged_once_from_its_loan(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 6).with_id("a")).await;
    setup.grant(NewGrant::new("acme", 14).with_id("b")).await;
    let loan = setup.hold("acme", 10).await;
    let [one, two] = [1, 2].map(ReservationId::from_number);
    for _ in 0..3 {
        assert_eq!(setup.charge_lent("acme", one, Some(loan), [5, 4], Excess::Cap).await, (4, 0));
        assert_eq!(setup.amounts("acme").await, [10, 6, 0], "of the loan, 4 are charged");
        // The identifier is known from now on.
        assert_eq!(setup.commit("acme", one, 9).await, (4, 0));
        assert_eq!(setup.release("acme", one).await, (4, 0));
        setup.advance(10);
    }
    let charged = setup.charge_lent("acme", two, Some(loan), [5, 7], Excess::TakeAvailable).await;
    assert_eq!(charged, (7, 0), "5 from the loan, and 2 that are available");
    assert_eq!(setup.amounts("acme").await, [8, 1, 0]);
    setup.shrink("acme", loan, 0).await;
    assert_eq!(setup.amounts("acme").await, [9, 0, 0]);
    setup.release("acme", loan).await;
    assert_eq!(setup.amounts("acme").await, [9, 0, 0]);
    let kinds = [EntryKind::Reserved, EntryKind::Returned, EntryKind::Charged];
    let sum = |changes: Vec<(EntryKind, i64)>| -> i64 {
        changes.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, amount)| amount).sum()
    };
    assert_eq!(sum(setup.changes("acme").await), -11);
}

pub(super) async fn what_is_lent_is_charged_in_full_without_its_loan(setup: &Setup) {
    for (account, has_loan) in [("no loan", false), ("an expired loan", true)] {
        setup.grant(NewGrant::new(account, 10)).await;
        let loan = setup.hold(account, 8).await;
        let [one, two, three] = [account.len(), 100, 101]
            .map(|number| ReservationId::from_number(number as u128 + if has_loan { 1_000 } else { 0 }));
        if has_loan {
            setup.advance(60);
        } else {
            setup.release(account, loan).await;
        }
        let loan = has_loan.then_some(loan);
        let charge = async |id, amounts, excess| setup.charge_lent(account, id, loan, amounts, excess).await;
        assert_eq!(charge(one, [7, 9], Excess::Cap).await, (7, 2), "{account}");
        assert_eq!(setup.amounts(account).await, [3, 0, 0], "{account}");
        assert_eq!(charge(two, [5, 7], Excess::TakeAvailable).await, (5, 2), "{account}");
        assert_eq!(setup.amounts(account).await, [0, 0, 2], "a promise becomes a debt: {account}");
        assert_eq!(charge(three, [0, 7], Excess::Owe(6)).await, (4, 3), "{account}");
        assert_eq!(charge(three, [0, 7], Excess::Owe(99)).await, (4, 3), "{account}");
        assert_eq!(setup.amounts(account).await, [0, 0, 6], "the debt has a limit: {account}");
    }
    let id = ReservationId::from_number(50);
    assert_eq!(setup.charge_lent("other", id, None, [3, 3], Excess::Cap).await, (3, 0));
    assert_eq!(setup.amounts("other").await, [0, 0, 3]);
}

pub(super) async fn what_was_charged_is_found_by_its_identifier_for_24_hours(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 30)).await;
    let loan = setup.hold("acme", 10).await;
    let [committed, released] = [setup.hold("acme", 3).await, setup.hold("acme", 3).await];
    let [lent, unknown] = [1, 2].map(ReservationId::from_number);
    setup.commit("acme", committed, 2).await;
    setup.release("acme", released).await;
    setup.charge_lent("acme", lent, Some(loan), [5, 9], Excess::Cap).await;
    let before = setup.amounts("acme").await;
    for (id, charged) in [(committed, 2), (lent, 5), (loan, 0), (released, 0), (unknown, 0)] {
        assert_eq!(setup.charged("acme", id).await, charged, "{id}");
        assert_eq!(setup.charged("other", id).await, 0, "a reservation of another account is not found");
    }
    assert_eq!(setup.amounts("acme").await, before, "nothing is changed");
    assert_eq!(setup.charge_lent("acme", unknown, Some(loan), [1, 1], Excess::Cap).await, (1, 0));
    setup.advance(24 * 3_600 - 1);
    assert_eq!(setup.charged("acme", lent).await, 5);
    setup.advance(1);
    assert_eq!(setup.charged("acme", lent).await, 0, "it is forgotten");
}
