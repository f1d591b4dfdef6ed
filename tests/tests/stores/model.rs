//! Thousands of commands at random, against the store in memory.

use std::time::Duration;

use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use tests::suite::at;
use tollgate::{
    Plan, Scopes,
    key::Digest,
    manage::{
        Actor, Command, HistoryQuery, KeyAdminError, KeyChange, KeyDetails, KeyQuery, KeyUpdate, TenantChange,
    },
    store::KeyLookup,
};

use crate::world::{Store, World};

#[derive(Clone, Debug)]
enum Step {
    Key(KeyChange, Actor),
    Tenant(TenantChange, Actor),
    Wait(u64),
}

fn tenants() -> impl Strategy<Value = Option<Box<str>>> {
    prop_oneof![Just(None), Just(Some("acme".into())), Just(Some("umbrella".into()))]
}

fn actors() -> impl Strategy<Value = Actor> {
    prop_oneof![
        3 => Just(Actor::new("root")),
        1 => Just(Actor::of_tenant("ada", "acme")),
    ]
}

fn ids() -> impl Strategy<Value = Box<str>> {
    (0..8_u32).prop_map(|number| format!("key_{number}").into())
}

fn digests() -> impl Strategy<Value = Digest> {
    (0..24_u32).prop_map(|number| Digest::of(number.to_string()))
}

fn issues() -> impl Strategy<Value = KeyChange> {
    (ids(), "[abc]", tenants(), digests(), prop::option::of(1..300_u64)).prop_map(
        |(id, name, tenant, digest, expiry)| {
            let mut details = KeyDetails::new(id, name, at(0));
            details.tenant = tenant;
            details.expires_at = expiry.map(at);
            KeyChange::Issue { details: Box::new(details), digest }
        },
    )
}

fn updates() -> impl Strategy<Value = KeyChange> {
    let update = prop_oneof![
        "[abc]".prop_map(|name| KeyUpdate::new().with_name(name)),
        Just(KeyUpdate::new().with_scopes(Scopes::new(["read"]).unwrap())),
        prop::option::of(Just(Plan::active("pro"))).prop_map(|plan| KeyUpdate::new().with_plan(plan)),
        prop::option::of(1..300_u64).prop_map(|expiry| KeyUpdate::new().with_expiry(expiry.map(at))),
    ];
    (ids(), update).prop_map(|(id, update)| KeyChange::Update { id, update: Box::new(update) })
}

fn rotations() -> impl Strategy<Value = KeyChange> {
    (ids(), digests(), prop::option::of(1..300_u64)).prop_map(|(id, digest, until)| KeyChange::Rotate {
        id,
        digest,
        display_prefix: "sk_live_".into(),
        former_until: until.map(at),
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let change = prop_oneof![
        5 => issues(),
        3 => updates(),
        3 => rotations(),
        2 => ids().prop_map(|id| KeyChange::Revoke { id }),
        1 => ids().prop_map(|id| KeyChange::Delete { id }),
    ];
    let suspend =
        tenants().prop_map(|tenant| TenantChange::Suspend { tenant: tenant.unwrap_or("acme".into()) });
    let resume =
        tenants().prop_map(|tenant| TenantChange::Resume { tenant: tenant.unwrap_or("acme".into()) });
    prop_oneof![
        12 => (change, actors()).prop_map(|(change, actor)| Step::Key(change, actor)),
        1 => (suspend, actors()).prop_map(|(change, actor)| Step::Tenant(change, actor)),
        1 => (resume, actors()).prop_map(|(change, actor)| Step::Tenant(change, actor)),
        2 => (1..40_u64).prop_map(Step::Wait),
    ]
}

/// What a change answers, without the generation: stores may leave some out.
fn outcome(answer: Result<KeyDetails, KeyAdminError>) -> String {
    match answer {
        Ok(mut details) => {
            details.generation = 0;
            format!("{details:?}")
        }
        Err(error) => format!("{error:?}"),
    }
}

/// All that can be seen of a store from outside.
async fn picture(store: &dyn Store, seconds: u64) -> String {
    let mut keys = store.list(&KeyQuery::all().with_limit(1_000)).await.unwrap().items;
    for key in &mut keys {
        key.generation = 0;
    }
    let history = store.history(&HistoryQuery::all().with_limit(1_000)).await.unwrap().items;
    let history: Vec<_> = history
        .iter()
        .map(|event| (event.action, &event.key, &event.tenant, event.at, &event.detail))
        .collect();
    let mut found = Vec::new();
    for number in 0..24_u32 {
        let digest = Digest::of(number.to_string());
        let record = store.find(&KeyLookup::new(&[digest], at(seconds))).await.unwrap();
        // One that has expired may be unknown or expired.
        let record =
            record.filter(|record| record.principal().expires_at().is_none_or(|end| end > at(seconds)));
        found.push(record.map(|record| {
            let principal = record.principal();
            let end = principal.end_signal().reason();
            (number, record.status(), end.is_none(), format!("{principal:?}"))
        }));
    }
    format!("{keys:#?}\n{history:#?}\n{found:#?}")
}

pub(crate) async fn any_store_does_what_the_one_in_memory_does(world: &World) {
    let steps_of_run = usize::try_from(tests::cases(400, 20_000)).unwrap();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let model = World::memory().await;
    let mut seconds = 0;
    for number in 0..steps_of_run {
        let step = steps().new_tree(&mut runner).unwrap().current();
        match step.clone() {
            Step::Wait(more) => seconds += more,
            Step::Key(change, actor) => {
                let mut change = change;
                match &mut change {
                    KeyChange::Issue { details, .. } => details.created_at = at(seconds),
                    KeyChange::Rotate { former_until: Some(until), .. } => {
                        *until += Duration::from_secs(seconds);
                    }
                    _ => {}
                }
                let command = Command::new(change, actor, at(seconds));
                let expected = outcome(model.store.change(command.clone()).await);
                let found = outcome(world.store.change(command).await);
                assert_eq!(found, expected, "step {number}: {step:?}");
            }
            Step::Tenant(change, actor) => {
                let command = Command::new(change, actor, at(seconds));
                let expected = model.store.change_tenant(command.clone()).await;
                let found = world.store.change_tenant(command).await;
                assert_eq!(format!("{found:?}"), format!("{expected:?}"), "step {number}: {step:?}");
            }
        }
        if number % 20 == 0 {
            let (expected, found) =
                (picture(&*model.store, seconds).await, picture(&*world.store, seconds).await);
            assert!(expected == found, "after step {number}: {step:?}\nexpected {expected}\nfound {found}");
        }
    }
}
