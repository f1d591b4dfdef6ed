//! The suite for places of requests in flight.

mod model;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    thread,
    time::Duration,
};

use tollgate::{
    Answer,
    denial::Unavailable,
    in_flight::{Place, PlaceRequest, Places},
};

use super::{run_cases, soon};
use crate::at;

/// Runs the suite for [`Places`]: exact counts, also at the same time, places that are freed in every way, answers that are dropped,
/// and random requests that are compared with a simple model.
///
/// A place that is freed may be free a moment later, as in a store that several processes share. All requests have the same instant.
/// The suite does not test when the places of a process that has died expire.
///
/// ```
/// use tollgate::in_flight::MemoryPlaces;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // In a test of its own, with your backend in place of `MemoryPlaces`:
/// tollgate_testing::suite::places(async || MemoryPlaces::new()).await;
/// # }
/// ```
///
/// # Panics
/// If the backend does not conform.
pub async fn places<P: Places>(open: impl AsyncFn() -> P) {
    run_cases!(
        "places",
        async { Arc::new(open().await) },
        [
            a_subject_takes_as_many_places_as_its_limit_says,
            of_many_requests_at_once_as_many_get_a_place_as_the_limit_says,
            never_are_more_places_held_than_the_limit_says,
            names_and_subjects_are_counted_apart,
            a_changed_limit_keeps_the_count,
            limits_may_be_large,
            a_place_is_freed_once,
            a_place_may_be_freed_on_any_thread,
            a_dropped_answer_loses_no_place,
            model::random_requests_are_answered_as_by_the_model,
        ]
    );
}

/// What the suite counts by, if it does not matter.
const NAME: &str = "key";

type Taken = Answer<Result<Option<Place>, Unavailable>>;

fn ask(places: &Arc<impl Places>, name: &str, subject: &str, limit: u32) -> Taken {
    places.take(&PlaceRequest::new(name, subject, "acme", limit, at(0)))
}

async fn take_of(places: &Arc<impl Places>, name: &str, subject: &str, limit: u32) -> Option<Place> {
    match ask(places, name, subject, limit).await {
        Ok(place) => place,
        Err(error) => panic!("a request for a place failed: {error:#}"),
    }
}

async fn take(places: &Arc<impl Places>, subject: &str, limit: u32) -> Option<Place> {
    take_of(places, NAME, subject, limit).await
}

/// Takes a place that is free, or will be soon.
async fn take_free_of(places: &Arc<impl Places>, name: &str, subject: &str, limit: u32) -> Place {
    let taken = async {
        loop {
            if let Some(place) = take_of(places, name, subject, limit).await {
                return place;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon(&format!("a place of {subject:?}, which may have {limit}, is free"), taken).await
}

async fn take_free(places: &Arc<impl Places>, subject: &str, limit: u32) -> Place {
    take_free_of(places, NAME, subject, limit).await
}

/// Checks that a subject can take as many places as its limit says, and no more.
async fn assert_all_are_free(places: &Arc<impl Places>, name: &str, subject: &str, limit: u32) {
    let mut held = Vec::new();
    for _ in 0..limit {
        held.push(take_free_of(places, name, subject, limit).await);
    }
    assert!(take_of(places, name, subject, limit).await.is_none(), "{limit} places of {subject:?} are held");
}

async fn a_subject_takes_as_many_places_as_its_limit_says(places: &Arc<impl Places>) {
    let mut held = Vec::new();
    for number in 0..3 {
        let place = take(places, "ada", 3).await;
        assert!(place.is_some(), "place {number} of 3");
        held.extend(place);
    }
    for _ in 0..5 {
        assert!(take(places, "ada", 3).await.is_none(), "all places are taken");
    }
    held.pop();
    let again = take_free(places, "ada", 3).await;
    assert!(take(places, "ada", 3).await.is_none(), "one place was freed, and taken again");
    drop((held, again));
    assert_all_are_free(places, NAME, "ada", 3).await;
    assert!(take(places, "bob", 0).await.is_none(), "a limit of 0");
}

async fn of_many_requests_at_once_as_many_get_a_place_as_the_limit_says(places: &Arc<impl Places>) {
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let places = Arc::clone(places);
            tokio::spawn(async move {
                let mut held = Vec::new();
                for _ in 0..50 {
                    held.extend(take(&places, "ada", 300).await);
                    tokio::task::yield_now().await;
                }
                held
            })
        })
        .collect();
    let mut held = Vec::new();
    for task in tasks {
        held.extend(task.await.unwrap());
    }
    assert_eq!(held.len(), 300, "of 1,000 requests, for a limit of 300");
}

async fn never_are_more_places_held_than_the_limit_says(places: &Arc<impl Places>) {
    let (held, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let (places, held, most) = (Arc::clone(places), Arc::clone(&held), Arc::clone(&most));
            tokio::spawn(async move {
                for _ in 0..100 {
                    if let Some(place) = take(&places, "ada", 3).await {
                        most.fetch_max(held.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
                        tokio::task::yield_now().await;
                        held.fetch_sub(1, Ordering::AcqRel);
                        drop(place);
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let most = most.load(Ordering::Acquire);
    assert!((1..=3).contains(&most), "{most} places were held, for a limit of 3");
    assert_all_are_free(places, NAME, "ada", 3).await;
}

async fn names_and_subjects_are_counted_apart(places: &Arc<impl Places>) {
    let long = "x".repeat(500);
    let names = ["", "key", "ke", "key:", "{key}"];
    let subjects = ["", "ada", "yada", "ada ", ":ada", "{ada}", "\0ada", "ada\u{e9}", &long];
    let mut held = Vec::new();
    for name in names {
        for subject in subjects {
            let place = take_of(places, name, subject, 1).await;
            assert!(place.is_some(), "name {name:?}, subject {subject:?}");
            held.extend(place);
        }
    }
    for name in names {
        for subject in subjects {
            let place = take_of(places, name, subject, 1).await;
            assert!(place.is_none(), "name {name:?}, subject {subject:?}, whose place is taken");
        }
    }
}

async fn a_changed_limit_keeps_the_count(places: &Arc<impl Places>) {
    let mut held = vec![take_free(places, "ada", 2).await, take_free(places, "ada", 2).await];
    assert!(take(places, "ada", 2).await.is_none());
    held.push(take_free(places, "ada", 3).await);
    for limit in 0..=3 {
        assert!(take(places, "ada", limit).await.is_none(), "three are held, and the limit is {limit}");
    }
    held.pop();
    held.push(take_free(places, "ada", 3).await);
    assert!(take(places, "ada", 2).await.is_none(), "a lower limit frees no place");
}

async fn limits_may_be_large(places: &Arc<impl Places>) {
    let _held = [take_free(places, "ada", u32::MAX).await, take_free(places, "ada", u32::MAX).await];
    assert!(take(places, "ada", 2).await.is_none());
}

async fn a_place_is_freed_once(places: &Arc<impl Places>) {
    let (one, other) = (take_free(places, "ada", 2).await, take_free(places, "ada", 2).await);
    one.free();
    let again = take_free(places, "ada", 2).await;
    one.free();
    drop(one);
    for _ in 0..20 {
        assert!(take(places, "ada", 2).await.is_none(), "the place that was freed was taken again");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop((again, other));
    assert_all_are_free(places, NAME, "ada", 2).await;
}

/// A response may be dropped anywhere, for example after its runtime.
async fn a_place_may_be_freed_on_any_thread(places: &Arc<impl Places>) {
    let place = take_free(places, "ada", 1).await;
    assert!(thread::spawn(move || drop(place)).join().is_ok(), "freed on a thread without a runtime");
    assert_all_are_free(places, NAME, "ada", 1).await;
}

/// The caller of a request may hang up at any moment while it waits for its place.
async fn a_dropped_answer_loses_no_place(places: &Arc<impl Places>) {
    for round in 0..20_u32 {
        drop(ask(places, NAME, "ada", 1));
        drop(take_free(places, "ada", 1).await);

        {
            let mut polled_once = pin!(ask(places, NAME, "ada", 1).into_future());
            let _ = polled_once.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        drop(take_free(places, "ada", 1).await);

        let patience = Duration::from_micros(50) * round;
        drop(tokio::time::timeout(patience, ask(places, NAME, "ada", 1)).await);
        drop(take_free(places, "ada", 1).await);
    }
    assert_all_are_free(places, NAME, "ada", 1).await;
}
