//! An answer that is there at once, or later.

use std::{fmt, future::Future, pin::Pin};

/// A future that a port hands out when it has to wait: boxed, so that ports stay object-safe.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a port answers: at once, or after a wait.
///
/// A cache hit or an in-process counter answers [`Now`](Answer::Now), and then nothing is boxed, nothing is polled and
/// no service is cloned. A database or a remote counter answers [`Later`](Answer::Later).
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
#[must_use = "an answer does nothing until it is read or awaited"]
pub enum Answer<T> {
    /// The answer.
    Now(T),
    /// A future of the answer. Dropping it abandons the question.
    Later(Pending<T>),
}

impl<T> Answer<T> {
    /// An answer that must be waited for.
    pub fn later(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }

    /// Turns the answer into another one, now or when it is there.
    #[inline]
    pub fn map<U>(self, turn: impl FnOnce(T) -> U + Send + 'static) -> Answer<U>
    where
        T: 'static,
    {
        match self {
            Self::Now(value) => Answer::Now(turn(value)),
            Self::Later(pending) => Answer::later(async move { turn(pending.await) }),
        }
    }

    /// Waits for the answer, for callers that are asynchronous anyway: decorators of ports, and tests.
    pub async fn wait(self) -> T {
        match self {
            Self::Now(value) => value,
            Self::Later(pending) => pending.await,
        }
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
