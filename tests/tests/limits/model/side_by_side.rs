//! A stack and the model beside it, which both live through the same events.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tests::suite::{Reply, Stack, at, get, send};
use tollgate::{
    Answer, Denial, Plan, Policy, Principal, Quota, RateLimitLayer,
    clock::{Clock as _, ManualClock},
    limit::{Cost, DEFAULT_POLICY, Subject},
    verify::{Verify, VerifyRequest},
};

use super::{
    headers::{self, Form},
    ledger::{Charge, Ledger, Verdict},
    quota::{Limits, quota},
};
use crate::behind_verifier;

/// The keys that ask, and their tenants.
pub(crate) const KEYS: [(&str, &str); 3] = [("ada", "acme"), ("bob", "acme"), ("cyd", "other")];

/// What a key may be on. The last one is no tier, but a quota of its own.
pub(crate) const PLANS: [&str; 4] = ["basic", "pro", "gold", "own"];

const TENANT_POLICY: &str = "tenant";

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Request { key: usize, key_cost: u64, tenant_cost: u64 },
    Wait(Duration),
    StepBack(Duration),
    ChangePlan { key: usize, plan: usize },
}

/// How the two policies, by key and by tenant, are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// Only the one by key, by which every request costs 1.
    KeyAlone,
    /// Both in one layer: what one refuses, the other does not count.
    OneLayer,
    /// Each in a layer, the one by key outside: what the inner one refuses, it has counted.
    TwoLayers,
}

/// The quotas of all plans.
#[derive(Clone, Debug)]
pub(crate) struct Plans {
    pub(crate) key: [Limits; 3],
    pub(crate) tenant: [Limits; 2],
}

impl Plans {
    /// A key's quota. Gold is unlimited.
    fn of_key(&self, plan: usize) -> Limits {
        match PLANS[plan] {
            "basic" => self.key[0].clone(),
            "pro" => self.key[1].clone(),
            "own" => self.key[2].clone(),
            _ => Limits::new(),
        }
    }

    /// The limits of a tenant whose key is on this plan.
    fn of_tenant(&self, plan: usize) -> Limits {
        self.tenant[usize::from(PLANS[plan] == "pro")].clone()
    }
}

pub(crate) struct SideBySide {
    clock: ManualClock,
    stack: Stack,
    ledger: Ledger,
    plans: Plans,
    arrangement: Arrangement,
    form: Form,
    plan_of: [usize; KEYS.len()],
}

impl SideBySide {
    pub(crate) fn new(plans: &Plans, arrangement: Arrangement, form: Form) -> Self {
        let clock = ManualClock::at(at(0));
        let key = Policy::new(DEFAULT_POLICY, quota(&plans.key[0]))
            .with_tier("pro", quota(&plans.key[1]))
            .with_tier("gold", Quota::unlimited());
        let tenant = Policy::new(TENANT_POLICY, quota(&plans.tenant[0]))
            .with_tier("pro", quota(&plans.tenant[1]))
            .with_subject(Subject::Tenant)
            .with_cost(cost_by("x-tenant-cost"));
        let layer = |policies: Vec<Policy>| {
            let layer = RateLimitLayer::from_policies(policies).unwrap();
            layer.with_headers(form.headers()).with_clock(clock.clone())
        };
        let callers = Callers { own: quota(&plans.key[2]) };
        let stack = match arrangement {
            Arrangement::KeyAlone => behind_verifier(&clock, callers, layer(vec![key])),
            Arrangement::OneLayer => {
                behind_verifier(&clock, callers, layer(vec![key.with_cost(cost_by("x-key-cost")), tenant]))
            }
            Arrangement::TwoLayers => {
                let outer = layer(vec![key.with_cost(cost_by("x-key-cost"))]);
                behind_verifier(&clock, callers, (outer, layer(vec![tenant])))
            }
        };
        Self {
            clock,
            stack,
            ledger: Ledger::default(),
            plans: plans.clone(),
            arrangement,
            form,
            plan_of: [0; KEYS.len()],
        }
    }

    /// Lives through an event, and compares what came of it.
    pub(crate) fn live_through(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Wait(time) => self.clock.advance(time),
            Event::StepBack(time) => self.clock.rewind(time),
            Event::ChangePlan { key, plan } => self.plan_of[key] = plan,
            Event::Request { key, key_cost, tenant_cost } => {
                let reply = self.send(key, key_cost, tenant_cost);
                let verdicts = self.verdicts(key, key_cost, tenant_cost);
                headers::check(&reply, &verdicts, self.form, self.now())?;
            }
        }
        Ok(())
    }

    /// What the stack says.
    pub(crate) fn send(&mut self, key: usize, key_cost: u64, tenant_cost: u64) -> Reply {
        let (id, tenant) = KEYS[key];
        let caller = format!("{id}@{tenant}.{}", PLANS[self.plan_of[key]]);
        let request = get(
            "/jobs",
            &[
                ("x-api-key", &caller),
                ("x-key-cost", &key_cost.to_string()),
                ("x-tenant-cost", &tenant_cost.to_string()),
            ],
        );
        send(&mut self.stack, request).now_or_never().unwrap()
    }

    /// The model's verdicts, one for each layer that the request reaches.
    fn verdicts(&mut self, key: usize, key_cost: u64, tenant_cost: u64) -> Vec<Verdict> {
        let (now, plan) = (self.now(), self.plan_of[key]);
        let (id, tenant) = KEYS[key];
        let limits = self.plans.of_key(plan);
        let by_key = Charge { policy: DEFAULT_POLICY, subject: id, limits, cost: key_cost };
        let limits = self.plans.of_tenant(plan);
        let by_tenant = Charge { policy: TENANT_POLICY, subject: tenant, limits, cost: tenant_cost };
        match self.arrangement {
            Arrangement::KeyAlone => vec![self.ledger.ask(&[Charge { cost: 1, ..by_key }], now)],
            Arrangement::OneLayer => vec![self.ledger.ask(&[by_key, by_tenant], now)],
            Arrangement::TwoLayers => {
                let outer = self.ledger.ask(&[by_key], now);
                if !outer.passes() {
                    return vec![outer];
                }
                let inner = self.ledger.ask(&[by_tenant], now);
                vec![outer, inner]
            }
        }
    }

    /// Nanoseconds since the Unix epoch.
    pub(crate) fn now(&self) -> u64 {
        let since_epoch = self.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::try_from(since_epoch.as_nanos()).unwrap()
    }
}

fn cost_by(header: &'static str) -> Cost {
    Cost::by_request(move |head, _| head.headers[header].to_str().unwrap().parse().unwrap())
}

/// Accepts every credential of the form `ada@acme.pro`. Principals on the plan `own` have this quota.
struct Callers {
    own: Quota,
}

impl Verify for Callers {
    fn verify(&self, presented: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        let (name, plan) = presented.credential.expose_secret().split_once('.').unwrap();
        let (id, tenant) = name.split_once('@').unwrap();
        let principal = Principal::new(id).with_tenant(tenant);
        let principal = match plan {
            "own" => principal.with_quota(DEFAULT_POLICY, self.own.clone()),
            tier => principal.with_plan(Plan::active(tier)),
        };
        Answer::Now(Ok(Arc::new(principal)))
    }
}
