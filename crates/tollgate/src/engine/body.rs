//! The body of a response from behind gates.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    deferred::DeferredCharge,
    metered::{Metered, UntilEnd},
    watched::Watched,
};

pin_project! {
    /// The body of a response from behind gates: the inner service's body `B` as it is, or a refusal's.
    ///
    /// Nothing is boxed in the usual case. `B` only has to be a body whose data can be made from [`Bytes`].
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
        // The inner body, whose bytes are charged, or which holds a place or credits. Boxed, because a body behind several layers would otherwise
        // have room for as many meters.
        Metered { body: Pin<Box<Metered<B>>> },
        // The same, of a stream that is ended when its caller has ended.
        Watched { body: Pin<Box<Watched<B>>> },
        // Empty once the bytes are given out.
        Refusal { bytes: Bytes },
        // A refusal whose bytes are charged.
        MeteredRefusal { body: Pin<Box<Metered<Body<String>>>> },
    }
}

impl<B> Body<B> {
    #[inline]
    pub(super) fn inner(body: B) -> Self {
        Self { kind: Kind::Inner { body } }
    }

    /// The inner service's body, and what waits for its end.
    pub(super) fn inner_until_end(body: B, mut until_end: UntilEnd) -> Self {
        if until_end.is_empty() {
            return Self::inner(body);
        }
        let watch = until_end.watch.take();
        let metered = Metered::new(body, until_end);
        let kind = match watch {
            None => Kind::Metered { body: Box::pin(metered) },
            Some(watch) => Kind::Watched { body: Box::pin(Watched::new(metered, watch)) },
        };
        Self { kind }
    }

    pub(super) fn refusal(bytes: Bytes) -> Self {
        Self { kind: Kind::Refusal { bytes } }
    }

    /// The body of a refusal, whose bytes are charged unless `charges` is empty.
    pub(super) fn refusal_charged_by(bytes: Bytes, charges: Vec<DeferredCharge>) -> Self {
        if charges.is_empty() {
            return Self::refusal(bytes);
        }
        let body = Box::pin(Metered::new(Body::refusal(bytes), UntilEnd { charges, ..UntilEnd::default() }));
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
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.project().kind.project() {
            KindProjection::Inner { body } => body.poll_frame(cx),
            KindProjection::Metered { body } => body.as_mut().poll_frame(cx),
            KindProjection::Watched { body } => body.as_mut().poll_frame(cx),
            KindProjection::Refusal { bytes } if bytes.is_empty() => Poll::Ready(None),
            KindProjection::Refusal { bytes } => {
                let data = std::mem::take(bytes);
                Poll::Ready(Some(Ok(Frame::data(data.into()))))
            }
            KindProjection::MeteredRefusal { body } => {
                let frame = ready!(body.as_mut().poll_frame(cx));
                Poll::Ready(frame.map(|Ok(frame)| Ok(frame.map_data(Into::into))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Metered { body } => body.is_end_stream(),
            Kind::Watched { body } => body.is_end_stream(),
            Kind::Refusal { bytes } => bytes.is_empty(),
            Kind::MeteredRefusal { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Metered { body } => body.size_hint(),
            Kind::Watched { body } => body.size_hint(),
            Kind::Refusal { bytes } => SizeHint::with_exact(bytes.remaining() as u64),
            Kind::MeteredRefusal { body } => body.size_hint(),
        }
    }
}

impl<B> fmt::Debug for Body<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Inner { .. } | Kind::Metered { .. } | Kind::Watched { .. } => "Body(inner)",
            Kind::Refusal { .. } | Kind::MeteredRefusal { .. } => "Body(refusal)",
        })
    }
}
