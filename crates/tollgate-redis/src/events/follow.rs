//! Receives the changes that other processes publish, and notices when it would miss them.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _};
use redis::{Msg, aio::PubSubStream};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tollgate_core::{denial::Unavailable, store::StoreEvent};

use super::{message::Message, shared::Shared};

/// The pause before another attempt to subscribe: the first one, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The most messages that are answered at once.
const BATCH: usize = 1_000;

/// Runs until the sender of `stopped` is dropped, and then as long as Redis accepts what is left to publish.
pub(super) async fn follow(shared: Arc<Shared>, mut stopped: watch::Receiver<()>) {
    tokio::select! {
        _ = stopped.changed() => {}
        () = keep_listening(&shared) => {}
        () = shared.outbox.publish(&shared.redis) => {}
    }
    shared.set_redis_connected(false);
    shared.outbox.publish_rest(&shared.redis).await;
}

/// Why changes may be missed.
enum Fault {
    Connect(String),
    Closed,
    Silent,
    Store(Unavailable),
}

/// Listens, and subscribes again whenever the connection is lost. Never returns.
async fn keep_listening(shared: &Shared) {
    let (mut pause, mut is_interrupted) = (BACKOFF.0, false);
    loop {
        let mut has_begun = false;
        let fault = listen(shared, || {
            if is_interrupted {
                shared.outbox.add_all_after_interruption();
                tracing::info!(name: "tollgate.events_restored", "changes of keys by other processes are received again");
            }
            has_begun = true;
        })
        .await;
        shared.set_redis_connected(false);
        if has_begun {
            (pause, is_interrupted) = (BACKOFF.0, false);
        }
        if !is_interrupted {
            tracing::warn!(
                name: "tollgate.events_interrupted",
                "changes of keys by other processes are not received, and nothing is cached: {fault}"
            );
            is_interrupted = true;
        }
        sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// Listens on a connection until it fails. Calls `begun` once all changes are received.
async fn listen(shared: &Shared, begun: impl FnOnce()) -> Fault {
    let mut link = match Link::open(shared).await {
        Ok(link) => link,
        Err(fault) => return fault,
    };
    let opened_at = link.opened_at;
    let beats = link.beats.clone();
    tokio::select! {
        () = beat(shared, &beats, opened_at) => Fault::Silent,
        fault = async {
            if let Err(fault) = link.receive_first_beat(shared).await {
                return fault;
            }
            if let Err(error) = shared.check_all().await {
                return Fault::Store(error);
            }
            shared.set_redis_connected(true);
            begun();
            link.receive(shared).await
        } => fault,
    }
}

/// Publishes on a channel of this process alone, so that it notices when messages do not arrive: because the connection is silent, or is
/// to a server on which others do not publish any more. Never returns.
async fn beat(shared: &Shared, channel: &str, opened_at: Instant) {
    let mut beats = interval(shared.heartbeat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        loop {
            let millis = u64::try_from(opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
            if shared.redis.send(redis::cmd("PUBLISH").arg(channel).arg(millis)).await.is_ok() {
                break;
            }
            sleep(shared.heartbeat / 10).await;
        }
    }
}

/// A connection on which messages arrive.
struct Link {
    messages: PubSubStream,
    beats: String,
    opened_at: Instant,
    /// When the last beat that has arrived was sent: everything published by then has arrived, too.
    beat_sent_at: Instant,
}

impl Link {
    async fn open(shared: &Shared) -> Result<Self, Fault> {
        let beats = format!("{}:{}", shared.channel, shared.process);
        let subscribed = shared.redis.connector().subscribe(&[&shared.channel, &beats]).await;
        let messages = subscribed.map_err(|error| Fault::Connect(error.to_string()))?.into_on_message();
        let now = Instant::now();
        Ok(Self { messages, beats, opened_at: now, beat_sent_at: now })
    }

    /// Waits until messages arrive. Earlier ones are of changes that are read after this.
    async fn receive_first_beat(&mut self, shared: &Shared) -> Result<(), Fault> {
        let limit = self.opened_at + shared.heartbeat * 2;
        loop {
            let message = timeout_at(limit, self.messages.next()).await.map_err(|_| Fault::Silent)?;
            if self.is_beat(&message.ok_or(Fault::Closed)?) {
                return Ok(());
            }
        }
    }

    /// Answers messages until the connection fails, and returns the reason.
    async fn receive(&mut self, shared: &Shared) -> Fault {
        // The last quarter of the two heartbeats of `staleness_bound` is for the delays of a busy machine.
        let limit = shared.heartbeat.mul_f32(1.75);
        loop {
            let mut next = match timeout_at(self.beat_sent_at + limit, self.messages.next()).await {
                Ok(Some(message)) => Some(message),
                Ok(None) => return Fault::Closed,
                Err(_) => return Fault::Silent,
            };
            let (mut events, mut is_all, mut answered) = (Vec::new(), false, 0);
            while let Some(message) = next {
                if !self.is_beat(&message) {
                    match Message::read(&shared.process, message.get_payload_bytes()) {
                        Message::Event(event) => events.push(event),
                        Message::All => is_all = true,
                        Message::Ignored => {}
                    }
                }
                answered += 1;
                let is_more = answered < BATCH;
                next = if is_more { self.messages.next().now_or_never().flatten() } else { None };
            }
            match timeout(limit, answer(shared, &events, is_all)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Fault::Store(error),
                Err(_) => return Fault::Store(Unavailable::new("the store does not answer in time")),
            }
        }
    }

    /// Whether a message is a beat of this process, which is noted.
    fn is_beat(&mut self, message: &Msg) -> bool {
        if message.get_channel_name() != self.beats {
            return false;
        }
        let millis = str::from_utf8(message.get_payload_bytes()).ok().and_then(|text| text.parse().ok());
        let sent_at = millis.and_then(|millis| self.opened_at.checked_add(Duration::from_millis(millis)));
        // A beat from the future is not of this process.
        if let Some(sent_at) = sent_at.filter(|sent_at| *sent_at <= Instant::now()) {
            self.beat_sent_at = self.beat_sent_at.max(sent_at);
        }
        true
    }
}

async fn answer(shared: &Shared, events: &[StoreEvent], is_all: bool) -> Result<(), Unavailable> {
    if !is_all {
        return shared.learn(events).await;
    }
    shared.set_redis_connected(false);
    shared.check_all().await?;
    shared.set_redis_connected(true);
    Ok(())
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => f.write_str(error),
            Self::Closed => f.write_str("the Redis server has closed the connection"),
            Self::Silent => f.write_str("messages do not arrive from the Redis server"),
            Self::Store(error) => write!(f, "the key store does not answer: {error}"),
        }
    }
}
