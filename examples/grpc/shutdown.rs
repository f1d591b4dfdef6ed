//! Ends open calls when the service shuts down.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use support::Shutdown;
use tonic::Status;

/// Ends the open calls of a gRPC service with UNAVAILABLE when a shutdown is requested. Clients then connect again, to another
/// instance.
pub(crate) async fn end_calls(State(mut shutdown): State<Shutdown>, call: Request, next: Next) -> Response {
    tokio::select! {
        biased;
        response = next.run(call) => response.map(|body| {
            Body::new(UntilShutdown { body, requested: Box::pin(async move { shutdown.requested().await }) })
        }),
        () = shutdown.requested() => status().into_http(),
    }
}

fn status() -> Status {
    Status::unavailable("The service shuts down.")
}

/// A body of a gRPC response that ends, with a status in its trailers, when a shutdown is requested.
struct UntilShutdown {
    body: Body,
    requested: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl http_body::Body for UntilShutdown {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if self.requested.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.body = Body::empty();
        let mut trailers = HeaderMap::new();
        let written = status().add_header(&mut trailers);
        Poll::Ready(Some(written.map(|()| Frame::trailers(trailers)).map_err(axum::Error::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
