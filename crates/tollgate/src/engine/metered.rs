//! A body whose bytes are counted, and charged for when it has ended.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tollgate_core::answer::{Answer, Pending};

use super::settlement::{self, DeferredCharge};

pin_project! {
    /// A body whose bytes are counted. What they cost is charged when it has ended, or when it is dropped half-way.
    pub(super) struct Metered<B> {
        #[pin]
        body: B,
        meter: Meter,
    }
}

impl<B> Metered<B> {
    pub(super) fn new(body: B, settlements: Vec<DeferredCharge>) -> Self {
        let meter = Meter { bytes: 0, settlements, pending: Mutex::default(), is_settled: false };
        Self { body, meter }
    }
}

impl<B: Body> Body for Metered<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        if this.meter.has_ended() {
            ready!(this.meter.poll_settled(context));
            return Poll::Ready(None);
        }
        match ready!(this.body.poll_frame(context)) {
            Some(Ok(frame)) => {
                this.meter.count(frame.data_ref().map_or(0, Buf::remaining));
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                this.meter.settle();
                ready!(this.meter.poll_settled(context));
                Poll::Ready(None)
            }
        }
    }

    /// Whoever asks stops reading if it has, and nobody would wait for what the limiters answer. A body without any bytes says so all
    /// the same: over HTTP/2 the headers then end the stream, by which gRPC tells a status without a message from one that got lost.
    fn is_end_stream(&self) -> bool {
        (self.meter.is_settled || self.meter.bytes == 0) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Meter {
    bytes: u64,
    // None are left once they are charged.
    settlements: Vec<DeferredCharge>,
    // What limiters take their time for. Never locked: only that makes it something that a body may hold, since bodies may
    // be shared.
    pending: Mutex<Vec<Pending<()>>>,
    is_settled: bool,
}

impl Meter {
    fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Whether the body was read to its end.
    fn has_ended(&self) -> bool {
        self.settlements.is_empty()
    }

    /// Charges for what was read.
    fn settle(&mut self) {
        let pending = self.pending.get_mut().unwrap_or_else(PoisonError::into_inner);
        for settlement in self.settlements.drain(..) {
            match settlement.settle_body(self.bytes) {
                None | Some(Answer::Now(Ok(_))) => {}
                Some(Answer::Now(Err(error))) => settlement::report(&error),
                Some(Answer::Later(answer)) => pending.push(Box::pin(async {
                    if let Err(error) = answer.await {
                        settlement::report(&error);
                    }
                })),
            }
        }
    }

    /// Waits for limiters that take their time.
    fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let pending = self.pending.get_mut().unwrap_or_else(PoisonError::into_inner);
        while let Some(answer) = pending.last_mut() {
            ready!(answer.as_mut().poll(context));
            pending.pop();
        }
        self.is_settled = true;
        Poll::Ready(())
    }
}

impl Drop for Meter {
    /// A body that nobody reads to its end is charged for what was read. Nobody is left to wait for a limiter that answers later;
    /// it has been asked.
    fn drop(&mut self) {
        self.settle();
    }
}
