//! A store that does not keep tenants apart: the suite finds it, and a `KeyManager` in front of it lets no actor of a tenant reach
//! other keys.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tollgate::{
    Answer, KeyFormat, MemoryKeys, Plan,
    denial::Unavailable,
    manage::{
        Actor, Command, HistoryQuery, KeyAdmin, KeyAdminError, KeyChange, KeyDetails, KeyEvent, KeyManager,
        KeyQuery, KeyUpdate, NewKey, Page, TenantChange, TenantDetails,
    },
    store::{KeyLookup, KeyRecord, KeyStore, StoreListener, Subscription},
};
use tollgate_testing::suite;

/// What a store forgets.
#[derive(Clone, Copy, Debug)]
enum Forgets {
    /// That an actor of a tenant changes only keys of that tenant.
    Actors,
    /// The tenant in queries for keys.
    TenantsOfKeys,
    /// The tenant in queries for events.
    TenantsOfEvents,
}

/// A store in memory that forgets something.
struct Careless {
    keys: MemoryKeys,
    forgets: Forgets,
}

impl Careless {
    fn new(forgets: Forgets) -> Self {
        Self { keys: MemoryKeys::new(), forgets }
    }

    fn actor(&self, actor: Actor) -> Actor {
        if matches!(self.forgets, Forgets::Actors) { Actor::new(actor.name()) } else { actor }
    }
}

impl KeyAdmin for Careless {
    fn change(&self, command: Command<KeyChange>) -> Answer<Result<KeyDetails, KeyAdminError>> {
        self.keys.change(Command::new(command.change, self.actor(command.actor), command.at))
    }

    fn change_tenant(&self, command: Command<TenantChange>) -> Answer<Result<TenantDetails, KeyAdminError>> {
        self.keys.change_tenant(Command::new(command.change, self.actor(command.actor), command.at))
    }

    fn tenant(&self, tenant: &str) -> Answer<Result<TenantDetails, KeyAdminError>> {
        self.keys.tenant(tenant)
    }

    fn list(&self, query: &KeyQuery) -> Answer<Result<Page<KeyDetails>, KeyAdminError>> {
        let mut query = query.clone();
        if matches!(self.forgets, Forgets::TenantsOfKeys) {
            query.tenant = None;
        }
        self.keys.list(&query)
    }

    fn history(&self, query: &HistoryQuery) -> Answer<Result<Page<KeyEvent>, KeyAdminError>> {
        let mut query = query.clone();
        if matches!(self.forgets, Forgets::TenantsOfEvents) {
            query.tenant = None;
        }
        self.keys.history(&query)
    }
}

impl KeyStore for Careless {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        self.keys.find(lookup)
    }

    fn subscribe(&self, listener: std::sync::Weak<dyn StoreListener>) -> Subscription {
        self.keys.subscribe(listener)
    }
}

const ALL: [Forgets; 3] = [Forgets::Actors, Forgets::TenantsOfKeys, Forgets::TenantsOfEvents];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_finds_a_store_that_does_not_keep_tenants_apart() {
    for forgets in ALL {
        let run = suite::key_admin(async || Careless::new(forgets));
        assert!(AssertUnwindSafe(run).catch_unwind().await.is_err(), "the suite passes: {forgets:?}");
    }
}

#[tokio::test]
async fn the_manager_keeps_tenants_apart_even_if_the_store_does_not() {
    for forgets in ALL {
        let store = Careless::new(forgets);
        let manager = KeyManager::new(KeyFormat::new("sk").unwrap(), store);
        let (root, eve) = (Actor::new("root"), Actor::of_tenant("eve", "acme"));
        let own = manager.issue(NewKey::named("own"), &eve).await.unwrap().details;
        for theirs in [NewKey::named("a").with_tenant("umbrella"), NewKey::named("b")] {
            let theirs = manager.issue(theirs, &root).await.unwrap().details;
            let id = &theirs.id;
            let outcomes = [
                manager.show(id, &eve).await,
                manager.revoke(id, &eve).await,
                manager.delete(id, &eve).await,
                manager.rename(id, "mine", &eve).await,
                manager.update(id, KeyUpdate::new().with_expiry(None), &eve).await,
                manager.rotate(id, None, &eve).await.map(|issued| issued.details),
            ];
            for outcome in outcomes {
                assert!(matches!(outcome, Err(KeyAdminError::NotFound)), "{forgets:?}: {outcome:?}");
            }
            assert_eq!(manager.show(id, &root).await.unwrap(), theirs, "{forgets:?}");
            let events = manager.history(HistoryQuery::of_key(&**id), &eve).await.unwrap().items;
            assert_eq!(events, [], "{forgets:?}");
            for outcome in [
                manager.suspend_tenant("umbrella", &eve).await,
                manager.resume_tenant("acme", &eve).await,
                manager.set_tenant_plan("acme", Some(Plan::active("pro")), &eve).await,
                manager.tenant("umbrella", &eve).await,
            ] {
                assert!(matches!(outcome, Err(KeyAdminError::NotPermitted)), "{forgets:?}: {outcome:?}");
            }
        }
        assert_eq!(manager.list(KeyQuery::all(), &eve).await.unwrap().items, std::slice::from_ref(&own));
        let of_acme = KeyQuery::all().with_tenant("acme");
        assert_eq!(manager.list(of_acme, &root).await.unwrap().items, [own], "{forgets:?}");
        assert_eq!(manager.history(HistoryQuery::all(), &eve).await.unwrap().items.len(), 1, "{forgets:?}");
    }
}
