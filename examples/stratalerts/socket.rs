//! The WebSocket: a connection subscribes to channels, and each channel requires its own scope.
//!
//! ```text
//! > {"op":"subscribe","topics":[{"channel":"quotes","symbols":["AAPL"]}]}
//! < {"op":"subscribed","channel":"quotes","symbols":["AAPL"]}
//! < {"channel":"quotes","data":{"last":"227.41","symbol":"AAPL"}}      immediately, then every second
//! ```

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, close_code},
    },
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::Shutdown;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tollgate::{Principal, Scopes};
use tollgate_axum::{Authenticated, GuardedSocket, GuardedUpgrade, GuardedUpgradeRejection};

use crate::{
    error,
    market::{self, INSTRUMENTS, Instrument},
};

pub(crate) const PATH: &str = "/ws/market/v1";

/// A larger message ends the connection.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
const BETWEEN_UPDATES: Duration = Duration::from_secs(1);
/// How long a caller may take to answer a close frame.
const CLOSING: Duration = Duration::from_secs(2);

pub(crate) async fn connect(
    Authenticated(principal): Authenticated,
    State(shutdown): State<Shutdown>,
    handshake: Result<GuardedUpgrade, GuardedUpgradeRejection>,
) -> Response {
    match handshake {
        Ok(handshake) => handshake
            .map(|handshake| handshake.max_message_size(MAX_MESSAGE_BYTES))
            .with_codes(error::close)
            .with_deadline(CLOSING)
            .on_upgrade(move |socket| serve(socket, principal, shutdown)),
        Err(GuardedUpgradeRejection::Upgrade(_)) => {
            error::response(StatusCode::BAD_REQUEST, "websocket_handshake_expected")
        }
        Err(rejection) => rejection.into_response(),
    }
}

/// Serves one connection until the caller leaves or the service shuts down. When the key ends, the connection is closed.
async fn serve(mut socket: GuardedSocket, principal: Arc<Principal>, mut shutdown: Shutdown) {
    tokio::select! {
        _ = converse(&mut socket, principal.scopes()) => return,
        () = shutdown.requested() => {}
    }
    // The timeout ends the connection of a caller that does not read, or does not answer the close frame.
    let _ = timeout(CLOSING, async {
        let frame = CloseFrame { code: close_code::AWAY, reason: "the service is going away".into() };
        socket.send(Message::Close(Some(frame))).await?;
        while socket.recv().await.transpose()?.is_some() {}
        Ok::<_, axum::Error>(())
    })
    .await;
}

/// Answers messages and sends updates, until the connection ends.
async fn converse(socket: &mut GuardedSocket, scopes: &Scopes) -> Result<(), axum::Error> {
    let mut subscriptions = Subscriptions::new();
    let mut ticks = interval(BETWEEN_UPDATES);
    // A slow reader gets fewer updates, not a backlog.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let messages = tokio::select! {
            message = socket.recv() => match message.transpose()? {
                Some(Message::Text(text)) => answer(&text, scopes, &mut subscriptions),
                Some(Message::Binary(_)) => vec![malformed("it is binary")],
                // Pings are answered already.
                Some(_) => continue,
                None => return Ok(()),
            },
            _ = ticks.tick() => subscriptions.iter().map(Subscription::update).collect(),
        };
        for message in messages {
            socket.send(Message::Text(message.to_string().into())).await?;
        }
    }
}

/// A caller's subscriptions: at most one for each channel and instrument.
type Subscriptions = BTreeSet<Subscription>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Subscription {
    channel: Channel,
    instrument: &'static Instrument,
}

impl Subscription {
    fn update(&self) -> Value {
        let data = match self.channel {
            Channel::Quotes => self.instrument.quote(),
            Channel::States => self.instrument.state(),
            Channel::AlertsInForce => self.instrument.alert_in_force(),
            Channel::SimultaneousBreaks => self.instrument.simultaneous_break(),
        };
        json!({ "channel": self.channel, "data": data })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
enum Channel {
    #[serde(rename = "quotes")]
    Quotes,
    #[serde(rename = "states")]
    States,
    #[serde(rename = "alerts.in_force")]
    AlertsInForce,
    #[serde(rename = "alerts.simultaneous_breaks")]
    SimultaneousBreaks,
}

impl Channel {
    /// The scope that a key needs for this channel, in addition to `ws:connect`.
    fn scope(self) -> &'static str {
        match self {
            Self::Quotes => "prices:read",
            Self::States => "states:read",
            Self::AlertsInForce | Self::SimultaneousBreaks => "alerts:read",
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Request {
    Subscribe { topics: Vec<Topic> },
}

#[derive(Deserialize)]
struct Topic {
    channel: Channel,
    /// Empty means all symbols.
    #[serde(default)]
    symbols: Vec<String>,
}

/// The answers to a message. A refused topic does not affect the others.
fn answer(text: &str, scopes: &Scopes, subscriptions: &mut Subscriptions) -> Vec<Value> {
    match serde_json::from_str(text) {
        Ok(Request::Subscribe { topics }) => topics
            .iter()
            .flat_map(|topic| match subscribe(topic, scopes) {
                Ok(granted) => {
                    subscriptions.extend(&granted);
                    confirm(topic.channel, &granted)
                }
                Err(code) => vec![refuse(topic.channel, code)],
            })
            .collect(),
        Err(error) => vec![malformed(&error.to_string())],
    }
}

fn subscribe(topic: &Topic, scopes: &Scopes) -> Result<Vec<Subscription>, &'static str> {
    let channel = topic.channel;
    if !scopes.grants(channel.scope()) {
        return Err(error::MISSING_SCOPE);
    }
    let instruments: Vec<&Instrument> = if topic.symbols.is_empty() {
        INSTRUMENTS.iter().collect()
    } else {
        let found = topic.symbols.iter().map(|symbol| market::find(symbol));
        found.collect::<Option<_>>().ok_or("unknown_symbol")?
    };
    Ok(instruments.into_iter().map(|instrument| Subscription { channel, instrument }).collect())
}

/// The confirmation and the first updates.
fn confirm(channel: Channel, granted: &[Subscription]) -> Vec<Value> {
    let symbols: Vec<_> = granted.iter().map(|subscription| subscription.instrument.symbol).collect();
    let confirmation = json!({ "op": "subscribed", "channel": channel, "symbols": symbols });
    std::iter::once(confirmation).chain(granted.iter().map(Subscription::update)).collect()
}

fn refuse(channel: Channel, code: &str) -> Value {
    json!({ "op": "subscribe", "channel": channel, "error": error::describe(code) })
}

fn malformed(problem: &str) -> Value {
    let message = format!(r#"malformed message, send {{"op":"subscribe","topics":[..]}}: {problem}"#);
    json!({ "error": { "code": "malformed_message", "message": message } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_grants_its_channels_and_no_other() {
        for (scope, granted) in [
            ("metadata:read", &[][..]),
            ("prices:read", &["quotes"]),
            ("candles:read", &[]),
            ("states:read", &["states"]),
            ("alerts:read", &["alerts.in_force", "alerts.simultaneous_breaks"]),
            ("ws:connect", &[]),
        ] {
            for channel in ["quotes", "states", "alerts.in_force", "alerts.simultaneous_breaks"] {
                let text = json!({ "op": "subscribe", "topics": [{ "channel": channel }] }).to_string();
                let mut subscriptions = Subscriptions::new();
                let answers = answer(&text, &Scopes::new([scope]).unwrap(), &mut subscriptions);
                let is_granted = granted.contains(&channel);
                assert_eq!(
                    answers[0].get("error").is_none(),
                    is_granted,
                    "{scope} and {channel}: {answers:?}"
                );
                assert_eq!(subscriptions.is_empty(), !is_granted);
            }
        }
    }

    #[test]
    fn a_repeated_subscription_counts_once() {
        let text = r#"{"op":"subscribe","topics":[{"channel":"quotes","symbols":["AAPL","AAPL"]}]}"#;
        let mut subscriptions = Subscriptions::new();
        for _ in 0..2 {
            answer(text, &Scopes::all(), &mut subscriptions);
        }
        assert_eq!(subscriptions.len(), 1);
    }
}
