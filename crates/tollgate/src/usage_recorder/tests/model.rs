//! A recorder beside a plain count of what was noted, whatever happens in whatever order.

use std::{collections::BTreeMap, pin::Pin};

use proptest::prelude::*;

use super::{
    store::{Fate, TestStore},
    *,
};

/// What may happen to a recorder, in any order.
#[derive(Clone, Debug)]
enum Step {
    Note {
        key: usize,
        hour: u32,
    },
    /// A flush begins, and its batch fares like this.
    Flush(Fate),
    /// The flush that began so many before the last one goes on, or is dropped.
    GoOn(usize),
    Drop(usize),
    /// Somebody asks, and is answered after the steps that follow.
    Ask {
        key: usize,
    },
    Answer(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![Just(Fate::Arrives), Just(Fate::Vanishes), Just(Fate::AnswerVanishes)];
    prop_oneof![
        4 => (0..2_usize, 0..2_u32).prop_map(|(key, hour)| Step::Note { key, hour }),
        3 => fate.prop_map(Step::Flush),
        3 => (0..3_usize).prop_map(Step::GoOn),
        1 => (0..3_usize).prop_map(Step::Drop),
        2 => (0..2_usize).prop_map(|key| Step::Ask { key }),
        2 => (0..3_usize).prop_map(Step::Answer),
    ]
}

const KEYS: [&str; 2] = ["ada", "bob"];

type Flush<'r> = Pin<Box<dyn Future<Output = Result<(), Unavailable>> + 'r>>;
type Question<'r> = Pin<Box<dyn Future<Output = Result<Vec<HourlyUsage>, Unavailable>> + 'r>>;

/// The one that came so many before the last.
fn nth_last<T>(of: &mut Vec<T>, back: usize) -> Option<T> {
    let at = of.len().checked_sub(back + 1)?;
    Some(of.remove(at))
}

fn sum(counts: &BTreeMap<(usize, u32), u64>, of: usize) -> u64 {
    counts.iter().filter(|((key, _), _)| *key == of).map(|(_, requests)| requests).sum()
}

proptest! {
    /// In one thread all is known: whoever asks is told of all that was noted before, of nothing twice, and of no more than
    /// was noted until the answer came.
    #[test]
    fn whatever_happens_nothing_is_lost_and_nothing_counts_twice(
        steps in proptest::collection::vec(step(), 1..60),
        capacity in prop_oneof![Just(4_usize), Just(100)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = TestStore::default();
        let recorder = UsageRecorder::with_capacity(store.clone(), capacity);
        let mut noted = BTreeMap::new();
        let mut flushes: Vec<Flush<'_>> = Vec::new();
        let mut questions: Vec<(usize, u64, Question<'_>)> = Vec::new();
        store.wait(true);
        for step in steps {
            match step {
                Step::Note { key, hour: number } => {
                    record(&recorder, KEYS[key], hour(number));
                    *noted.entry((key, number)).or_default() += 1;
                }
                Step::Flush(fate) => {
                    store.next_is(fate);
                    let mut flush: Flush<'_> = Box::pin(recorder.flush());
                    if is_pending(flush.as_mut()) {
                        flushes.push(flush);
                    }
                    store.next_is(Fate::Arrives);
                }
                Step::GoOn(back) => {
                    if let Some(mut flush) = nth_last(&mut flushes, back)
                        && is_pending(flush.as_mut())
                    {
                        flushes.push(flush);
                    }
                }
                Step::Drop(back) => drop(nth_last(&mut flushes, back)),
                Step::Ask { key } => {
                    let mut question: Question<'_> = Box::pin(recorder.usage(KEYS[key], hour(0), hour(9)));
                    prop_assert!(is_pending(question.as_mut()));
                    questions.push((key, sum(&noted, key), question));
                }
                Step::Answer(back) => {
                    if let Some((key, before, question)) = nth_last(&mut questions, back) {
                        let hours = runtime.block_on(question).unwrap();
                        let told: u64 = hours.iter().map(|hour| hour.requests).sum();
                        let now = sum(&noted, key);
                        prop_assert!((before..=now).contains(&told), "{before} <= {told} <= {now}");
                    }
                }
            }
        }
        store.wait(false);
        drop(flushes);
        runtime.block_on(recorder.flush()).unwrap();
        for (key, name) in KEYS.iter().enumerate() {
            let own = noted.iter().filter(|((owner, _), _)| *owner == key);
            let expected: Vec<_> = own.map(|((_, hour), requests)| (*hour, *requests)).collect();
            prop_assert_eq!(runtime.block_on(stored(&store, name)), expected);
        }
        prop_assert_eq!(recorder.dropped(), 0);
    }
}
