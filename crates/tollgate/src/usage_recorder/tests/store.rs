//! A store that can be slow and lose batches or replies.

use std::sync::{Arc, Mutex};

use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    usage::{StoredUsage, UsageBatch, UsageQuery, UsageStore},
};

use crate::{memory::lock, usage::MemoryUsage};

/// What happens to a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    #[default]
    Stored,
    Lost,
    /// The batch is stored, but the reply is lost.
    ReplyLost,
}

#[derive(Clone, Default)]
pub(super) struct TestStore {
    usage: MemoryUsage,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    next: Option<Outcome>,
    all: Outcome,
    waits: bool,
    asked: Vec<UsageBatch>,
    questions: u32,
}

impl TestStore {
    /// Sets the outcome of the next batch.
    pub(super) fn next_is(&self, outcome: Outcome) {
        lock(&self.plan).next = Some(outcome);
    }

    /// Sets the outcome of all other batches.
    pub(super) fn all_are(&self, outcome: Outcome) {
        lock(&self.plan).all = outcome;
    }

    /// Sets whether answers take a second poll from now on. A stored batch is then added between the two polls, unless its reply
    /// is lost, and every other query is read between them.
    pub(super) fn wait(&self, waits: bool) {
        lock(&self.plan).waits = waits;
    }

    /// All batches received.
    pub(super) fn batches(&self) -> Vec<UsageBatch> {
        lock(&self.plan).asked.clone()
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        lock(&self.plan).asked.iter().map(|batch| batch.number).collect()
    }
}

impl UsageStore for TestStore {
    fn add(&self, batch: UsageBatch) -> Answer<Result<(), Unavailable>> {
        let mut plan = lock(&self.plan);
        plan.asked.push(batch.clone());
        let outcome = plan.next.take().unwrap_or(plan.all);
        let (usage, waits) = (self.usage.clone(), plan.waits);
        Answer::later(async move {
            if outcome == Outcome::ReplyLost {
                let _ = usage.add(batch.clone());
            }
            if waits {
                tokio::task::yield_now().await;
            }
            if outcome == Outcome::Stored {
                let _ = usage.add(batch);
            }
            match outcome {
                Outcome::Stored => Ok(()),
                _ => Err(Unavailable::new("the store's reply was lost")),
            }
        })
    }

    fn usage(&self, query: &UsageQuery<'_>) -> Answer<Result<StoredUsage, Unavailable>> {
        let mut plan = lock(&self.plan);
        plan.questions += 1;
        let (usage, waits, reads_first) = (self.usage.clone(), plan.waits, plan.questions.is_multiple_of(2));
        let (key, from, until, writer) = (query.key.to_owned(), query.from, query.until, query.writer);
        let read = move || {
            let query = UsageQuery::new(&key, from, until).with_writer(writer.unwrap_or_default());
            usage.usage(&query).into_future()
        };
        Answer::later(async move {
            let early = if reads_first { Some(read().await) } else { None };
            if waits {
                tokio::task::yield_now().await;
            }
            match early {
                Some(stored) => stored,
                None => read().await,
            }
        })
    }
}
