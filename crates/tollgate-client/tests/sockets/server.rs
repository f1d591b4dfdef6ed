//! A server that answers by a script.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    serve::ListenerExt,
};
use http::{HeaderMap, Response, Uri};
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tollgate_client::Origin;

/// A server on a port of its own, which ends with its runtime. It gives the responses of the script one after the other, then 200.
#[derive(Clone)]
pub(crate) struct Server {
    authority: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Vec<Response<Body>>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Server {
    pub(crate) async fn answering(script: impl IntoIterator<Item = Response<Body>>) -> Self {
        Self::before(script, Router::new().fallback(async || "done")).await
    }

    /// When the script is used up, `app` answers.
    pub(crate) async fn before(script: impl IntoIterator<Item = Response<Body>>, app: Router) -> Self {
        let mut script: Vec<_> = script.into_iter().collect();
        script.reverse();
        let shared = Arc::new(Shared { script: Mutex::new(script), ..Shared::default() });
        let state = shared.clone();
        let app =
            app.layer(axum::middleware::from_fn(move |request: Request, next: axum::middleware::Next| {
                let state = state.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let seen =
                        Seen { uri: head.uri.clone(), headers: head.headers.clone(), body: body.clone() };
                    state.seen.lock().unwrap().push(seen);
                    let scripted = state.script.lock().unwrap().pop();
                    match scripted {
                        Some(response) => response,
                        None => next.run(Request::from_parts(head, body.into())).await,
                    }
                }
            }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let counted = shared.clone();
        let listener = listener.tap_io(move |_| {
            counted.connections.fetch_add(1, Ordering::Relaxed);
        });
        tokio::spawn(axum::serve(listener, app).into_future());
        Self { authority, shared }
    }

    pub(crate) fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority)
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::dangerous_allow_plaintext(self.uri("")).unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

pub(crate) fn retry_after(seconds: &str, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(429).header("retry-after", seconds).body(body.into()).unwrap()
}
