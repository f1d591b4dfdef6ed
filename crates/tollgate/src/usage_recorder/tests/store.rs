//! A store that can be slow, and lose what it is given.

use std::sync::{Arc, Mutex};

use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    usage::{StoredUsage, UsageBatch, UsageQuery, UsageStore},
};

use crate::{memory::lock, usage::MemoryUsage};

/// How a batch fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    #[default]
    Arrives,
    Vanishes,
    /// It is added, and nobody learns that.
    AnswerVanishes,
}

#[derive(Clone, Default)]
pub(super) struct TestStore {
    usage: MemoryUsage,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    next: Option<Fate>,
    all: Fate,
    waits: bool,
    asked: Vec<UsageBatch>,
    questions: u32,
}

impl TestStore {
    /// How the next batch fares.
    pub(super) fn next_is(&self, fate: Fate) {
        lock(&self.plan).next = Some(fate);
    }

    /// How all others do.
    #[cfg(feature = "tokio")]
    pub(super) fn all_are(&self, fate: Fate) {
        lock(&self.plan).all = fate;
    }

    /// Whether answers from now on are only there when they are asked for a second time. What arrives arrives in
    /// between, unless its answer vanishes, and every other answer is read then.
    pub(super) fn wait(&self, waits: bool) {
        lock(&self.plan).waits = waits;
    }

    /// All batches that it was given.
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
        let fate = plan.next.take().unwrap_or(plan.all);
        let (usage, waits) = (self.usage.clone(), plan.waits);
        Answer::later(async move {
            if fate == Fate::AnswerVanishes {
                let _ = usage.add(batch.clone());
            }
            if waits {
                tokio::task::yield_now().await;
            }
            if fate == Fate::Arrives {
                let _ = usage.add(batch);
            }
            match fate {
                Fate::Arrives => Ok(()),
                _ => Err(Unavailable::new("the store's answer was lost")),
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
            usage.usage(&query).wait()
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
