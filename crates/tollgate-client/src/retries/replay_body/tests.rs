use std::collections::VecDeque;

use http_body_util::{BodyExt, Full};

use super::*;

/// Yields what it is given, then pends if it does not end.
struct Scripted {
    frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
    ends: bool,
    polls: Arc<std::sync::atomic::AtomicUsize>,
}

impl Scripted {
    fn new(frames: impl IntoIterator<Item = Result<Frame<Bytes>, &'static str>>, ends: bool) -> Self {
        Self { frames: frames.into_iter().collect(), ends, polls: Arc::default() }
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.polls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match self.frames.pop_front() {
            None if !self.ends => Poll::Pending,
            frame => Poll::Ready(frame),
        }
    }
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))])
}

async fn read<B>(body: B) -> (Bytes, Option<HeaderMap>)
where
    B: Body<Data = Bytes, Error: fmt::Debug>,
{
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    (collected.to_bytes(), trailers)
}

#[tokio::test]
async fn a_body_that_is_ready_is_sent_any_number_of_times() {
    let (first, kept) = ReplayBody::read(
        Scripted::new([Ok(data("ab")), Ok(data("cd")), Ok(Frame::trailers(trailers()))], true),
        64,
    );
    let kept = kept.unwrap();
    for body in [first, kept.replay(), kept.replay()] {
        assert_eq!(read(body).await, (Bytes::from_static(b"abcd"), Some(trailers())));
    }
}

#[tokio::test]
async fn known_lengths_stay_known_and_unknown_ones_unknown() {
    let (first, kept) = ReplayBody::read(Full::new(Bytes::from_static(b"abcd")), 64);
    for mut body in [first, kept.unwrap().replay()] {
        assert_eq!(body.size_hint().exact(), Some(4));
        body.frame().await.unwrap().unwrap();
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(body.is_end_stream());
    }
    let (first, kept) = ReplayBody::read(Scripted::new([Ok(data("abcd"))], true), 64);
    for body in [first, kept.unwrap().replay()] {
        assert_eq!((body.size_hint().exact(), body.size_hint().lower()), (None, 4));
        assert!(!body.is_end_stream());
    }
    let (empty, _) = ReplayBody::read(Full::<Bytes>::default(), 64);
    assert!(empty.is_end_stream());
    assert_eq!(empty.size_hint().exact(), Some(0));
}

#[tokio::test]
async fn a_body_that_makes_wait_is_streamed() {
    let (mut first, kept) = ReplayBody::read(Scripted::new([Ok(data("ab"))], false), 64);
    assert!(kept.is_none());
    assert!(!first.is_end_stream());
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut first).poll_frame(&mut cx).is_pending());
}

#[tokio::test]
async fn a_body_past_the_bound_is_streamed_in_full() {
    for (max, is_kept) in [(4, true), (3, false), (0, false)] {
        let (first, kept) = ReplayBody::read(Scripted::new([Ok(data("ab")), Ok(data("cd"))], true), max);
        assert_eq!(kept.is_some(), is_kept, "{max}");
        assert_eq!(read(first).await.0, "abcd", "{max}");

        let (first, kept) = ReplayBody::read(Full::new(Bytes::from_static(b"abcd")), max);
        assert_eq!(kept.is_some(), is_kept, "{max}");
        assert_eq!(first.size_hint().exact(), Some(4));
        assert_eq!(read(first).await.0, "abcd", "{max}");
    }
    // Trailers count.
    let (first, kept) = ReplayBody::read(Scripted::new([Ok(Frame::trailers(trailers()))], true), 36);
    assert!(kept.is_none());
    assert_eq!(read(first).await.1, Some(trailers()));
}

#[tokio::test]
async fn a_body_that_is_known_to_be_too_long_is_not_read() {
    struct Known(Scripted);
    impl Body for Known {
        type Data = Bytes;
        type Error = &'static str;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }
        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(1000)
        }
    }
    let body = Known(Scripted::new([Ok(data("ab"))], true));
    let polls = body.0.polls.clone();
    let (_, kept) = ReplayBody::read(body, 999);
    assert!(kept.is_none());
    assert_eq!(polls.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn empty_frames_without_end_do_not_hold_the_caller() {
    struct Endless;
    impl Body for Endless {
        type Data = Bytes;
        type Error = &'static str;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
        }
    }
    let (first, kept) = ReplayBody::read(Endless, 64);
    assert!(kept.is_none());
    assert_eq!(first.pieces.len(), MAX_PIECES);
}

#[tokio::test]
async fn an_error_is_passed_on_once_after_what_came_before_it() {
    let (mut first, kept) = ReplayBody::read(Scripted::new([Ok(data("ab")), Err("broken")], true), 64);
    assert!(kept.is_none());
    assert!(first.frame().await.unwrap().is_ok());
    assert!(!first.is_end_stream());
    assert_eq!(first.frame().await.unwrap().unwrap_err(), "broken");
    assert!(first.frame().await.is_none());
    assert!(first.is_end_stream());
}
