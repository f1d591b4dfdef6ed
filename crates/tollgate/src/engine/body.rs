//! The body of a response from behind gates.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use super::meter::Meter;

pin_project! {
    /// The body of a response from behind gates: the inner service's body `B` as it is, or a refusal's.
    ///
    /// Nothing is boxed, and nothing is asked of `B` but that it is a body whose data can be made from [`Bytes`].
    pub struct Body<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B> {
        Inner {
            #[pin]
            body: B,
        },
        // Its bytes cost something.
        Metered {
            #[pin]
            body: B,
            meter: Box<Meter>,
        },
        // Empty once the bytes were given out.
        Refusal { bytes: Bytes },
        MeteredRefusal { refusal: Box<MeteredRefusal> },
    }
}

/// A refusal whose bytes cost something. Boxed, since every body has room for whatever a body may be.
struct MeteredRefusal {
    // Empty once they were given out.
    bytes: Bytes,
    meter: Box<Meter>,
}

impl<B> Body<B> {
    #[inline]
    pub(super) fn inner(body: B, meter: Option<Box<Meter>>) -> Self {
        let kind = match meter {
            None => Kind::Inner { body },
            Some(meter) => Kind::Metered { body, meter },
        };
        Self { kind }
    }

    pub(super) fn refusal(bytes: Bytes, meter: Option<Box<Meter>>) -> Self {
        let kind = match meter {
            None => Kind::Refusal { bytes },
            Some(meter) => Kind::MeteredRefusal { refusal: Box::new(MeteredRefusal { bytes, meter }) },
        };
        Self { kind }
    }
}

impl<B> Default for Body<B> {
    /// An empty body.
    fn default() -> Self {
        Self::refusal(Bytes::new(), None)
    }
}

impl<B> From<Bytes> for Body<B> {
    /// The body of a refusal of the application's own.
    fn from(bytes: Bytes) -> Self {
        Self::refusal(bytes, None)
    }
}

impl<B> http_body::Body for Body<B>
where
    B: http_body::Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.project().kind.project() {
            KindProjection::Inner { body } => body.poll_frame(context),
            KindProjection::Metered { body, meter } => {
                // A body that has ended is not asked again while its end waits: that may panic.
                if !meter.has_ended()
                    && let Some(frame) = ready!(body.poll_frame(context))
                {
                    match &frame {
                        Ok(frame) => meter.count(frame.data_ref().map_or(0, Buf::remaining)),
                        // Told at once: it would be lost in a wait.
                        Err(_) => meter.settle(),
                    }
                    return Poll::Ready(Some(frame));
                }
                meter.poll_settled(context).map(|()| None)
            }
            KindProjection::Refusal { bytes } if bytes.is_empty() => Poll::Ready(None),
            KindProjection::Refusal { bytes } => {
                let data = std::mem::take(bytes);
                Poll::Ready(Some(Ok(Frame::data(data.into()))))
            }
            KindProjection::MeteredRefusal { refusal } if refusal.bytes.is_empty() => {
                refusal.meter.poll_settled(context).map(|()| None)
            }
            KindProjection::MeteredRefusal { refusal } => {
                let data = std::mem::take(&mut refusal.bytes);
                refusal.meter.count(data.len());
                Poll::Ready(Some(Ok(Frame::data(data.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            // Whoever asks stops reading if it is, and nobody would wait for what the limiters answer.
            Kind::Metered { body, meter } => body.is_end_stream() && meter.is_settled(),
            Kind::Refusal { bytes } => bytes.is_empty(),
            Kind::MeteredRefusal { refusal } => refusal.bytes.is_empty() && refusal.meter.is_settled(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } | Kind::Metered { body, .. } => body.size_hint(),
            Kind::Refusal { bytes } => SizeHint::with_exact(bytes.remaining() as u64),
            Kind::MeteredRefusal { refusal } => SizeHint::with_exact(refusal.bytes.remaining() as u64),
        }
    }
}

impl<B> fmt::Debug for Body<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Inner { .. } | Kind::Metered { .. } => "Body(inner)",
            Kind::Refusal { .. } | Kind::MeteredRefusal { .. } => "Body(refusal)",
        })
    }
}
