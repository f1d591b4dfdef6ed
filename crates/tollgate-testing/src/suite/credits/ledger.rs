//! The ledger, and its pages.

use tollgate::credits::{CreditAdminError, EntryKind, Excess, LedgerQuery, NewGrant};

use super::setup::Setup;
use crate::at;

pub(super) async fn the_ledger_records_every_change(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 10).with_id("g1").with_note("invoice 17").with_expiry(at(100))).await;
    setup.grant(NewGrant::new("acme", 5).with_id("g2")).await;
    setup.advance(1);
    let [one, two] = [setup.hold("acme", 12).await, setup.hold("acme", 2).await];
    setup.release("acme", one).await;
    setup.advance(1);
    setup.commit_with("acme", two, 20, Excess::Owe(9)).await;
    setup.grant(NewGrant::new("acme", 9).with_id("g3")).await;
    setup.try_withdraw("acme", "g3").await.unwrap();

    let entries = setup.ledger("acme").await;
    let (one, two) = (Some(one), Some(two));
    let expected = [
        (0, EntryKind::Granted, 10, Some("g1"), None),
        (0, EntryKind::Granted, 5, Some("g2"), None),
        (1, EntryKind::Reserved, -10, Some("g1"), one),
        (1, EntryKind::Reserved, -2, Some("g2"), one),
        (1, EntryKind::Reserved, -2, Some("g2"), two),
        (1, EntryKind::Returned, 10, Some("g1"), one),
        (1, EntryKind::Returned, 2, Some("g2"), one),
        (2, EntryKind::Charged, -10, Some("g1"), two),
        (2, EntryKind::Charged, -3, Some("g2"), two),
        (2, EntryKind::Owed, -5, None, two),
        (2, EntryKind::Granted, 9, Some("g3"), None),
        (2, EntryKind::Repaid, -5, Some("g3"), None),
        (2, EntryKind::Repaid, 5, None, None),
        (2, EntryKind::Withdrawn, -4, Some("g3"), None),
    ];
    let recorded: Vec<_> = entries
        .iter()
        .map(|entry| (entry.at, entry.kind, entry.amount, entry.grant.as_deref(), entry.reservation))
        .collect();
    let expected = expected.map(|(second, kind, amount, grant, id)| (at(second), kind, amount, grant, id));
    assert_eq!(recorded, expected);

    assert!(entries.is_sorted_by(|one, next| one.number < next.number));
    assert!(entries.iter().all(|entry| &*entry.account == "acme"));
    for entry in &entries {
        let by_actor = matches!(entry.kind, EntryKind::Granted | EntryKind::Withdrawn);
        assert_eq!(entry.actor.as_deref(), by_actor.then_some("root"), "{entry:?}");
    }
    assert_eq!([&*entries[0].note, &*entries[1].note], ["invoice 17", ""]);
    assert_eq!(setup.amounts("acme").await, [0, 0, 0]);
}

pub(super) async fn pages_show_every_entry_once_the_latest_first(setup: &Setup) {
    for number in 0..25_u64 {
        setup.grant(NewGrant::new("acme", number + 1)).await;
        setup.grant(NewGrant::new("other", 1)).await;
    }
    let mut amounts = Vec::new();
    let mut query = LedgerQuery::new("acme").with_limit(10);
    let mut sizes = Vec::new();
    loop {
        let page = setup.credits.ledger(&query).await.unwrap();
        sizes.push(page.items.len());
        amounts.extend(page.items.iter().map(|entry| entry.amount));
        // An entry that is added between two pages is on no later page.
        setup.grant(NewGrant::new("acme", 99)).await;
        let Some(next) = page.next else { break };
        query = query.with_after(next);
    }
    assert_eq!(amounts, (1..=25).rev().collect::<Vec<_>>());
    assert_eq!(sizes, [10, 10, 5]);

    for _ in 0..50 {
        let id = setup.hold("acme", 1).await;
        setup.release("acme", id).await;
    }
    let mut query = LedgerQuery::new("acme");
    for (limit, size) in [(0, 1), (100, 100), (101, 100), (u32::MAX, 100)] {
        query.limit = limit;
        assert_eq!(setup.credits.ledger(&query).await.unwrap().items.len(), size, "{limit}");
    }
}

pub(super) async fn an_invalid_cursor_is_no_outage(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 1)).await;
    for cursor in ["", "x", "1.5", "-1", "18446744073709551616", "' OR 1=1 --"] {
        let page = setup.credits.ledger(&LedgerQuery::new("acme").with_after(cursor)).await;
        assert!(matches!(page, Err(CreditAdminError::InvalidCursor)), "{cursor}: {page:?}");
    }
}
