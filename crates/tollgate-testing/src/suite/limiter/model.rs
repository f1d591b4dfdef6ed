//! Random requests, compared with a model that keeps every counter forever.

use std::{
    collections::HashMap,
    mem::{Discriminant, discriminant},
    sync::Arc,
    time::Duration,
};

use tollgate::{
    PerWindow as _, Quota,
    limit::{Algorithm, Charge, Counter, Decision, Limiter, PolicyName, Window, WindowCheck},
};

use super::acquire;
use crate::{
    at,
    suite::{random::Random, steps},
};

/// All counters by policy, subject, window and algorithm.
#[derive(Default)]
struct Model(HashMap<(PolicyName, String, Window, Discriminant<Algorithm>), Counter>);

impl Model {
    fn acquire(&mut self, charges: &[Charge<'_>], second: u64) -> Decision {
        let now = at(second);
        let (mut checks, mut after) = (Vec::new(), Vec::new());
        for charge in charges {
            for limit in charge.quota.limits() {
                let algorithm = discriminant(&limit.algorithm);
                let key = (charge.policy, charge.subject.to_owned(), limit.window, algorithm);
                let counter =
                    self.0.get(&key).copied().unwrap_or(Counter::new(limit.algorithm)).at(limit, now);
                checks.push(WindowCheck::new(charge, limit, counter, now));
                // A peek changes nothing, not even the rate by which a bucket in debt is filled.
                if charge.cost > 0 {
                    after.push((key, counter.counting(limit, charge.cost)));
                }
            }
        }
        let decision = Decision::evaluate(now, checks);
        if decision.is_allowed() {
            self.0.extend(after);
        }
        decision
    }
}

fn any_quota(random: &mut Random) -> Quota {
    let mut quota = Quota::unlimited();
    for _ in 0..random.below(4) {
        let window = match random.below(8) {
            0 => Window::WEEK,
            1 => Window::month_from(random.pick(&[1, 17, 31])),
            _ => Window::lasting(Duration::from_secs(random.pick(&[1, 7, 60, 90, 3_600, 86_400]))),
        };
        let limit = if random.one_in(6) { 1 << 33 } else { random.below(9) };
        quota = quota.and(match random.below(4) {
            0 => limit.per(window).sliding(),
            1 => limit.per(window).with_burst(limit / 2),
            _ => limit.per(window),
        });
    }
    quota
}

/// Charges to one or two policies, with a usual cost or another.
fn any_charges<'q>(random: &mut Random, quotas: &'q [Quota]) -> Vec<Charge<'q>> {
    let (subject, group) =
        random.pick(&[("ada", "acme"), ("bob", "acme"), ("cyd", "cyd"), ("dan", "umbrella")]);
    let mut policies = vec![("key", subject)];
    if random.one_in(2) {
        policies.push(("tenant", group));
    }
    let cost = if random.one_in(4) { random.pick(&[0, 2, 3, 1 << 32]) } else { 1 };
    let is_settled = random.one_in(8);
    policies
        .into_iter()
        .map(|(policy, subject)| {
            let quota = &quotas[usize::try_from(random.below(quotas.len() as u64)).unwrap()];
            let charge = Charge::new(policy, subject, group, quota);
            if is_settled { charge.settled(cost) } else { charge.with_cost(cost) }
        })
        .collect()
}

pub(super) async fn random_requests_are_decided_as_by_the_model(limiter: &Arc<impl Limiter>) {
    let (mut model, mut random, mut second) = (Model::default(), Random::with_seed(11), 0);
    let mut quotas = Vec::new();
    for number in 0..steps(2_000, 100_000) {
        // Plans change now and then.
        if number % 100 == 0 {
            quotas = (0..4).map(|_| any_quota(&mut random)).collect();
        }
        second += match random.below(7) {
            0..4 => random.below(3),
            4..6 => random.below(100),
            _ => random.below(100_000),
        };
        let charges = any_charges(&mut random, &quotas);
        let (expected, found) = (model.acquire(&charges, second), acquire(limiter, &charges, second).await);
        assert_eq!(found, expected, "request {number}, in second {second}: {charges:?}");
    }
}
