//! Bodies that can be sent again.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// What was read of a request's body `B`, followed by the rest of the body, if it has not ended. See [`Retries::new`](crate::Retries::new).
pub struct ReplayBody<B: Body> {
    pieces: Arc<[Piece]>,
    next: usize,
    rest: Rest<B>,
    // Whether the body that was read had a known length. HTTP/1 sends it, so it is kept.
    is_sized: bool,
}

/// A frame.
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// What was not read.
enum Rest<B: Body> {
    Nothing,
    // Is returned once.
    Error(Option<B::Error>),
    Body(B),
}

/// A body that was read to its end.
pub(super) struct ReadBody<B> {
    pieces: Arc<[Piece]>,
    is_sized: bool,
    body: PhantomData<fn() -> B>,
}

/// A body that is always ready, with empty frames, must not be read forever.
const MAX_PIECES: usize = 1024;

impl<B: Body<Data = Bytes> + Unpin> ReplayBody<B> {
    /// Reads `body` while it is ready, up to `max_bytes`. The second value is what was read, if that is all.
    pub(super) fn read(mut body: B, max_bytes: usize) -> (Self, Option<ReadBody<B>>) {
        // Nothing waits for this poll. The next poll, by the inner service, registers its own waker.
        let mut cx = Context::from_waker(Waker::noop());
        let is_sized = body.size_hint().exact().is_some();
        let mut pieces = Vec::new();
        let mut bytes = 0_usize;
        let rest = loop {
            if body.is_end_stream() {
                break Rest::Nothing;
            }
            let at_least = as_u64(bytes).saturating_add(body.size_hint().lower());
            if at_least > as_u64(max_bytes) || pieces.len() >= MAX_PIECES {
                break Rest::Body(body);
            }
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Pending => break Rest::Body(body),
                Poll::Ready(None) => break Rest::Nothing,
                Poll::Ready(Some(Err(error))) => break Rest::Error(Some(error)),
                Poll::Ready(Some(Ok(frame))) => {
                    let piece = Piece::from(frame);
                    bytes = bytes.saturating_add(piece.len());
                    pieces.push(piece);
                }
            }
        };
        let is_complete = matches!(rest, Rest::Nothing) && bytes <= max_bytes;
        let pieces = Arc::from(pieces);
        let read = is_complete.then(|| ReadBody { pieces: Arc::clone(&pieces), is_sized, body: PhantomData });
        (Self { pieces, next: 0, rest, is_sized }, read)
    }
}

// Of its fields, only the body is ever pinned.
impl<B: Body + Unpin> Unpin for ReplayBody<B> {}

impl<B: Body> ReadBody<B> {
    pub(super) fn replay(&self) -> ReplayBody<B> {
        ReplayBody { pieces: self.pieces.clone(), next: 0, rest: Rest::Nothing, is_sized: self.is_sized }
    }
}

impl From<Frame<Bytes>> for Piece {
    fn from(frame: Frame<Bytes>) -> Self {
        match frame.into_data() {
            Ok(data) => Self::Data(data),
            // `http-body` has no third kind of frame.
            Err(frame) => Self::Trailers(frame.into_trailers().unwrap_or_default()),
        }
    }
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            // Name, value, and 32 bytes each, as HTTP/2 counts headers (RFC 9113 section 6.5.2).
            Self::Trailers(trailers) => {
                trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
            }
        }
    }

    fn to_frame(&self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data.clone()),
            Self::Trailers(trailers) => Frame::trailers(trailers.clone()),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if let Some(piece) = this.pieces.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Ok(piece.to_frame())));
        }
        match &mut this.rest {
            Rest::Nothing => Poll::Ready(None),
            Rest::Error(error) => Poll::Ready(error.take().map(Err)),
            Rest::Body(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.pieces.len()
            && match &self.rest {
                Rest::Nothing | Rest::Error(None) => true,
                Rest::Error(Some(_)) => false,
                Rest::Body(body) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.pieces.iter().skip(self.next).map(|piece| match piece {
            Piece::Data(data) => as_u64(data.len()),
            Piece::Trailers(_) => 0,
        });
        let left = left.fold(0, u64::saturating_add);
        match &self.rest {
            Rest::Nothing if self.is_sized => SizeHint::with_exact(left),
            Rest::Nothing | Rest::Error(_) => at_least(left, None),
            Rest::Body(body) => {
                let rest = body.size_hint();
                at_least(
                    left.saturating_add(rest.lower()),
                    rest.upper().and_then(|upper| upper.checked_add(left)),
                )
            }
        }
    }
}

fn at_least(lower: u64, upper: Option<u64>) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_lower(lower);
    if let Some(upper) = upper {
        hint.set_upper(upper);
    }
    hint
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

impl<B: Body> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplayBody(..)")
    }
}

#[cfg(test)]
mod tests;
