//! The reservation of one request, from the gate to the end of the response's body.

use std::{
    fmt,
    future::Future as _,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    thread,
};

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_LENGTH, HeaderName},
};
use http_body::Frame;
use tollgate_core::credits::{ReservationId, SettleAction};

use super::{
    CreditMeter,
    settle::{FirstTry, PayingAccount},
};
use crate::respond::ResponseHead;

/// A reservation that its request holds. It is settled once: as [complete](Self::complete), [broken off](Self::break_off) or released. It
/// is broken off when it is dropped: the caller has hung up.
pub(crate) struct OpenReservation {
    payer: Arc<PayingAccount>,
    id: ReservationId,
    meter: CreditMeter,
    // Whether the body of a successful response is not read.
    ends_with_head: bool,
    is_settled: AtomicBool,
    // The settlement, until the response waits for it.
    first_try: Mutex<Option<FirstTry>>,
}

/// What the head of a response decides about a reservation.
pub(crate) enum AtHead {
    /// It is settled. The response waits for the first try, if the backend has not answered at once.
    Settled(Option<FirstTry>),
    /// The body decides.
    Open(OpenUntilEnd),
}

impl OpenReservation {
    pub(super) fn new(
        payer: Arc<PayingAccount>,
        id: ReservationId,
        meter: CreditMeter,
        ends_with_head: bool,
    ) -> Self {
        Self {
            payer,
            id,
            meter,
            ends_with_head,
            is_settled: AtomicBool::new(false),
            first_try: Mutex::default(),
        }
    }

    pub(super) fn meter(&self) -> &CreditMeter {
        &self.meter
    }

    /// Settles what the response's head decides.
    pub(crate) fn at_head(self: Arc<Self>, head: ResponseHead<'_>) -> AtHead {
        if head.denial().is_some() || head.status.as_u16() >= 400 || has_failed(head.headers) {
            self.release();
            return AtHead::Settled(self.take_first_try());
        }
        if let Some(actual) = self.payer.actual(head) {
            self.meter.set(actual);
        }
        // RFC 9112 section 6.3: such a response ends with its head.
        let has_no_body = head.status.is_informational()
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let content_length = content_length(head.headers);
        if self.ends_with_head || has_no_body || content_length == Some(0) {
            return AtHead::Settled(self.charge());
        }
        AtHead::Open(OpenUntilEnd { content_length, has_all: false, first_try: None, hold: self })
    }

    /// Charges what a success costs. The caller waits for the first try, if the backend has not answered at once.
    pub(crate) fn charge(&self) -> Option<FirstTry> {
        self.complete();
        self.take_first_try()
    }

    /// The request has succeeded: charges what its handler has reported, else the estimate.
    fn complete(&self) {
        let actual = self.meter.reported().unwrap_or_else(|| self.meter.reserved());
        self.settle(self.payer.commit(actual));
    }

    /// The response was not read to its end: charges what its handler has reported, else nothing.
    pub(crate) fn break_off(&self) {
        let action = self.meter.reported().map_or(SettleAction::Release, |actual| self.payer.commit(actual));
        self.settle(action);
    }

    /// The request has failed: charges nothing.
    pub(crate) fn release(&self) {
        self.settle(SettleAction::Release);
    }

    fn settle(&self, action: SettleAction) {
        if !self.is_settled.swap(true, Ordering::AcqRel) {
            *self.first_try.lock().unwrap_or_else(PoisonError::into_inner) =
                self.payer.settle(self.id, action);
        }
    }

    fn take_first_try(&self) -> Option<FirstTry> {
        self.first_try.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for OpenReservation {
    fn drop(&mut self) {
        // A service that panics when it is called takes the hold with it.
        if thread::panicking() {
            self.release();
        } else {
            self.break_off();
        }
    }
}

/// A reservation that waits for the end of a body. If it is dropped before that, it is broken off.
pub(crate) struct OpenUntilEnd {
    hold: Arc<OpenReservation>,
    content_length: Option<u64>,
    // Whether a server has no more bytes to read.
    has_all: bool,
    // The settlement, while the body waits for it.
    first_try: Option<FirstTry>,
}

impl OpenUntilEnd {
    /// Sees a frame of the body. `bytes`: of all frames so far. `is_last`: whether the body says that no bytes follow.
    pub(crate) fn see<D>(&mut self, frame: &Frame<D>, bytes: u64, is_last: bool) {
        if frame.is_data() {
            // Over HTTP/1, a server that has written as many bytes drops the body. Trailers may still follow, so it is not settled yet.
            self.has_all = is_last || self.content_length.is_some_and(|length| bytes >= length);
        } else if let Some(trailers) = frame.trailers_ref() {
            if has_failed(trailers) {
                self.hold.break_off();
            } else {
                self.hold.complete();
            }
        }
    }

    /// The body has ended.
    pub(crate) fn complete(&self) {
        self.hold.complete();
    }

    /// The body has failed.
    pub(crate) fn break_off(&self) {
        self.hold.break_off();
    }

    /// Waits for the first try to settle, if it has begun.
    pub(crate) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.first_try = self.first_try.take().or_else(|| self.hold.take_first_try());
        if let Some(first_try) = &mut self.first_try {
            ready!(Pin::new(first_try).poll(cx));
            self.first_try = None;
        }
        Poll::Ready(())
    }
}

impl Drop for OpenUntilEnd {
    fn drop(&mut self) {
        if self.has_all {
            self.hold.complete();
        } else {
            self.hold.break_off();
        }
    }
}

/// Whether a gRPC status other than 0 is among these headers or trailers.
fn has_failed(headers: &HeaderMap) -> bool {
    static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

    headers.get(&GRPC_STATUS).is_some_and(|status| status.as_bytes() != b"0")
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl fmt::Debug for OpenReservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenReservation").field("id", &self.id).finish_non_exhaustive()
    }
}
