//! Every order in which requests, answers and changes can come.

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
    /// The oldest question is answered, with what the store held when it was asked.
    Answered,
    /// The same question is answered by nobody.
    Fails,
    /// The newest question is answered.
    Overtakes,
    /// The key changes, unheard of.
    Changes,
    /// The newest change is told.
    Told,
    Disconnected,
    Connected,
}

const STEPS: [Step; 8] = [
    Step::Begins,
    Step::Answered,
    Step::Fails,
    Step::Overtakes,
    Step::Changes,
    Step::Told,
    Step::Disconnected,
    Step::Connected,
];

/// A world of one key, and what may be answered in it: nothing that is older than what was told when a request began; and if
/// news were lost, nothing older than what the store held then, and nothing at once.
struct World {
    store: ByHand,
    keys: CachedKeys,
    serves_stale: bool,
    generation: u64,
    events_flow: bool,
    told: u64,
    // As of the last time that news were lost or resumed.
    held: u64,
    // What the store held when each question was asked.
    asked: Vec<(u64, by_hand::Question)>,
    requests: Vec<(Request, u64)>,
}

impl World {
    fn new(serves_stale: bool) -> Self {
        let store = ByHand::default();
        // All settings at once: so many tables that are made to be replaced would be most of the work.
        let settings = Settings {
            capacity: 10,
            ttl: Duration::from_secs(30),
            refused_capacity: 10,
            refused_ttl: Duration::from_secs(5),
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
            events_flow: true,
            told: 0,
            held: 0,
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
                let fresh = self.told.max(self.held);
                if let Some(generation) = request.generation() {
                    assert!(self.events_flow, "{generation} is answered at once, and no news flow");
                    assert!(generation >= fresh, "{generation} is answered at once, and {fresh} was told");
                }
                // One that the store does not answer may be served what was told last.
                self.requests.push((request, if self.serves_stale { self.told } else { fresh }));
            }
            Step::Answered if !self.asked.is_empty() => self.answer(0, true),
            Step::Fails if !self.asked.is_empty() => self.answer(0, false),
            Step::Overtakes if self.asked.len() > 1 => self.answer(self.asked.len() - 1, true),
            Step::Changes => self.generation += 1,
            Step::Told => {
                self.store.notify(&change_of(1, self.generation));
                self.told = self.generation;
            }
            Step::Disconnected | Step::Connected => {
                self.events_flow = matches!(step, Step::Connected);
                self.store.notify(if self.events_flow {
                    &StoreEvent::Connected
                } else {
                    &StoreEvent::Disconnected
                });
                self.held = self.generation;
            }
            _ => {}
        }
    }

    fn answer(&mut self, question: usize, is_up: bool) {
        let (generation, question) = self.asked.remove(question);
        // Every third state is a revoked one.
        let state = if generation % 3 == 0 { revoked(1, generation) } else { active(1, generation) };
        question.answer(if is_up { state } else { down() });
        for (request, at_least) in &mut self.requests {
            if let Some(generation) = request.generation() {
                assert!(generation >= *at_least, "{generation} is answered, and {at_least} was told");
            }
        }
    }

    fn end(mut self) {
        while !self.asked.is_empty() {
            self.answer(0, true);
        }
        self.take(Step::Begins);
        while !self.asked.is_empty() {
            self.answer(0, true);
        }
        assert!(
            self.requests.iter_mut().all(|(request, _)| request.poll().is_some()),
            "somebody still waits"
        );
    }
}

#[test]
fn nothing_is_answered_that_is_older_than_what_was_told() {
    let length = if std::env::var_os("TOLLGATE_LONG").is_some() { 6 } else { 5 };
    for number in 0..STEPS.len().pow(length) {
        let digits = (0..length).map(|place| number / STEPS.len().pow(place) % STEPS.len());
        let steps: Vec<_> = [Step::Begins].into_iter().chain(digits.map(|digit| STEPS[digit])).collect();
        for serves_stale in [false, true] {
            let played = std::panic::catch_unwind(|| {
                let mut world = World::new(serves_stale);
                for step in &steps {
                    world.take(*step);
                }
                world.end();
            });
            assert!(played.is_ok(), "by {steps:?}, stale: {serves_stale}");
        }
    }
}

/// Answers with the newest generation, on the thread that waits.
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

    fn subscribe(&self, listener: Weak<dyn StoreListener>) {
        self.listeners.add(listener);
    }
}

#[test]
fn threads_find_nothing_that_is_older_than_what_was_told() {
    let rounds = if std::env::var_os("TOLLGATE_LONG").is_some() { 500_000 } else { 20_000 };
    let (store, is_over, told) = (Arc::<Counting>::default(), AtomicBool::new(false), AtomicU64::new(0));
    let keys = CachedKeys::new(Arc::clone(&store)).with_capacity(10);
    store.listeners.notify(&StoreEvent::Connected);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let at_least = told.load(Ordering::SeqCst);
                    let mut request = keys.request(1, 0);
                    let generation = loop {
                        if let Some(generation) = request.generation() {
                            break generation;
                        }
                        thread::yield_now();
                    };
                    assert!(generation >= at_least, "{generation} is found, and {at_least} was told");
                }
            });
        }
        for generation in 1..=rounds {
            store.generation.store(generation, Ordering::SeqCst);
            store.listeners.notify(&change_of(1, generation));
            told.store(generation, Ordering::SeqCst);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
