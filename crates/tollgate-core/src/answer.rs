//! What a backend trait returns: an answer that is ready now, or a future of it.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    task::{Context, Poll},
};

/// The future of an answer that is not ready yet. Boxed, so that backend traits stay object-safe.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a backend trait returns: a value that is ready now, or a future of it.
///
/// A cache hit or an in-process counter returns [`Now`](Answer::Now): nothing is boxed, nothing is polled, and no service is
/// cloned. A database or a remote counter returns [`Later`](Answer::Later).
///
/// ```
/// use tollgate_core::answer::Answer;
///
/// fn look_up(cached: Option<u32>) -> Answer<u32> {
///     match cached {
///         Some(value) => Answer::Now(value),
///         None => Answer::later(async { 42 }),
///     }
/// }
/// assert!(matches!(look_up(Some(7)), Answer::Now(7)));
/// assert!(matches!(look_up(None), Answer::Later(_)));
/// ```
///
/// An answer can be awaited, whether it is ready or not:
///
/// ```
/// # use tollgate_core::answer::Answer;
/// async fn sum(one: Answer<u32>, two: Answer<u32>) -> u32 {
///     one.await + two.await
/// }
/// # let mut sum = std::pin::pin!(sum(Answer::Now(1), Answer::later(async { 2 })));
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # assert_eq!(sum.as_mut().poll(&mut context), std::task::Poll::Ready(3));
/// ```
#[must_use = "an answer does nothing until it is matched or awaited"]
pub enum Answer<T> {
    /// The value.
    Now(T),
    /// A future of the value. Dropping it cancels the operation, as far as the backend allows that.
    Later(Pending<T>),
}

impl<T> Answer<T> {
    /// An answer that is not ready yet.
    pub fn later(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }

    /// Applies a function to the value: at once if it is ready, otherwise when it is.
    #[inline]
    pub fn map<U>(self, f: impl FnOnce(T) -> U + Send + 'static) -> Answer<U>
    where
        T: 'static,
    {
        match self {
            Self::Now(value) => Answer::Now(f(value)),
            Self::Later(pending) => Answer::later(async move { f(pending.await) }),
        }
    }
}

impl<T> IntoFuture for Answer<T> {
    type Output = T;
    type IntoFuture = AnswerFuture<T>;

    fn into_future(self) -> AnswerFuture<T> {
        AnswerFuture(match self {
            Self::Now(value) => State::Now(Some(value)),
            Self::Later(pending) => State::Later(pending),
        })
    }
}

impl<T> From<T> for Answer<T> {
    fn from(value: T) -> Self {
        Self::Now(value)
    }
}

impl<T: fmt::Debug> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(value) => f.debug_tuple("Now").field(value).finish(),
            Self::Later(_) => f.write_str("Later(..)"),
        }
    }
}

/// The future of an [`Answer`], which is what `.await` polls. It stays pending if it is polled after its completion.
pub struct AnswerFuture<T>(State<T>);

enum State<T> {
    Now(Option<T>),
    Later(Pending<T>),
}

// The value is only ever moved out, never pinned.
impl<T> Unpin for AnswerFuture<T> {}

impl<T> Future for AnswerFuture<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            State::Now(value) => value.take().map_or(Poll::Pending, Poll::Ready),
            State::Later(pending) => {
                let polled = pending.as_mut().poll(context);
                if polled.is_ready() {
                    self.0 = State::Now(None);
                }
                polled
            }
        }
    }
}

impl<T> fmt::Debug for AnswerFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::ready, task::Waker};

    use super::*;

    #[test]
    fn completes_once_whether_the_answer_was_ready_or_not() {
        let mut context = Context::from_waker(Waker::noop());
        for answer in [Answer::Now(7), Answer::later(ready(7))] {
            let mut future = answer.into_future();
            assert_eq!(Pin::new(&mut future).poll(&mut context), Poll::Ready(7));
            assert_eq!(Pin::new(&mut future).poll(&mut context), Poll::Pending);
        }
    }
}
