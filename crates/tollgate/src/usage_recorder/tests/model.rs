//! Compares a recorder with a plain count of recorded uses, for any order of events.

use std::{collections::BTreeMap, pin::Pin};

use proptest::prelude::*;

use super::{
    store::{Outcome, TestStore},
    *,
};

/// The events, in any order.
#[derive(Clone, Debug)]
enum Step {
    Record {
        key: usize,
        hour: u32,
    },
    /// Starts a flush, whose batch has this outcome.
    Flush(Outcome),
    /// Continues or drops the flush that was started this many flushes before the last one.
    Continue(usize),
    Drop(usize),
    /// Starts a query, which is answered after later steps.
    Ask {
        key: usize,
    },
    Answer(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![Just(Outcome::Stored), Just(Outcome::Lost), Just(Outcome::ReplyLost)];
    prop_oneof![
        4 => (0..2_usize, 0..2_u32).prop_map(|(key, hour)| Step::Record { key, hour }),
        3 => outcome.prop_map(Step::Flush),
        3 => (0..3_usize).prop_map(Step::Continue),
        1 => (0..3_usize).prop_map(Step::Drop),
        2 => (0..2_usize).prop_map(|key| Step::Ask { key }),
        2 => (0..3_usize).prop_map(Step::Answer),
    ]
}

const KEYS: [&str; 2] = ["ada", "bob"];

type Flush<'r> = Pin<Box<dyn Future<Output = Result<(), Unavailable>> + 'r>>;
type Question<'r> = Pin<Box<dyn Future<Output = Result<Vec<HourlyUsage>, Unavailable>> + 'r>>;

/// Removes the element that was added `back` elements before the last one.
fn nth_last<T>(of: &mut Vec<T>, back: usize) -> Option<T> {
    let at = of.len().checked_sub(back + 1)?;
    Some(of.remove(at))
}

fn sum(counts: &BTreeMap<(usize, u32), u64>, of: usize) -> u64 {
    counts.iter().filter(|((key, _), _)| *key == of).map(|(_, requests)| requests).sum()
}

proptest! {
    /// The test runs in one thread, so the bounds are known: an answer includes all uses recorded before the query, none of
    /// them twice, and none recorded after the answer.
    #[test]
    fn in_any_order_no_use_is_lost_or_counted_twice(
        steps in proptest::collection::vec(step(), 1..60),
        capacity in prop_oneof![Just(4_usize), Just(100)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = TestStore::default();
        let recorder = UsageRecorder::with_capacity(store.clone(), capacity);
        let mut recorded = BTreeMap::new();
        let mut flushes: Vec<Flush<'_>> = Vec::new();
        let mut questions: Vec<(usize, u64, Question<'_>)> = Vec::new();
        store.wait(true);
        for step in steps {
            match step {
                Step::Record { key, hour: number } => {
                    record(&recorder, KEYS[key], hour(number));
                    *recorded.entry((key, number)).or_default() += 1;
                }
                Step::Flush(outcome) => {
                    store.next_is(outcome);
                    let mut flush: Flush<'_> = Box::pin(recorder.flush());
                    if is_pending(flush.as_mut()) {
                        flushes.push(flush);
                    }
                    store.next_is(Outcome::Stored);
                }
                Step::Continue(back) => {
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
                    questions.push((key, sum(&recorded, key), question));
                }
                Step::Answer(back) => {
                    if let Some((key, before, question)) = nth_last(&mut questions, back) {
                        let hours = runtime.block_on(question).unwrap();
                        let answer: u64 = hours.iter().map(|hour| hour.requests).sum();
                        let now = sum(&recorded, key);
                        prop_assert!((before..=now).contains(&answer), "{before} <= {answer} <= {now}");
                    }
                }
            }
        }
        store.wait(false);
        drop(flushes);
        runtime.block_on(recorder.flush()).unwrap();
        for (key, name) in KEYS.iter().enumerate() {
            let own = recorded.iter().filter(|((owner, _), _)| *owner == key);
            let expected: Vec<_> = own.map(|((_, hour), requests)| (*hour, *requests)).collect();
            prop_assert_eq!(runtime.block_on(stored(&store, name)), expected);
        }
        prop_assert_eq!(recorder.dropped(), 0);
    }
}
