//! The limiter and the places in memory pass the conformance suites.

use tokio::sync::{mpsc, oneshot};
use tollgate::{
    Answer,
    denial::Unavailable,
    in_flight::{MemoryPlaces, Place, PlaceRequest, Places},
    limit::MemoryLimiter,
};
use tollgate_testing::suite;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limiter_in_memory_conforms() {
    suite::limiter(async || MemoryLimiter::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_limiter_in_memory_conforms() {
    suite::limiter(async || MemoryLimiter::with_capacity(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_places_in_memory_conform() {
    suite::places(async || MemoryPlaces::new()).await;
}

/// A backend across processes takes and frees places later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_that_are_taken_and_freed_later_conform() {
    suite::places(async || Later::new()).await;
}

/// Places that tasks take and free.
struct Later {
    places: MemoryPlaces,
    freed: mpsc::UnboundedSender<Place>,
}

impl Later {
    fn new() -> Self {
        let (freed, mut places) = mpsc::unbounded_channel::<Place>();
        tokio::spawn(async move {
            while let Some(place) = places.recv().await {
                tokio::task::yield_now().await;
                place.free();
            }
        });
        Self { places: MemoryPlaces::new(), freed }
    }
}

impl Places for Later {
    fn take(&self, request: &PlaceRequest<'_>) -> Answer<Result<Option<Place>, Unavailable>> {
        let PlaceRequest { limit, now, .. } = *request;
        let [name, subject, group] = [request.name, request.subject, request.group].map(str::to_owned);
        let (places, freed) = (self.places.clone(), self.freed.clone());
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            let taken = places.take(&PlaceRequest::new(&name, &subject, &group, limit, now)).await;
            let taken = taken.map(|place| place.map(|place| freed_by(place, freed)));
            // A place whose request is gone is dropped here.
            let _ = sender.send(taken);
        });
        Answer::later(async { receiver.await.unwrap_or_else(|_| Err(Unavailable::new("the task ended"))) })
    }
}

/// A place that a task frees.
fn freed_by(place: Place, freed: mpsc::UnboundedSender<Place>) -> Place {
    Place::new(move || {
        // Fails only if the runtime is gone.
        let _ = freed.send(place.clone());
    })
}
