//! Random requests, compared with a model that lists the places that are held.

use std::{collections::HashMap, sync::Arc};

use tollgate::in_flight::{Place, Places};

use super::{ask, assert_all_are_free, take_free_of, take_of};
use crate::suite::{random::Random, steps};

/// The places that are held, by name and subject.
type Model = HashMap<(&'static str, &'static str), Vec<Place>>;

/// The largest limit.
const MOST: u32 = 5;

pub(super) async fn random_requests_are_answered_as_by_the_model(places: &Arc<impl Places>) {
    let (mut model, mut random) = (Model::new(), Random::with_seed(17));
    for number in 0..steps(2_000, 50_000) {
        let (name, subject) = (random.pick(&["key", "tenant"]), random.pick(&["ada", "acme", "globex"]));
        let held = model.entry((name, subject)).or_default();
        let limit = u32::try_from(random.below(u64::from(MOST) + 1)).unwrap();
        match random.below(8) {
            0..5 if held.len() >= limit as usize => {
                let count = held.len();
                let place = take_of(places, name, subject, limit).await;
                assert!(
                    place.is_none(),
                    "request {number}: {count} places are held, and the limit is {limit}"
                );
            }
            0..5 => held.push(take_free_of(places, name, subject, limit).await),
            5 => drop(ask(places, name, subject, limit)),
            _ if held.is_empty() => {}
            step => {
                let place = held.swap_remove(usize::try_from(random.below(held.len() as u64)).unwrap());
                if step == 6 {
                    place.free();
                }
                drop(place);
            }
        }
    }
    for ((name, subject), held) in model {
        drop(held);
        assert_all_are_free(places, name, subject, MOST).await;
    }
}
