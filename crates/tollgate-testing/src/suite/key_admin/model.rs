//! Random commands, whose results are compared with those of the store in memory.

use std::{sync::Arc, time::Duration};

use tollgate::{
    MemoryKeys, Plan, Scopes,
    key::Digest,
    manage::{
        Actor, Command, HistoryQuery, KeyAdminError, KeyChange, KeyDetails, KeyQuery, KeyUpdate,
        TenantChange, TenantDetails,
    },
    network::Networks,
    store::KeyLookup,
};

use super::{Setup, setup::Store};
use crate::{
    at,
    suite::{random::Random, steps},
};

#[derive(Clone, Debug)]
enum Step {
    Key(KeyChange, Actor),
    Tenant(TenantChange, Actor),
    Wait(u64),
}

const DIGESTS: u64 = 24;

impl Step {
    /// A random step at this second.
    fn any(random: &mut Random, now: u64) -> Self {
        let actor = if random.one_in(4) { Actor::of_tenant("ada", "acme") } else { Actor::new("root") };
        match random.below(18) {
            0..12 => Self::Key(any_change(random, now), actor),
            12 => Self::Tenant(TenantChange::Suspend { tenant: any_tenant(random) }, actor),
            13 => Self::Tenant(TenantChange::Resume { tenant: any_tenant(random) }, actor),
            14..16 => {
                let (tenant, plan) = (any_tenant(random), any_plan(random));
                Self::Tenant(TenantChange::SetPlan { tenant, plan }, actor)
            }
            _ => Self::Wait(1 + random.below(39)),
        }
    }
}

fn any_change(random: &mut Random, now: u64) -> KeyChange {
    let id = any_id(random);
    match random.below(14) {
        0..5 => {
            let mut details = KeyDetails::new(id, random.pick(&["a", "b", "c"]), at(now));
            details.tenant = (!random.one_in(3)).then(|| any_tenant(random));
            details.expires_at = any_instant(random, 0);
            details.plan = any_plan(random);
            details.allowed_networks = any_networks(random);
            KeyChange::Issue { details: Box::new(details), digest: any_digest(random) }
        }
        5..8 => {
            let update = match random.below(5) {
                0 => KeyUpdate::new().with_name(random.pick(&["a", "b", "c"])),
                1 => KeyUpdate::new().with_scopes(Scopes::new(["read"]).unwrap()),
                2 => KeyUpdate::new().with_plan(any_plan(random)),
                3 => KeyUpdate::new().with_allowed_networks(any_networks(random)),
                _ => KeyUpdate::new().with_expiry(any_instant(random, 0)),
            };
            KeyChange::Update { id, update: Box::new(update) }
        }
        8..11 => KeyChange::Rotate {
            id,
            digest: any_digest(random),
            display_prefix: "sk_live_".into(),
            former_until: any_instant(random, now),
        },
        11..13 => KeyChange::Revoke { id },
        _ => KeyChange::Delete { id },
    }
}

fn any_tenant(random: &mut Random) -> Box<str> {
    random.pick(&["acme", "umbrella"]).into()
}

fn any_plan(random: &mut Random) -> Option<Plan> {
    random.one_in(2).then(|| Plan::active(random.pick(&["basic", "pro"])))
}

fn any_networks(random: &mut Random) -> Networks {
    Networks::new(["10.0.0.0/8", "2001:db8::/32"].into_iter().filter(|_| random.one_in(3))).unwrap()
}

fn any_id(random: &mut Random) -> Box<str> {
    format!("key_{}", random.below(8)).into()
}

fn any_digest(random: &mut Random) -> Digest {
    Digest::of(random.below(DIGESTS).to_string())
}

fn any_instant(random: &mut Random, now: u64) -> Option<std::time::SystemTime> {
    random.one_in(2).then(|| at(now) + Duration::from_secs(1 + random.below(299)))
}

pub(super) async fn random_commands_have_the_same_results_as_in_memory(setup: &Setup) {
    let (model, mut random, mut seconds) = (Arc::new(MemoryKeys::new()), Random::with_seed(7), 0);
    let model: Arc<dyn Store> = model;
    for number in 0..steps(400, 20_000) {
        let step = Step::any(&mut random, seconds);
        match step.clone() {
            Step::Wait(more) => seconds += more,
            Step::Key(change, actor) => {
                let command = Command::new(change, actor, at(seconds));
                let expected = outcome(model.change(command.clone()).await);
                let found = outcome(setup.store.change(command).await);
                assert_eq!(found, expected, "step {number}: {step:?}");
            }
            Step::Tenant(change, actor) => {
                let command = Command::new(change, actor, at(seconds));
                let expected = model.change_tenant(command.clone()).await;
                let found = setup.store.change_tenant(command).await;
                assert_eq!(tenant_outcome(found), tenant_outcome(expected), "step {number}: {step:?}");
            }
        }
        if number % 20 == 0 {
            let (expected, found) = (visible(&*model, seconds).await, visible(&*setup.store, seconds).await);
            assert!(expected == found, "after step {number}: {step:?}\nexpected {expected}\nfound {found}");
        }
    }
}

/// The result of a change, without the generation: stores may leave some numbers out.
fn outcome(answer: Result<KeyDetails, KeyAdminError>) -> String {
    match answer {
        Ok(mut details) => {
            details.generation = 0;
            format!("{details:?}")
        }
        Err(error) => format!("{error:?}"),
    }
}

fn tenant_outcome(answer: Result<TenantDetails, KeyAdminError>) -> String {
    match answer {
        Ok(mut details) => {
            details.generation = 0;
            format!("{details:?}")
        }
        Err(error) => format!("{error:?}"),
    }
}

/// Everything that is visible of a store: its keys, its history, and the result of every lookup.
async fn visible(store: &dyn Store, seconds: u64) -> String {
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
    for number in 0..DIGESTS {
        let digest = Digest::of(number.to_string());
        let record = store.find(&KeyLookup::new(&[digest], at(seconds))).await.unwrap();
        // An expired key may be found or not.
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
