//! Keeps the places of this process, and gives them back when they are freed: one task for all.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::{Instant, MissedTickBehavior, interval},
};
use tollgate_core::in_flight::Place;

use super::script::{Action, Scripts, TakenPlace};
use crate::Redis;

/// How many places one call of a script keeps or frees, at most.
const MOST_PER_CALL: usize = 500;

/// How many calls wait for their replies at the same time, at most.
const MOST_CALLS: usize = 16;

/// How often the task looks whether places are to be renewed, at least.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A handle of the task. Messages are few: at most two for each place that is taken.
#[derive(Debug)]
pub(super) struct Keeper {
    sender: UnboundedSender<Message>,
    numbers: AtomicU64,
}

enum Message {
    Taken(TakenPlace),
    Freed(TakenPlace),
}

/// An attempt to take a place in Redis. Dropped, it gives back what Redis may have counted.
#[derive(Debug)]
pub(super) struct Attempt {
    // None if there is nothing to give back.
    sender: Option<UnboundedSender<Message>>,
    place: TakenPlace,
}

impl Keeper {
    pub(super) fn start(redis: Redis, scripts: Arc<Scripts>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let runtime = redis.runtime().clone();
        runtime.spawn(Task::new(redis, scripts).run(receiver));
        Self { sender, numbers: AtomicU64::new(0) }
    }

    pub(super) fn attempt(&self, key: String) -> Attempt {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        Attempt { sender: Some(self.sender.clone()), place: TakenPlace { key: key.into(), number } }
    }
}

impl Attempt {
    pub(super) fn place(&self) -> &TakenPlace {
        &self.place
    }

    /// Redis has taken the place, and this process has taken `local`. Both are freed together.
    pub(super) fn succeed(mut self, local: Place) -> Place {
        let (sender, place) = (self.sender.take(), self.place.clone());
        // Without a receiver the runtime has ended, and the place expires.
        let send = move |message| sender.as_ref().map(|sender| sender.send(message));
        // First: this message is received before that of the freed place.
        let _ = send(Message::Taken(place.clone()));
        Place::new(move || {
            local.free();
            let _ = send(Message::Freed(place.clone()));
        })
    }

    /// Redis has taken no place.
    pub(super) fn fail(mut self) {
        self.sender = None;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(Message::Freed(self.place.clone()));
        }
    }
}

struct Task {
    redis: Redis,
    scripts: Arc<Scripts>,
    /// The places that this process holds.
    held: HashMap<u64, Arc<str>>,
    /// Places to give back.
    freed: Vec<TakenPlace>,
    /// Calls that are to give places back, and have failed before.
    again: Vec<Call>,
    /// The same, until the next look.
    failed: Vec<Call>,
    /// Places to renew, if they are still held by then.
    to_renew: Vec<TakenPlace>,
    renewed_at: Instant,
    /// The connection on which they were renewed.
    renewed_on: u64,
}

/// A call of a script.
struct Call {
    action: Action,
    places: Vec<TakenPlace>,
    /// When they have expired by themselves, if they are not renewed.
    expires: Instant,
}

impl Task {
    fn new(redis: Redis, scripts: Arc<Scripts>) -> Self {
        let renewed_on = redis.number();
        Self {
            redis,
            scripts,
            held: HashMap::new(),
            freed: Vec::new(),
            again: Vec::new(),
            failed: Vec::new(),
            to_renew: Vec::new(),
            renewed_at: Instant::now(),
            renewed_on,
        }
    }

    /// Ends when all handles and places are dropped, and what they held is given back or has expired.
    async fn run(mut self, mut messages: UnboundedReceiver<Message>) {
        let mut ticks = interval(LOOK_EVERY.min(self.scripts.ttl / 12));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                received = messages.recv(), if !messages.is_closed() || !messages.is_empty() => {
                    if let Some(message) = received {
                        self.receive(message);
                    }
                }
                _ = ticks.tick(), if !self.held.is_empty() || !self.failed.is_empty() => self.look(),
                else => return,
            }
            loop {
                while let Ok(message) = messages.try_recv() {
                    self.receive(message);
                }
                if self.freed.is_empty() && self.again.is_empty() && self.to_renew.is_empty() {
                    break;
                }
                self.send_some().await;
            }
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Taken(place) => {
                self.held.insert(place.number, place.key);
            }
            Message::Freed(place) => {
                self.held.remove(&place.number);
                self.freed.push(place);
            }
        }
    }

    /// Finds out what is to be renewed, and what is to be given back once more.
    fn look(&mut self) {
        let now = Instant::now();
        self.again.extend(self.failed.drain(..).filter(|call| now < call.expires));
        // A new connection may be to a server that has lost its data.
        let connection = self.redis.number();
        if now - self.renewed_at >= self.scripts.ttl / 3 || connection != self.renewed_on {
            (self.renewed_at, self.renewed_on) = (now, connection);
            let held = self.held.iter();
            self.to_renew =
                held.map(|(number, key)| TakenPlace { key: key.clone(), number: *number }).collect();
            sort(&mut self.to_renew);
        }
    }

    /// Sends as many calls as may wait at the same time: first those that free places.
    async fn send_some(&mut self) {
        let calls = self.next_calls();
        // In their order on one connection: no place is kept after it was freed.
        let sent =
            join_all(calls.iter().map(|call| self.scripts.keep(&self.redis, call.action, &call.places)));
        for (reply, call) in sent.await.into_iter().zip(calls) {
            // What is not renewed is tried again after a third of its time.
            if reply.is_err() && call.action == Action::Free {
                self.failed.push(call);
            }
        }
    }

    fn next_calls(&mut self) -> Vec<Call> {
        let mut calls = self.again.split_off(self.again.len().saturating_sub(MOST_CALLS));
        let (is_cluster, expires) = (self.redis.settings().is_cluster(), Instant::now() + self.scripts.ttl);
        sort(&mut self.freed);
        for (action, list) in [(Action::Free, &mut self.freed), (Action::Keep, &mut self.to_renew)] {
            while calls.len() < MOST_CALLS && !list.is_empty() {
                let mut places = take_batch(list, is_cluster);
                if action == Action::Keep {
                    places.retain(|place| self.held.contains_key(&place.number));
                }
                if !places.is_empty() {
                    calls.push(Call { action, places, expires });
                }
            }
        }
        calls
    }
}

/// Puts the places of a subject, and the subjects of a group, beside each other.
fn sort(places: &mut [TakenPlace]) {
    places.sort_unstable_by(|one, other| one.key.cmp(&other.key));
}

/// Takes the places of one call from the end. In a cluster, they are all on one server.
fn take_batch(places: &mut Vec<TakenPlace>, is_cluster: bool) -> Vec<TakenPlace> {
    let last = places.last().map(|place| Arc::clone(&place.key));
    let is_beside_last =
        |place: &&TakenPlace| !is_cluster || last.as_deref().map(hash_tag) == Some(hash_tag(&place.key));
    let length = places.iter().rev().take(MOST_PER_CALL).take_while(is_beside_last).count();
    places.split_off(places.len() - length)
}

/// The part of a key by which a cluster chooses its server.
fn hash_tag(key: &str) -> &str {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(keys: &[&str]) -> Vec<TakenPlace> {
        let numbered = keys.iter().zip(0..);
        numbered.map(|(key, number)| TakenPlace { key: (*key).into(), number }).collect()
    }

    fn batches(keys: &[&str], is_cluster: bool) -> Vec<Vec<String>> {
        let mut places = places(keys);
        sort(&mut places);
        let mut batches = Vec::new();
        while !places.is_empty() {
            let batch = take_batch(&mut places, is_cluster);
            batches.push(batch.iter().map(|place| place.key.to_string()).collect());
        }
        batches
    }

    #[test]
    fn a_call_has_the_places_of_one_group_in_a_cluster_and_of_all_elsewhere() {
        let keys = ["p:{a}:1", "p:{b}:1", "p:{a}:2", "p:{a}:1"];
        assert_eq!(batches(&keys, true), [vec!["p:{b}:1"], vec!["p:{a}:1", "p:{a}:1", "p:{a}:2"]]);
        assert_eq!(batches(&keys, false), [vec!["p:{a}:1", "p:{a}:1", "p:{a}:2", "p:{b}:1"]]);
    }

    #[test]
    fn a_call_has_at_most_500_places() {
        let sizes: Vec<_> = batches(&vec!["p:{a}:1"; 1_201], false).iter().map(Vec::len).collect();
        assert_eq!(sizes, [500, 500, 201]);
    }
}
