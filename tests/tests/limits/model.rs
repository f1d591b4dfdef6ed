//! The whole layer against a naive model: a list of what was admitted, counted anew for every request, by the definition of
//! each algorithm. They share no code.

mod headers;
mod history;
mod ledger;
mod plain_bound;
mod quota;
mod side_by_side;

use std::time::Duration;

use proptest::prelude::*;

use self::{
    headers::Form,
    plain_bound::PlainBound,
    quota::Limits,
    side_by_side::{Arrangement, Event, KEYS, PLANS, Plans, SideBySide},
};
pub(crate) use self::{
    headers::{entries, number},
    quota::{any_limits, quota},
};

fn config() -> ProptestConfig {
    let cases = tests::cases(300, 20_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn one_policy_agrees(plans in any_plans(), events in any_events()) {
        compare(&plans, Arrangement::KeyAlone, Form::Usual, &events)?;
    }

    #[test]
    fn two_policies_in_one_layer_agree(plans in any_plans(), events in any_events()) {
        compare(&plans, Arrangement::OneLayer, Form::Usual, &events)?;
    }

    #[test]
    fn two_policies_in_two_layers_agree(plans in any_plans(), events in any_events()) {
        compare(&plans, Arrangement::TwoLayers, Form::Usual, &events)?;
    }

    #[test]
    fn all_headers_of_one_layer_agree(plans in any_plans(), events in any_events()) {
        compare(&plans, Arrangement::OneLayer, Form::Every, &events)?;
    }

    #[test]
    fn all_headers_of_two_layers_agree(plans in any_plans(), events in any_events()) {
        compare(&plans, Arrangement::TwoLayers, Form::Every, &events)?;
    }

    /// One caller on one plan: whatever has passed may be forgotten to make room for others, which shows once the clock steps
    /// back, and a single counter is never forgotten.
    #[test]
    fn clocks_that_jump_agree(
        (limits, form) in (any_limits(0), any_form()),
        events in prop::collection::vec(any_event_of_a_jumping_clock(1), 60..140),
    ) {
        let plans = Plans { key: [limits.clone(), Limits::new(), Limits::new()], tenant: [limits, Limits::new()] };
        compare(&plans, Arrangement::KeyAlone, form, &events)?;
    }

    /// Many callers: no more than one quota for each step back, whatever was forgotten.
    #[test]
    fn clocks_that_jump_grant_at_most_one_extra_quota_for_each_step_back(
        plans in any_plans(),
        events in prop::collection::vec(any_event_of_a_jumping_clock(KEYS.len()), 60..140),
    ) {
        let mut both = SideBySide::new(&plans, Arrangement::OneLayer, Form::Usual);
        let mut bound = PlainBound::new(&plans);
        for event in &events {
            if let Event::Request { key, key_cost, tenant_cost } = *event {
                let reply = both.send(key, key_cost, tenant_cost);
                if reply.status() == 200 {
                    prop_assert_eq!(number(&reply, "retry-after"), None);
                    bound.admit(key, key_cost, tenant_cost, both.now())?;
                } else {
                    prop_assert_eq!(reply.status(), 429);
                    // None for a request that never fits.
                    prop_assert!(number(&reply, "retry-after").is_none_or(|wait| wait >= 1));
                }
            } else {
                both.live_through(event)?;
                bound.live_through(event);
            }
        }
    }
}

fn compare(
    plans: &Plans,
    arrangement: Arrangement,
    form: Form,
    events: &[Event],
) -> Result<(), TestCaseError> {
    let mut both = SideBySide::new(plans, arrangement, form);
    events.iter().try_for_each(|event| both.live_through(event))
}

fn any_plans() -> impl Strategy<Value = Plans> {
    let key = [any_limits(0).boxed(), any_limits(0).boxed(), any_limits(0).boxed()];
    let tenant = [any_limits(0).boxed(), any_limits(0).boxed()];
    (key, tenant).prop_map(|(key, tenant)| Plans { key, tenant })
}

fn any_form() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::Usual), Just(Form::Every)]
}

fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => any_request(KEYS.len()),
        2 => any_time().prop_map(Event::Wait),
        1 => (0..KEYS.len(), 0..PLANS.len()).prop_map(|(key, plan)| Event::ChangePlan { key, plan }),
    ];
    prop::collection::vec(event, 60..140)
}

fn any_event_of_a_jumping_clock(keys: usize) -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => any_request(keys),
        2 => any_time().prop_map(Event::Wait),
        1 => any_time().prop_map(Event::StepBack),
    ]
}

fn any_request(keys: usize) -> impl Strategy<Value = Event> {
    // Mostly 1.
    let cost = || prop::sample::select(vec![0, 1, 1, 1, 2, 3]);
    (0..keys, cost(), cost()).prop_map(|(key, key_cost, tenant_cost)| Event::Request {
        key,
        key_cost,
        tenant_cost,
    })
}

/// From a nanosecond to days, and just as long as windows are.
fn any_time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..2_000_000_000_u64).prop_map(Duration::from_nanos),
        (0..9_000_u64).prop_map(Duration::from_millis),
        (0..120_000_u64).prop_map(Duration::from_millis),
        (0..7_200_u64).prop_map(Duration::from_secs),
        prop::sample::select(vec![1, 7, 60, 61, 900, 3_600, 86_400, 90_000]).prop_map(Duration::from_secs),
    ]
}
