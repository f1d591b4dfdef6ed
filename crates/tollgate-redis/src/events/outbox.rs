//! The messages that this process has to publish.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tollgate_core::denial::Unavailable;

use crate::{Redis, redis_connection::SendError};

/// The pause before another attempt to publish: the first one, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How many messages wait, at most.
const MOST: usize = 10_000;

/// Messages in their order, until Redis has accepted them.
#[derive(Debug)]
pub(super) struct Outbox {
    channel: String,
    /// What takes the place of all messages when they are too many.
    of_all: String,
    queue: Mutex<Queue>,
    filled: Notify,
    /// The number of the last message that Redis has accepted.
    sent: watch::Sender<u64>,
    /// Whether Redis has accepted an event since the last interruption.
    has_published: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<(u64, String)>,
    last: u64,
}

impl Outbox {
    pub(super) fn new(channel: String, of_all: String) -> Self {
        Self {
            channel,
            of_all,
            queue: Mutex::default(),
            filled: Notify::new(),
            sent: watch::Sender::default(),
            has_published: AtomicBool::new(false),
        }
    }

    pub(super) fn add(&self, text: String) {
        {
            let mut queue = self.queue();
            queue.last += 1;
            let number = queue.last;
            if queue.messages.len() < MOST {
                queue.messages.push_back((number, text));
            } else {
                queue.messages = VecDeque::from([(number, self.of_all.clone())]);
            }
        }
        self.filled.notify_one();
    }

    /// After an interruption: the server that has accepted earlier messages may have been replaced before others received them.
    pub(super) fn add_all_after_interruption(&self) {
        if self.has_published.swap(false, Ordering::AcqRel) {
            self.add(self.of_all.clone());
        }
    }

    /// Waits until all messages so far are published, or until the deadline.
    pub(super) async fn published(&self, deadline: Duration) {
        let last = self.queue().last;
        let mut sent = self.sent.subscribe();
        // If not in time, it is tried again, and logged.
        let _ = timeout(deadline, sent.wait_for(|sent| *sent >= last)).await;
    }

    /// Publishes messages, again and again if Redis does not accept them. Never returns.
    pub(super) async fn publish(&self, redis: &Redis) {
        let mut failures = 0_u32;
        loop {
            match self.publish_first(redis).await {
                Some(Ok(())) => {
                    if failures > 0 {
                        tracing::info!(name: "tollgate.events_published", "changes of keys are published again");
                    }
                    failures = 0;
                }
                Some(Err(error)) => {
                    if failures == 0 {
                        let error = Unavailable::from(error);
                        tracing::warn!(
                            name: "tollgate.events_unpublished",
                            "a change of a key is not published yet, other processes may not know of it: {error}"
                        );
                    }
                    sleep(BACKOFF.0.saturating_mul(1 << failures.min(10)).min(BACKOFF.1)).await;
                    failures += 1;
                }
                None => self.filled.notified().await,
            }
        }
    }

    /// Publishes what is left, until one message is not accepted.
    pub(super) async fn publish_rest(&self, redis: &Redis) {
        while let Some(Ok(())) = self.publish_first(redis).await {}
    }

    /// `None` if there is no message.
    async fn publish_first(&self, redis: &Redis) -> Option<Result<(), SendError>> {
        let (number, text) = self.queue().messages.front().cloned()?;
        let is_event = text != self.of_all;
        let sent = redis.send(redis::cmd("PUBLISH").arg(&self.channel).arg(text)).await;
        if sent.is_ok() {
            self.has_published.fetch_or(is_event, Ordering::AcqRel);
            let mut queue = self.queue();
            while queue.messages.front().is_some_and(|(first, _)| *first <= number) {
                queue.messages.pop_front();
            }
            drop(queue);
            self.sent.send_replace(number);
        }
        Some(sent.map(drop))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each change leaves the queue valid, so a panic on another thread does no harm.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_messages_become_one_for_all() {
        let outbox = Outbox::new("events".into(), "all".into());
        let waiting = |outbox: &Outbox| outbox.queue().messages.clone();
        for number in 1..=MOST {
            outbox.add(number.to_string());
        }
        assert_eq!(waiting(&outbox).len(), MOST);
        outbox.add("one more".into());
        assert_eq!(waiting(&outbox), [(MOST as u64 + 1, "all".to_owned())]);
        outbox.add("the next".into());
        assert_eq!(waiting(&outbox).len(), 2);
    }
}
