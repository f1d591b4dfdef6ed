//! A body at whose end its bytes are charged, credits are settled, and places of requests in flight are freed.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tollgate_core::{
    answer::{Answer, Pending},
    in_flight::Place,
};

use super::{
    deferred::{DeferredCharge, log_failure},
    watch::Watch,
};
use crate::layers::credits::OpenUntilEnd;

/// What waits for the end of a body.
#[derive(Default)]
pub(super) struct UntilEnd {
    pub(super) charges: Vec<DeferredCharge>,
    pub(super) places: Vec<Place>,
    pub(super) credits: Option<OpenUntilEnd>,
    // Ends the body before its end.
    pub(super) watch: Option<Box<Watch>>,
}

impl UntilEnd {
    pub(super) fn is_empty(&self) -> bool {
        self.charges.is_empty() && self.places.is_empty() && self.credits.is_none() && self.watch.is_none()
    }
}

pin_project! {
    /// A body whose bytes are counted. They are charged, its credits are settled, and its places are freed, when it has ended, or when it
    /// is dropped before its end.
    pub(super) struct Metered<B> {
        #[pin]
        body: B,
        meter: Meter,
        // The frame that ends the body, while it waits for the settlement of its credits.
        last: Option<Frame<Bytes>>,
    }
}

impl<B> Metered<B> {
    pub(super) fn new(body: B, until_end: UntilEnd) -> Self {
        let UntilEnd { charges, places, credits, watch: _ } = until_end;
        let is_charged = charges.is_empty();
        let meter = Meter {
            bytes: 0,
            charges,
            pending: Mutex::default(),
            is_charged,
            has_ended: false,
            places,
            credits,
        };
        Self { body, meter, last: None }
    }
}

impl<B> Metered<B>
where
    B: Body,
{
    /// Whether the inner body has ended. Its last frame, or its end, may still wait for the settlement of its credits and for limiters.
    pub(super) fn has_ended(&self) -> bool {
        self.meter.has_ended || self.last.is_some() || self.body.is_end_stream()
    }
}

impl<B> Body for Metered<B>
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
        ready!(this.meter.poll_settled(cx));
        if let Some(last) = this.last.take() {
            return Poll::Ready(Some(Ok(last.map_data(Into::into))));
        }
        if this.meter.has_ended {
            ready!(this.meter.poll_charged(cx));
            return Poll::Ready(None);
        }
        match ready!(this.body.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => {
                this.meter.count(frame.data_ref().map_or(0, Buf::remaining));
                if let Some(credits) = &mut this.meter.credits {
                    credits.see(&frame, this.meter.bytes, this.body.size_hint().exact() == Some(0));
                }
                // A server that sees the end of the body does not poll it again.
                this.meter.reach_end(this.body.is_end_stream());
                if this.meter.poll_settled(cx).is_pending() {
                    *this.last = Some(frame.map_data(|mut data| data.copy_to_bytes(data.remaining())));
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                if let Some(credits) = &this.meter.credits {
                    credits.break_off();
                }
                Poll::Ready(Some(Err(error)))
            }
            None => {
                this.meter.has_ended = true;
                this.meter.settle_credits();
                this.meter.charge();
                ready!(this.meter.poll_settled(cx));
                ready!(this.meter.poll_charged(cx));
                Poll::Ready(None)
            }
        }
    }

    /// Only once the bytes are charged: a server stops reading at the end, and would not wait for the limiters. A body without
    /// any bytes has ended at once all the same: over HTTP/2 the headers then end the stream, by which gRPC tells a status
    /// without a message from a lost one.
    fn is_end_stream(&self) -> bool {
        self.meter.reach_end(self.body.is_end_stream()) && self.last.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.last {
            Some(last) => SizeHint::with_exact(last.data_ref().map_or(0, Buf::remaining) as u64),
            None => self.body.size_hint(),
        }
    }
}

struct Meter {
    bytes: u64,
    // Empty once they are made.
    charges: Vec<DeferredCharge>,
    // Limiters that answer later. Never locked: the mutex makes the futures `Sync`, since bodies may be shared.
    pending: Mutex<Vec<Pending<()>>>,
    is_charged: bool,
    // Whether the body was read to its end.
    has_ended: bool,
    places: Vec<Place>,
    credits: Option<OpenUntilEnd>,
}

impl Meter {
    fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Settles credits if the inner body has ended, and frees the places if the reader of the body sees its end. Returns whether the reader
    /// does.
    fn reach_end(&self, has_ended: bool) -> bool {
        if has_ended {
            self.settle_credits();
        }
        let is_at_end = has_ended && (self.is_charged || self.bytes == 0);
        if is_at_end {
            self.places.iter().for_each(Place::free);
        }
        is_at_end
    }

    /// Settles credits at the end of the inner body. They wait for no limiter: what a limiter answers does not change their cost.
    fn settle_credits(&self) {
        if let Some(credits) = &self.credits {
            credits.complete();
        }
    }

    /// Waits for the first try to settle credits, if they are being settled.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.credits {
            Some(credits) => credits.poll_settled(cx),
            None => Poll::Ready(()),
        }
    }

    /// Charges the bytes that were read.
    fn charge(&mut self) {
        let pending = self.pending.get_mut().unwrap_or_else(PoisonError::into_inner);
        for charge in self.charges.drain(..) {
            match charge.charge_body(self.bytes) {
                None | Some(Answer::Now(Ok(_))) => {}
                Some(Answer::Now(Err(error))) => log_failure(&error),
                Some(Answer::Later(answer)) => pending.push(Box::pin(async {
                    if let Err(error) = answer.await {
                        log_failure(&error);
                    }
                })),
            }
        }
    }

    /// Waits for limiters that answer later.
    fn poll_charged(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let pending = self.pending.get_mut().unwrap_or_else(PoisonError::into_inner);
        while let Some(answer) = pending.last_mut() {
            ready!(answer.as_mut().poll(cx));
            pending.pop();
        }
        self.is_charged = true;
        self.reach_end(self.has_ended);
        Poll::Ready(())
    }
}

impl Drop for Meter {
    /// A body that is not read to its end is charged for what was read. A limiter that answers later has been asked, and its
    /// answer is dropped.
    fn drop(&mut self) {
        self.charge();
    }
}
