//! The server of the key set.

use std::{
    convert::Infallible,
    future,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};

use super::{KeySetAnswer, Shared};

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this future, and so are the connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(move |_: Request<Incoming>| answer(Arc::clone(&shared)));
                    // A client that hangs up is no error of the server.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(shared: Arc<Shared>) -> Result<Response<Full<Bytes>>, Infallible> {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let answer = shared.answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let response = Response::builder();
    let response = match answer {
        KeySetAnswer::Keys => {
            response.header(header::CONTENT_TYPE, "application/json").body(Full::from(shared.jwks()))
        }
        KeySetAnswer::Text(text) => response.body(Full::from(text)),
        KeySetAnswer::Status(status) => response.status(status).body(Full::default()),
        KeySetAnswer::Redirect(url) => {
            response.status(302).header(header::LOCATION, url).body(Full::default())
        }
        KeySetAnswer::Hang => future::pending().await,
    };
    Ok(response.unwrap())
}
