//! A TCP relay in front of an address: a network that fails when a test says so.
//!
//! It forwards bytes. It can [cut](Relay::cut) the line, which both ends notice at once; fall [silent](Relay::silence), which an
//! end notices only by a deadline of its own; or be [slow](Relay::delay).
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// A relay to one address. It ends, and closes all its connections, when this is dropped.
#[derive(Debug)]
pub struct Relay {
    upstream: SocketAddr,
    address: SocketAddr,
    // Bound, but never listening: the port stays reserved while the relay does not listen, and connections to it are refused.
    _port: TcpSocket,
    line: watch::Sender<Line>,
    // The listener and all connections, in one task, so that they end together. None while the line is cut.
    forwarding: Option<JoinHandle<()>>,
}

/// How the line is, which holds for all connections.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    is_silent: bool,
    delays: Delays,
}

#[derive(Clone, Copy, Debug, Default)]
struct Delays {
    to_upstream: Duration,
    from_upstream: Duration,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client, which has connected to the relay.
    ToUpstream,
    /// To the client.
    FromUpstream,
}

impl Relay {
    /// A relay on a free port of the loopback.
    pub fn to(upstream: SocketAddr) -> Self {
        let port = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = port.local_addr().expect("its address");
        let line = watch::Sender::default();
        let mut relay = Self { upstream, address, _port: port, line, forwarding: None };
        relay.mend();
        relay
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of the upstream's, as it is by way of this relay.
    pub fn reroute(&self, url: &str) -> String {
        url.replace(&self.upstream.to_string(), &self.address.to_string())
    }

    /// Closes all connections and refuses new ones, until it is mended. What was on its way is lost.
    pub async fn cut(&mut self) {
        if let Some(forwarding) = self.forwarding.take() {
            forwarding.abort();
            // When it has ended, all that it held is closed.
            let _ = forwarding.await;
        }
    }

    /// Forwards nothing in either direction until it is mended. Connections stay open, new ones are accepted, and bytes that
    /// are sent meanwhile wait. A closed connection is not forwarded either.
    pub fn silence(&mut self) {
        self.line.send_modify(|line| line.is_silent = true);
    }

    /// Forwards again, after a cut or a silence. Delays stay.
    pub fn mend(&mut self) {
        self.line.send_modify(|line| line.is_silent = false);
        if self.forwarding.is_none() {
            let listener = bind(self.address).and_then(|socket| socket.listen(1024)).expect("our own port");
            self.forwarding = Some(tokio::spawn(forward(listener, self.upstream, self.line.subscribe())));
        }
    }

    /// Has bytes that go one way arrive so much later, from now on. Later ones wait for no more than that: it is a
    /// long line, not a narrow one.
    pub fn delay(&mut self, direction: Direction, delay: Duration) {
        self.line.send_modify(|line| match direction {
            Direction::ToUpstream => line.delays.to_upstream = delay,
            Direction::FromUpstream => line.delays.from_upstream = delay,
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(forwarding) = &self.forwarding {
            forwarding.abort();
        }
    }
}

impl Delays {
    fn of(self, direction: Direction) -> Duration {
        match direction {
            Direction::ToUpstream => self.to_upstream,
            Direction::FromUpstream => self.from_upstream,
        }
    }
}

/// A socket that shares its port with the others of this relay.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn forward(listener: TcpListener, upstream: SocketAddr, line: watch::Receiver<Line>) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.expect("a connection");
                connections.push(connect(stream, upstream, line.clone()));
            }
            Some(()) = connections.next() => {}
        }
    }
}

/// One connection, from the other end to the upstream and back.
async fn connect(mut client: TcpStream, upstream: SocketAddr, mut line: watch::Receiver<Line>) {
    until_not_silent(&mut line).await;
    let mut server = TcpStream::connect(upstream).await;
    if let Ok(server) = &mut server {
        // A failure on one side closes both.
        let _ = join(&mut client, server, &line).await;
    }
    // In a silence, the close is not forwarded.
    until_not_silent(&mut line).await;
}

async fn join(
    client: &mut TcpStream,
    server: &mut TcpStream,
    line: &watch::Receiver<Line>,
) -> io::Result<()> {
    // A relay has its delays from the test, and none of its own.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(
        carry(from_client, to_server, Direction::ToUpstream, line.clone()),
        carry(from_server, to_client, Direction::FromUpstream, line.clone()),
    )?;
    Ok(())
}

/// What has been read, and when it is due at the other end. Nothing more comes after an empty one.
struct Parcel {
    due: Instant,
    bytes: Bytes,
}

/// Carries bytes one way. What is on its way waits in a queue, so that a delay holds back nothing behind it.
async fn carry(
    from: impl AsyncRead,
    to: impl AsyncWrite,
    direction: Direction,
    line: watch::Receiver<Line>,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(1024);
    tokio::try_join!(pick_up(from, sender, direction, line.clone()), deliver(receiver, to, line))?;
    Ok(())
}

async fn pick_up(
    from: impl AsyncRead,
    parcels: mpsc::Sender<Parcel>,
    direction: Direction,
    line: watch::Receiver<Line>,
) -> io::Result<()> {
    let mut from = pin!(from);
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(16 * 1024);
        let is_end = from.read_buf(&mut buffer).await? == 0;
        let due = Instant::now() + line.borrow().delays.of(direction);
        // The receiver ends only with an error, which ends this task as well.
        if parcels.send(Parcel { due, bytes: buffer.split().freeze() }).await.is_err() || is_end {
            return Ok(());
        }
    }
}

async fn deliver(
    mut parcels: mpsc::Receiver<Parcel>,
    to: impl AsyncWrite,
    mut line: watch::Receiver<Line>,
) -> io::Result<()> {
    let mut to = pin!(to);
    while let Some(Parcel { due, mut bytes }) = parcels.recv().await {
        sleep_until(due).await;
        while !bytes.is_empty() {
            until_not_silent(&mut line).await;
            tokio::select! {
                biased;
                // Also what is being written stops: the line is looked at before every attempt.
                () = until_silent(&mut line) => {}
                written = to.write_buf(&mut bytes) => { written?; }
            }
        }
    }
    until_not_silent(&mut line).await;
    to.shutdown().await
}

async fn until_not_silent(line: &mut watch::Receiver<Line>) {
    wait_for(line, |line| !line.is_silent).await;
}

async fn until_silent(line: &mut watch::Receiver<Line>) {
    wait_for(line, |line| line.is_silent).await;
}

async fn wait_for(line: &mut watch::Receiver<Line>, condition: impl Fn(&Line) -> bool) {
    // Without the relay there is nothing to wait for: it is about to end this.
    let _ = line.wait_for(condition).await;
}
