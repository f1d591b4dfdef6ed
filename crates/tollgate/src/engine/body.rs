//! The body of a response from behind gates.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{metered::Metered, settlement::DeferredCharge};

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
        // Its bytes cost something. Boxed, or bodies behind several layers would have room for as many meters.
        Metered { body: Pin<Box<Metered<B>>> },
        // Empty once the bytes were given out.
        Refusal { bytes: Bytes },
        // A refusal whose bytes cost something.
        MeteredRefusal { body: Pin<Box<Metered<Body<String>>>> },
    }
}

impl<B> Body<B> {
    #[inline]
    pub(super) fn inner(body: B) -> Self {
        Self { kind: Kind::Inner { body } }
    }

    #[cold]
    pub(super) fn metered(body: B, settlements: Vec<DeferredCharge>) -> Self {
        Self { kind: Kind::Metered { body: Box::pin(Metered::new(body, settlements)) } }
    }

    pub(super) fn refusal(bytes: Bytes) -> Self {
        Self { kind: Kind::Refusal { bytes } }
    }

    #[cold]
    pub(super) fn metered_refusal(bytes: Bytes, settlements: Vec<DeferredCharge>) -> Self {
        let body = Box::pin(Metered::new(Body::refusal(bytes), settlements));
        Self { kind: Kind::MeteredRefusal { body } }
    }
}

impl<B> Default for Body<B> {
    /// An empty body.
    fn default() -> Self {
        Self::refusal(Bytes::new())
    }
}

impl<B> From<Bytes> for Body<B> {
    /// The body of a refusal of the application's own.
    fn from(bytes: Bytes) -> Self {
        Self::refusal(bytes)
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
            KindProjection::Metered { body } => body.as_mut().poll_frame(context),
            KindProjection::Refusal { bytes } if bytes.is_empty() => Poll::Ready(None),
            KindProjection::Refusal { bytes } => {
                let data = std::mem::take(bytes);
                Poll::Ready(Some(Ok(Frame::data(data.into()))))
            }
            KindProjection::MeteredRefusal { body } => {
                let frame = ready!(body.as_mut().poll_frame(context));
                Poll::Ready(frame.map(|Ok(frame)| Ok(frame.map_data(Into::into))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Metered { body } => body.is_end_stream(),
            Kind::Refusal { bytes } => bytes.is_empty(),
            Kind::MeteredRefusal { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Metered { body } => body.size_hint(),
            Kind::Refusal { bytes } => SizeHint::with_exact(bytes.remaining() as u64),
            Kind::MeteredRefusal { body } => body.size_hint(),
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
