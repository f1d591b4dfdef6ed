//! A body that is ended when its caller has ended.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tollgate_core::denial::Denial;

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

impl<B> Watched<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    /// Gives up the watch if the inner body has ended, or its size is known.
    fn keep_watch_of_stream(self: Pin<&mut Self>) {
        let this = self.project();
        if this.watch.is_some()
            && !this.body.as_ref().get_ref().as_ref().is_some_and(|body| !body.has_ended() && is_stream(body))
        {
            *this.watch = None;
        }
    }

    /// Ends the stream.
    #[cold]
    fn end(self: Pin<&mut Self>, watch: Watch, denial: &Denial) {
        let mut this = self.project();
        this.body.set(None);
        *this.last = watch.end_stream(denial);
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
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.as_mut().keep_watch_of_stream();
        // First: nothing is sent after the end.
        if let Some((watch, denial)) = Watch::take_ended(self.as_mut().project().watch) {
            self.as_mut().end(*watch, &denial);
        }
        let mut this = self.as_mut().project();
        if let Some(body) = this.body.as_mut().as_pin_mut() {
            if let Poll::Ready(frame) = body.poll_frame(cx) {
                match (frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()), &mut *this.watch) {
                    (Some(data), Some(watch)) => watch.see_data(data),
                    (Some(_), None) => {}
                    (None, watch) => *watch = None,
                }
                return Poll::Ready(frame);
            }
            // It may have ended, and wait for the settlement of its credits.
            self.as_mut().keep_watch_of_stream();
            match Watch::poll_ended(self.as_mut().project().watch, cx) {
                Poll::Ready((watch, denial)) => self.as_mut().end(*watch, &denial),
                Poll::Pending => return Poll::Pending,
            }
        }
        let last = self.project().last.take();
        Poll::Ready(last.map(|frame| Ok(frame.map_data(Into::into))))
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
