//! A body that is ended when its caller has ended.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{metered::Metered, watch::Watch};

pin_project! {
    /// The body of a stream. When the caller has ended, the inner body is dropped, and the last frame is sent.
    ///
    /// A body whose size is known is not a stream: it goes on.
    pub(super) struct Watched<B> {
        // `None` once the stream is ended. Its places, charges and credits end with it.
        #[pin]
        body: Option<Metered<B>>,
        // `None` once the inner body has ended.
        watch: Option<Box<Watch>>,
        // The frame that ends the stream.
        last: Option<Frame<Bytes>>,
    }
}

impl<B> Watched<B> {
    pub(super) fn new(body: Metered<B>, watch: Box<Watch>) -> Self {
        Self { body: Some(body), watch: Some(watch), last: None }
    }
}

impl<B> Body for Watched<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let is_stream = this.body.as_ref().get_ref().as_ref().is_some_and(is_stream);
        // First: nothing is sent after the end.
        if is_stream && let Poll::Ready((watch, denial)) = Watch::poll(this.watch, cx) {
            this.body.set(None);
            *this.last = watch.end_stream(&denial);
        }
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(this.last.take().map(|frame| Ok(frame.map_data(Into::into))));
        };
        let frame = ready!(body.poll_frame(cx));
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            *this.watch = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Some(body) => body.is_end_stream(),
            None => self.last.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.body, &self.last) {
            // It may be cut at any time, and its last frame is added then.
            (Some(body), _) if is_stream(body) => SizeHint::default(),
            (Some(body), _) => body.size_hint(),
            (None, Some(last)) => {
                SizeHint::with_exact(last.data_ref().map_or(0, |data| data.remaining() as u64))
            }
            (None, None) => SizeHint::with_exact(0),
        }
    }
}

fn is_stream<B: Body<Data: From<Bytes>>>(body: &Metered<B>) -> bool {
    body.size_hint().exact().is_none()
}
