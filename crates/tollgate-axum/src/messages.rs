//! By what a handler charges the messages of a stream.

use std::{convert::Infallible, ops::Deref};

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use tollgate::{Denial, RequestContext, request::MessageMeter};

use crate::Rejection;

/// The [`MessageMeter`] of the request, by which the handler charges each message of a WebSocket or of server-sent events.
///
/// Without an outer `MessageLayer`, the response is 500, and `Option<Messages>` is `None`. Over WebSockets, place it *before*
/// `GuardedUpgrade` or `WebSocketUpgrade`.
///
/// ```
/// # #[cfg(feature = "ws")]
/// # {
/// use axum::response::Response;
/// use tollgate_axum::{GuardedUpgrade, Messages};
///
/// async fn chat(Messages(meter): Messages, upgrade: GuardedUpgrade) -> Response {
///     upgrade.on_upgrade(async move |mut socket| {
///         while let Some(Ok(message)) = socket.recv().await {
///             // The first refused message ends the chat.
///             if meter.charge(1).await.is_err() || socket.send(message).await.is_err() {
///                 break;
///             }
///         }
///     })
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::any(chat));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Messages(pub MessageMeter);

impl Deref for Messages {
    type Target = MessageMeter;

    fn deref(&self) -> &MessageMeter {
        &self.0
    }
}

fn messages(head: &Parts) -> Option<Messages> {
    RequestContext::of(&head.extensions).and_then(RequestContext::messages).cloned().map(Messages)
}

impl<S: Sync> FromRequestParts<S> for Messages {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Self, Rejection> {
        messages(head).ok_or_else(|| {
            let denial = Denial::misconfigured(
                "the Messages extractor requires a MessageLayer: put a MessageLayer around the route, or extract Option<Messages>",
            );
            Rejection::new("Messages", denial, head)
        })
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Messages {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Option<Self>, Infallible> {
        Ok(messages(head))
    }
}
