//! All interleavings of requests, answers and events, up to a length.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A request begins.
    Begins,
    /// The oldest lookup is answered, with the state of the store when it began.
    Answered,
    /// The oldest lookup fails.
    Fails,
    /// The newest lookup is answered before the older ones.
    Overtakes,
    /// The key changes, without an event yet.
    Changes,
    /// The event of the newest change.
    Event,
    Disconnected,
    Connected,
}

const STEPS: [Step; 8] = [
    Step::Begins,
    Step::Answered,
    Step::Fails,
    Step::Overtakes,
    Step::Changes,
    Step::Event,
    Step::Disconnected,
    Step::Connected,
];

/// A store of one key, and a check of every answer: none is older than the newest event at the time when its request began. After
/// a disconnection, none is older than the state of the store at that time, and none comes from the cache.
struct Checker {
    store: ManualStore,
    keys: CachedKeys,
    serves_stale: bool,
    generation: u64,
    is_connected: bool,
    // The generation of the newest event.
    notified: u64,
    // The generation in the store at the last connection or disconnection.
    at_connection: u64,
    // Lookups in progress, and the generation in the store when each began.
    asked: Vec<(u64, manual_store::PendingLookup)>,
    requests: Vec<(Request, u64)>,
}

impl Checker {
    fn new(serves_stale: bool) -> Self {
        let store = ManualStore::default();
        // All settings at once: each `with_*` makes new tables, which would be most of the work of this test.
        let settings = Settings {
            capacity: 10,
            ttl: Duration::from_secs(30),
            refused_capacity: 10,
            refused_ttl: Duration::from_secs(5),
            deadline: Duration::from_secs(5),
            stale_for: Duration::from_secs(if serves_stale { 600 } else { 0 }),
        };
        let keys = CachedKeys::with_settings(Arc::new(store.clone()), settings);
        store.notify(&StoreEvent::Connected);
        let (asked, requests) = (Vec::new(), Vec::new());
        Self {
            store,
            keys,
            serves_stale,
            generation: 1,
            is_connected: true,
            notified: 0,
            at_connection: 0,
            asked,
            requests,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Begins => {
                let asked = self.store.asked();
                let mut request = self.keys.request(1, 0);
                if self.store.asked() > asked {
                    self.asked.push((self.generation, self.store.oldest()));
                }
                let fresh = self.notified.max(self.at_connection);
                if let Some(generation) = request.generation() {
                    assert!(self.is_connected, "{generation} comes from the cache without a connection");
                    assert!(
                        generation >= fresh,
                        "{generation} comes from the cache after an event of {fresh}"
                    );
                }
                // If the store does not answer, a stale record may be served.
                self.requests.push((request, if self.serves_stale { self.notified } else { fresh }));
            }
            Step::Answered if !self.asked.is_empty() => self.answer(0, true),
            Step::Fails if !self.asked.is_empty() => self.answer(0, false),
            Step::Overtakes if self.asked.len() > 1 => self.answer(self.asked.len() - 1, true),
            Step::Changes => self.generation += 1,
            Step::Event => {
                self.store.notify(&change_of(1, self.generation));
                self.notified = self.generation;
            }
            Step::Disconnected | Step::Connected => {
                self.is_connected = matches!(step, Step::Connected);
                self.store.notify(if self.is_connected {
                    &StoreEvent::Connected
                } else {
                    &StoreEvent::Disconnected
                });
                self.at_connection = self.generation;
            }
            _ => {}
        }
    }

    fn answer(&mut self, lookup: usize, is_up: bool) {
        let (generation, lookup) = self.asked.remove(lookup);
        // Every third generation is revoked.
        let state = if generation % 3 == 0 { revoked(1, generation) } else { active(1, generation) };
        lookup.answer(if is_up { state } else { down() });
        for (request, at_least) in &mut self.requests {
            if let Some(generation) = request.generation() {
                assert!(generation >= *at_least, "{generation} is answered after an event of {at_least}");
            }
        }
    }

    fn finish(mut self) {
        while !self.asked.is_empty() {
            self.answer(0, true);
        }
        self.take(Step::Begins);
        while !self.asked.is_empty() {
            self.answer(0, true);
        }
        assert!(
            self.requests.iter_mut().all(|(request, _)| request.poll().is_some()),
            "a request still waits"
        );
    }
}

#[test]
fn no_answer_is_older_than_an_event_before_its_request() {
    let length = if std::env::var_os("TOLLGATE_LONG").is_some() { 6 } else { 5 };
    for number in 0..STEPS.len().pow(length) {
        let digits = (0..length).map(|place| number / STEPS.len().pow(place) % STEPS.len());
        let steps: Vec<_> = [Step::Begins].into_iter().chain(digits.map(|digit| STEPS[digit])).collect();
        for serves_stale in [false, true] {
            let outcome = std::panic::catch_unwind(|| {
                let mut checker = Checker::new(serves_stale);
                for step in &steps {
                    checker.take(*step);
                }
                checker.finish();
            });
            assert!(outcome.is_ok(), "by {steps:?}, stale: {serves_stale}");
        }
    }
}

/// Answers with the newest generation, on the polling thread.
#[derive(Default)]
struct Counting {
    generation: Arc<AtomicU64>,
    listeners: Listeners,
}

impl KeyStore for Counting {
    fn find(&self, _lookup: &KeyLookup<'_>) -> Answer<Found> {
        let generation = Arc::clone(&self.generation);
        Answer::later(async move { active(1, generation.load(Ordering::SeqCst)) })
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        self.listeners.subscribe(listener)
    }
}

#[test]
fn no_thread_finds_an_answer_older_than_an_event_before_its_request() {
    let rounds = if std::env::var_os("TOLLGATE_LONG").is_some() { 500_000 } else { 20_000 };
    let (store, is_over, notified) = (Arc::<Counting>::default(), AtomicBool::new(false), AtomicU64::new(0));
    let keys = CachedKeys::new(Arc::clone(&store)).with_capacity(10);
    store.listeners.notify(&StoreEvent::Connected);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let at_least = notified.load(Ordering::SeqCst);
                    let found =
                        runtime.block_on(async { keys.find(&KeyLookup::new(&[digest(1)], at(0))).await });
                    let generation = found.unwrap().unwrap().generation();
                    assert!(generation >= at_least, "{generation} is found after an event of {at_least}");
                }
            });
        }
        for generation in 1..=rounds {
            store.generation.store(generation, Ordering::SeqCst);
            store.listeners.notify(&change_of(1, generation));
            notified.store(generation, Ordering::SeqCst);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
