//! A WebSocket that is closed when its caller's key ends: the socket.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{
    FutureExt as _, Sink, SinkExt, Stream, StreamExt as _,
    future::{Either, join, select},
    stream::FusedStream,
};
use http::HeaderValue;

/// A WebSocket of a [`GuardedUpgrade`](crate::GuardedUpgrade): axum's [`WebSocket`], until the key of its caller ends. From then on it
/// reads `None`, and sends are errors.
///
/// It is a [`Stream`] and a [`Sink`] of messages, as axum's is, so it can be split:
///
/// ```
/// use axum::extract::ws::Message;
/// use futures_util::{SinkExt, StreamExt};
/// use tollgate_axum::GuardedSocket;
///
/// async fn serve(socket: GuardedSocket) {
///     let (mut sender, mut receiver) = socket.split();
///     tokio::spawn(async move { while sender.send(Message::text("tick")).await.is_ok() {} });
///     while let Some(Ok(message)) = receiver.next().await {
///         println!("{message:?}");
///     }
/// }
/// # let _ = serve;
/// ```
pub struct GuardedSocket {
    shared: Arc<Shared>,
    protocol: Option<HeaderValue>,
}

impl GuardedSocket {
    /// The next message. `None` once the connection is closed, or the key of the caller has ended.
    pub async fn recv(&mut self) -> Option<Result<Message, axum::Error>> {
        self.next().await
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the connection is closed or fails, or the key of the caller has ended.
    pub async fn send(&mut self, message: Message) -> Result<(), axum::Error> {
        SinkExt::send(self, message).await
    }

    /// The subprotocol that was selected in the handshake.
    pub fn protocol(&self) -> Option<&HeaderValue> {
        self.protocol.as_ref()
    }
}

/// What the socket and its supervisor share. Locked only while one of them is polled.
struct Shared(Mutex<State>);

struct State {
    // `None` once the supervisor closes it, or the handler has dropped it.
    socket: Option<WebSocket>,
    is_dropped: bool,
    // Who waits: one task may read while another writes.
    reader: Option<Waker>,
    writer: Option<Waker>,
    supervisor: Option<Waker>,
}

/// The memory that a socket shares with its supervisor, without axum's own.
#[cfg(test)]
pub(crate) const SHARED: usize = size_of::<Shared>() + 2 * size_of::<usize>() - size_of::<WebSocket>();

impl Shared {
    fn new(socket: WebSocket) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            socket: Some(socket),
            is_dropped: false,
            reader: None,
            writer: None,
            supervisor: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of the socket leaves it as broken as a lost connection would.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the socket from the handler, and wakes it to see that.
    fn take(&self) -> Option<WebSocket> {
        let (socket, wakers) = {
            let mut state = self.lock();
            (state.socket.take(), [state.reader.take(), state.writer.take()])
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
        socket
    }

    /// The handler, and every task that it has given the socket to, needs it no more.
    fn drop_socket(&self) {
        let (socket, supervisor) = {
            let mut state = self.lock();
            state.is_dropped = true;
            (state.socket.take(), state.supervisor.take())
        };
        drop(socket);
        if let Some(supervisor) = supervisor {
            supervisor.wake();
        }
    }

    /// Waits until the socket is dropped.
    async fn dropped(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.is_dropped {
                return Poll::Ready(());
            }
            let replaced = keep(&mut state.supervisor, cx);
            drop(state);
            drop(replaced);
            Poll::Pending
        })
        .await;
    }
}

/// Keeps the waker of a poll. Returns the one before, to be dropped without the lock: its last drop can drop a whole task, with a half of
/// this socket.
#[must_use]
fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => None,
        _ => slot.replace(cx.waker().clone()),
    }
}

/// Takes the socket when the supervisor is dropped. If the handler has panicked, another task may still have a half of the
/// socket: then it reads the end.
struct TakeOnDrop(Arc<Shared>);

impl Drop for TakeOnDrop {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

/// How a socket is closed.
pub(crate) struct Closing {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) deadline: Duration,
}

/// Serves a socket by `serve` until that is done, or until `ended` says how to close it. Where the socket is dropped already, nothing is
/// closed, and `serve` finishes.
pub(crate) async fn supervise<F, C>(
    socket: WebSocket,
    serve: impl FnOnce(GuardedSocket) -> F,
    ended: impl Future<Output = C>,
) where
    F: Future<Output = ()>,
    C: FnOnce() -> Closing,
{
    let protocol = socket.protocol().cloned();
    let shared = Shared::new(socket);
    let _taken = TakeOnDrop(Arc::clone(&shared));
    let serving = serve(GuardedSocket { shared: Arc::clone(&shared), protocol });
    // Other tasks may hold the socket for longer than the handler runs.
    let mut served = pin!(async {
        serving.await;
        shared.dropped().await;
    });
    // The end first: nothing is sent after it.
    let Either::Left((closing, _)) = select(pin!(ended), &mut served).await else { return };
    let Some(socket) = shared.take() else { return served.await };
    let Closing { code, reason, deadline } = closing();
    let closed = close(socket, CloseFrame { code, reason: reason.into() }).map(drop);
    // What is left at the deadline is dropped: the connection, and the handler.
    let _ = tokio::time::timeout(deadline, join(closed, served)).await;
}

/// Closes a socket, and waits for the close of its peer.
async fn close(mut socket: WebSocket, frame: CloseFrame) -> Result<(), axum::Error> {
    // The buffer may have no room for a close.
    SinkExt::flush(&mut socket).await?;
    socket.send(Message::Close(Some(frame))).await?;
    while socket.recv().await.transpose()?.is_some() {}
    Ok(())
}

impl Stream for GuardedSocket {
    type Item = Result<Message, axum::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.shared.lock();
        let Some(socket) = &mut state.socket else { return Poll::Ready(None) };
        let polled = socket.poll_next_unpin(cx);
        let replaced = if polled.is_pending() { keep(&mut state.reader, cx) } else { None };
        drop(state);
        drop(replaced);
        polled
    }
}

impl FusedStream for GuardedSocket {
    fn is_terminated(&self) -> bool {
        self.shared.lock().socket.as_ref().is_none_or(FusedStream::is_terminated)
    }
}

impl GuardedSocket {
    /// Polls the socket to write.
    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut WebSocket>, &mut Context<'_>) -> Poll<Result<(), axum::Error>>,
    ) -> Poll<Result<(), axum::Error>> {
        let mut state = self.shared.lock();
        let Some(socket) = &mut state.socket else { return Poll::Ready(Err(has_ended())) };
        let polled = poll(Pin::new(socket), cx);
        let replaced = if polled.is_pending() { keep(&mut state.writer, cx) } else { None };
        drop(state);
        drop(replaced);
        polled
    }
}

impl Sink<Message> for GuardedSocket {
    type Error = axum::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        self.poll_write(cx, Sink::poll_ready)
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), axum::Error> {
        match &mut self.shared.lock().socket {
            Some(socket) => socket.start_send_unpin(message),
            None => Err(has_ended()),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        self.poll_write(cx, Sink::poll_flush)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        self.poll_write(cx, Sink::poll_close)
    }
}

fn has_ended() -> axum::Error {
    axum::Error::new(io::Error::new(
        io::ErrorKind::BrokenPipe,
        "the WebSocket is closed: the key of its caller has ended, or its handler has panicked",
    ))
}

impl Drop for GuardedSocket {
    fn drop(&mut self) {
        self.shared.drop_socket();
    }
}

impl fmt::Debug for GuardedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedSocket").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}
