//! Callers that send requests and hang up before they have an answer.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Uri};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::hosts::{request, within};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::How;

/// A caller that hangs up.
pub(super) struct Caller {
    how: How,
    server: SocketAddr,
    http2: Option<http2::SendRequest<Full<Bytes>>>,
}

impl Caller {
    pub(super) fn new(how: How, server: SocketAddr) -> Self {
        Self { how, server, http2: None }
    }

    /// Sends a request with this key, and hangs up after this time.
    pub(super) async fn hang_up(&mut self, key: &str, after: Duration) {
        match self.how {
            How::Closes => {
                let mut stream = within(TcpStream::connect(self.server)).await.unwrap();
                let head = format!("GET / HTTP/1.1\r\nhost: {}\r\nx-api-key: {key}\r\n\r\n", self.server);
                stream.write_all(head.as_bytes()).await.unwrap();
                sleep(after).await;
            }
            How::Resets => {
                let mut sender = self.sender().await;
                let mut request = request(Method::GET, "/", Some(key));
                *request.uri_mut() = Uri::try_from(format!("http://{}/", self.server)).unwrap();
                // Dropped before its response, a request resets its stream.
                let answered = timeout(after, sender.send_request(request)).await;
                if !matches!(answered, Ok(Err(_))) {
                    self.http2 = Some(sender);
                }
            }
        }
    }

    /// The HTTP/2 connection, or a new one if the server has closed it.
    async fn sender(&mut self) -> http2::SendRequest<Full<Bytes>> {
        if let Some(mut sender) = self.http2.take()
            && within(sender.ready()).await.is_ok()
        {
            return sender;
        }
        let stream = TokioIo::new(within(TcpStream::connect(self.server)).await.unwrap());
        let (sender, connection) = within(http2::handshake(TokioExecutor::new(), stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

/// Several callers that hang up, again and again: some hundred requests a second.
pub(super) struct Flood {
    is_over: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    callers: JoinSet<()>,
}

const CALLERS: u64 = 8;

impl Flood {
    /// Begins. Each request has a key of its own, which `key` makes of the request's number.
    pub(super) fn start(how: How, server: SocketAddr, key: fn(u64) -> String) -> Self {
        let (is_over, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (is_over, requests) = (Arc::clone(&is_over), Arc::clone(&requests));
            callers.spawn(async move {
                let mut caller = Caller::new(how, server);
                while !is_over.load(Ordering::Relaxed) {
                    let number = requests.fetch_add(1, Ordering::Relaxed);
                    // Between 1 and 4 ms.
                    let after = Duration::from_micros(1_000 + number * 7_919 % 3_000);
                    caller.hang_up(&key(number), after).await;
                    sleep(Duration::from_millis(5)).await;
                }
            });
        }
        Self { is_over, requests, callers }
    }

    /// Waits until this many requests have been sent since the start.
    pub(super) async fn reaches(&self, requests: u64) {
        within(async {
            while self.requests.load(Ordering::Relaxed) < requests {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Ends, and returns the number of requests.
    pub(super) async fn stop(mut self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap();
        }
        self.requests.load(Ordering::Relaxed)
    }
}
