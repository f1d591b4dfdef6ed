//! Lists: pages, filters, and the history.

use tollgate::{
    key::Digest,
    manage::{
        Command, HistoryQuery, KeyAction, KeyAdmin as _, KeyAdminError, KeyChange, KeyDetails, KeyQuery,
        NewKey,
    },
    store::KeyStatus,
};

use super::{Setup, root};
use crate::at;

/// All keys that a query selects, page by page.
async fn all(setup: &Setup, query: KeyQuery) -> Vec<KeyDetails> {
    let (mut keys, mut query) = (Vec::new(), query);
    loop {
        let page = setup.manager.list(query.clone(), &root()).await.unwrap();
        assert!(page.items.len() <= usize::try_from(query.page_size()).unwrap());
        assert!(page.next.is_none() || !page.items.is_empty());
        keys.extend(page.items);
        match page.next {
            Some(next) => query = query.with_after(next),
            None => return keys,
        }
    }
}

fn names(keys: &[KeyDetails]) -> Vec<&str> {
    keys.iter().map(|key| &*key.name).collect()
}

pub(super) async fn pages_show_every_key_once_the_newest_first(setup: &Setup) {
    // Several keys of the same instant, whose identifiers are in no order.
    for number in 0..50_u64 {
        let id = format!("key_{:02}", number * 37 % 50);
        let mut details = KeyDetails::new(id, format!("name {number}"), at(number / 7));
        details.tenant = (number % 2 == 0).then(|| "acme".into());
        let change = KeyChange::Issue { details: Box::new(details), digest: Digest::of(format!("{number}")) };
        setup.store.change(Command::new(change, root(), at(number / 7))).await.unwrap();
    }
    let everything = all(setup, KeyQuery::all()).await;
    assert_eq!(everything.len(), 50);
    assert!(
        everything
            .is_sorted_by(|newer, older| { (newer.created_at, &newer.id) > (older.created_at, &older.id) })
    );
    for limit in [1, 7, 25, 49, 50, 51] {
        assert_eq!(all(setup, KeyQuery::all().with_limit(limit)).await, everything, "pages of {limit}");
    }
    let of_acme: Vec<_> = everything.iter().filter(|key| key.tenant.is_some()).cloned().collect();
    assert_eq!(all(setup, KeyQuery::all().with_tenant("acme").with_limit(4)).await, of_acme);
    // A key that is issued or deleted meanwhile moves no other key to another page.
    let page = setup.manager.list(KeyQuery::all().with_limit(10), &root()).await.unwrap();
    setup.clock.set(at(1_000));
    setup.issue("meanwhile").await;
    setup.manager.delete(&page.items[3].id, &root()).await.unwrap();
    let query = KeyQuery::all().with_limit(10).with_after(page.next.unwrap());
    let second = setup.manager.list(query, &root()).await.unwrap();
    assert_eq!(second.items, everything[10..20]);
}

pub(super) async fn a_list_shows_what_the_query_selects(setup: &Setup) {
    for (second, name) in
        ["build", "Build", "bu%ld", "bu_ld", "deploy", "bü", "[a-z]*"].into_iter().enumerate()
    {
        setup.clock.set(at(second as u64));
        setup.manager.issue(NewKey::named(name).with_tenant("acme"), &root()).await.unwrap();
    }
    let found = async |query: KeyQuery| all(setup, query).await;
    let search = |beginning: &str| KeyQuery::all().with_search(beginning);
    assert_eq!(names(&found(search("bu")).await), ["bu_ld", "bu%ld", "build"]);
    assert_eq!(names(&found(search("bu%")).await), ["bu%ld"]);
    assert_eq!(names(&found(search("bu_")).await), ["bu_ld"]);
    assert_eq!(names(&found(search("B")).await), ["Build"]);
    assert_eq!(names(&found(search("bü")).await), ["bü"]);
    assert_eq!(names(&found(search("[a-z]*")).await), ["[a-z]*"]);
    assert_eq!(found(search("uild")).await, [], "only the beginning of a name is searched");
    assert_eq!(found(search("\\")).await, []);
    let deploy = found(search("deploy")).await.remove(0);
    assert_eq!(found(search(&deploy.display_prefix)).await, std::slice::from_ref(&deploy));
    assert_eq!(found(search("sk_live_")).await.len(), 7);

    setup.manager.revoke(&deploy.id, &root()).await.unwrap();
    assert_eq!(names(&found(KeyQuery::all().with_status(KeyStatus::Revoked)).await), ["deploy"]);
    assert_eq!(found(KeyQuery::all().with_status(KeyStatus::Active)).await.len(), 6);
    assert_eq!(found(KeyQuery::all().with_status(KeyStatus::TenantSuspended)).await, []);
    setup.manager.suspend_tenant("acme", &root()).await.unwrap();
    assert_eq!(found(KeyQuery::all().with_status(KeyStatus::TenantSuspended)).await.len(), 6);
    assert_eq!(found(KeyQuery::all().with_status(KeyStatus::Active)).await, []);
    assert_eq!(
        names(&found(KeyQuery::all().with_status(KeyStatus::Revoked).with_search("dep")).await),
        ["deploy"]
    );
    assert_eq!(names(&found(KeyQuery::one(&*deploy.id)).await), ["deploy"]);
    assert_eq!(found(KeyQuery::one(&*deploy.id).with_tenant("umbrella")).await, []);
    assert_eq!(found(KeyQuery::all().with_tenant("' OR 1=1 --")).await, []);
}

pub(super) async fn the_history_shows_who_did_what_and_when(setup: &Setup) {
    let issued = setup.issue_for("acme", "a").await;
    let id = &issued.details.id;
    setup.advance(1);
    setup.manager.rename(id, "b", &root()).await.unwrap();
    setup.advance(1);
    setup.manager.suspend_tenant("acme", &root()).await.unwrap();
    setup.advance(1);
    setup.manager.revoke(id, &tollgate::manage::Actor::of_tenant("ada", "acme")).await.unwrap();
    setup.issue("another").await;

    let history = setup.manager.history(HistoryQuery::of_key(&**id), &root()).await.unwrap();
    let shown: Vec<_> = history.items.iter().map(|event| (event.at, &*event.actor, event.action)).collect();
    let expected = [
        (at(3), "ada", KeyAction::Revoked),
        (at(1), "root", KeyAction::Updated),
        (at(0), "root", KeyAction::Issued),
    ];
    assert_eq!(shown, expected);
    assert!(history.items.iter().all(|event| event.key.as_ref() == Some(id)));
    assert!(history.items.iter().all(|event| event.tenant.as_deref() == Some("acme")));
    let details: Vec<_> = history.items.iter().map(|event| &*event.detail).collect();
    assert_eq!(details, ["", r#"name: "a" -> "b""#, r#"name: "a""#]);
    assert!(history.items.is_sorted_by(|later, earlier| later.generation > earlier.generation));

    let of_tenant =
        setup.manager.history(HistoryQuery::all().with_tenant("acme"), &root()).await.unwrap().items;
    assert_eq!(of_tenant.len(), 4);
    assert_eq!((of_tenant[1].action, &of_tenant[1].key), (KeyAction::TenantSuspended, &None));

    let (mut paged, mut query) = (Vec::new(), HistoryQuery::all().with_limit(2));
    loop {
        let page = setup.manager.history(query.clone(), &root()).await.unwrap();
        paged.extend(page.items);
        let Some(next) = page.next else { break };
        query = query.with_after(next);
    }
    assert_eq!(paged, setup.manager.history(HistoryQuery::all(), &root()).await.unwrap().items);
    assert_eq!(paged.len(), 5);
}

/// A cursor is opaque. A store may not be able to recognise every invalid one, but must not fail because of one.
pub(super) async fn an_invalid_cursor_is_no_outage(setup: &Setup) {
    setup.issue("a").await;
    for cursor in ["", "x", ".", "18446744073709551616", "' OR 1=1 --", "\u{f6}.\u{f6}"] {
        let list = setup.manager.list(KeyQuery::all().with_after(cursor), &root()).await;
        assert!(matches!(list, Ok(_) | Err(KeyAdminError::InvalidCursor)), "keys after {cursor:?}: {list:?}");
        let history = setup.manager.history(HistoryQuery::all().with_after(cursor), &root()).await;
        assert!(
            matches!(history, Ok(_) | Err(KeyAdminError::InvalidCursor)),
            "history after {cursor:?}: {history:?}"
        );
    }
}
