//! Grants: their order, their end, and who makes them.

use std::time::Duration;

use tollgate::{
    credits::{Balance, CreditAdminError, NewGrant, Reserved, Shortage, WithdrawGrant},
    manage::{Actor, Command},
};

use super::setup::Setup;
use crate::at;

pub(super) async fn an_account_without_grants_has_nothing(setup: &Setup) {
    assert_eq!(setup.balance("acme").await, Balance::default());
    assert_eq!(setup.reserve("acme", 1).await, Reserved::Insufficient(Shortage::new(0, 1)));
    assert_eq!(setup.amounts("acme").await, [0, 0, 0]);
    assert_eq!((setup.grants("acme").await, setup.ledger("acme").await), (vec![], vec![]));
    let missing = setup.try_withdraw("acme", "g1").await;
    assert!(matches!(missing, Err(CreditAdminError::NotFound)), "{missing:?}");

    let free = setup.hold("acme", 0).await;
    assert_eq!(setup.commit("acme", free, 0).await, (0, 0), "a request that costs nothing needs no credits");
}

pub(super) async fn grants_are_spent_in_their_order(setup: &Setup) {
    let grant = |id: &str| NewGrant::new("acme", 1).with_id(id);
    setup.grant(grant("never ends").with_priority(-1)).await;
    setup.grant(grant("ends later").with_expiry(at(9_000))).await;
    setup.grant(grant("never ends, b")).await;
    setup.grant(grant("never ends, a")).await;
    setup.grant(grant("ends sooner").with_expiry(at(8_000))).await;
    setup.grant(grant("is spent last").with_priority(7).with_expiry(at(100))).await;
    setup.advance(1);
    setup.grant(grant("a younger one")).await;
    // Its period ends at midnight, before the others end.
    setup
        .grant(grant("of today").with_refill(tollgate::credits::Refill::Daily).with_expiry(at(90_000)))
        .await;

    let in_order = [
        "never ends",
        "ends sooner",
        "ends later",
        "of today",
        "never ends, a",
        "never ends, b",
        "a younger one",
        "is spent last",
    ];
    let listed = setup.grants("acme").await;
    assert_eq!(listed.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), in_order);
    for id in in_order {
        setup.hold("acme", 1).await;
        let grants = setup.grants("acme").await;
        let used = grants.iter().rfind(|(_, left)| *left == 0).map(|(id, _)| &**id);
        assert_eq!(used, Some(id), "{grants:?}");
    }
}

pub(super) async fn a_grant_with_the_same_identifier_is_made_once(setup: &Setup) {
    let invoice = NewGrant::new("acme", 10).with_id("invoice_17").with_note("invoice 17");
    let first = setup.grant(invoice.clone()).await;
    assert_eq!(
        (&*first.id, first.amount, first.remaining, &*first.note),
        ("invoice_17", 10, 10, "invoice 17")
    );
    setup.hold("acme", 4).await;
    setup.advance(1);
    for repeated in [invoice, NewGrant::new("acme", 99).with_id("invoice_17")] {
        let again = setup.grant(repeated).await;
        assert_eq!((again.amount, again.remaining, again.granted_at), (10, 6, at(0)));
    }
    assert_eq!(setup.amounts("acme").await, [6, 4, 0]);

    setup.grant(NewGrant::new("other", 10).with_id("invoice_17")).await;
    assert_eq!(setup.available("other").await, 10, "another account's identifier is another one");
    let [one, two] =
        [setup.grant(NewGrant::new("acme", 1)).await, setup.grant(NewGrant::new("acme", 1)).await];
    assert_ne!(one.id, two.id, "grants without an identifier are each made");
    assert_eq!(setup.available("acme").await, 8);
}

pub(super) async fn a_grant_that_has_ended_is_not_made_again(setup: &Setup) {
    let trial = NewGrant::new("acme", 10).with_id("trial").with_expiry(at(100));
    let bonus = NewGrant::new("acme", 10).with_id("bonus");
    setup.grant(trial.clone()).await;
    setup.grant(bonus.clone()).await;
    setup.try_withdraw("acme", "bonus").await.unwrap();
    setup.advance(100);
    for ended in [trial, bonus] {
        let again = setup.grant(ended).await;
        assert_eq!((again.amount, again.remaining), (10, 0));
    }
    assert_eq!(setup.amounts("acme").await, [0, 0, 0]);
    assert_eq!(setup.grants("acme").await, []);
}

pub(super) async fn an_expired_grant_lapses(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10).with_expiry(at(100))).await;
    setup.grant(NewGrant::new("acme", 5)).await;
    setup.advance(50);
    let id = setup.hold("acme", 4).await;
    setup.clock.set(at(100) - Duration::from_micros(1));
    assert_eq!(setup.amounts("acme").await, [11, 4, 0]);
    setup.clock.set(at(100));
    assert_eq!(setup.amounts("acme").await, [5, 4, 0], "from this instant it has ended");
    assert_eq!(setup.commit("acme", id, 3).await, (3, 0), "what is reserved can be charged");
    assert_eq!(setup.amounts("acme").await, [5, 0, 0], "what is returned to a grant that has ended lapses");
}

pub(super) async fn a_withdrawn_grant_leaves_what_is_reserved(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10).with_id("g1")).await;
    let [charged, released] = [setup.hold("acme", 3).await, setup.hold("acme", 2).await];
    let withdrawn = setup.try_withdraw("acme", "g1").await.unwrap();
    assert_eq!((withdrawn.amount, withdrawn.remaining), (10, 0));
    assert_eq!(setup.amounts("acme").await, [0, 5, 0]);
    assert_eq!(setup.commit("acme", charged, 3).await, (3, 0));
    setup.release("acme", released).await;
    assert_eq!(setup.amounts("acme").await, [0, 0, 0], "what is returned is taken back, too");
    let again = setup.try_withdraw("acme", "g1").await.unwrap();
    assert_eq!(again, withdrawn, "a repeated call changes nothing");
}

pub(super) async fn only_an_actor_of_all_tenants_changes_accounts(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10).with_id("g1")).await;
    let own = || Actor::of_tenant("user_17", "acme");
    let granted = setup.credits.grant(Command::new(NewGrant::new("acme", 1), own(), at(0))).await;
    assert!(matches!(granted, Err(CreditAdminError::NotPermitted)), "{granted:?}");
    let command = Command::new(WithdrawGrant::new("acme", "g1"), own(), at(0));
    let withdrawn = setup.credits.withdraw(command).await;
    assert!(matches!(withdrawn, Err(CreditAdminError::NotPermitted)), "{withdrawn:?}");
    assert_eq!(setup.available("acme").await, 10);
}
