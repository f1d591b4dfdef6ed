//! The service behind the layers.

use std::{
    error::Error,
    fmt,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::Service;

/// Counts its calls, keeps the last request, and is strict about readiness: a clone is not ready, and a call
/// without readiness fails the test.
#[derive(Clone)]
pub struct Inner {
    seen: Arc<Mutex<Seen>>,
    answer: Arc<Answer>,
    readiness: Readiness,
}

#[derive(Default)]
struct Seen {
    calls: usize,
    last: Option<Request<String>>,
}

type Answer = dyn Fn(&Request<String>) -> Result<Response<String>, Failure> + Send + Sync;

/// Belongs to one clone alone.
#[derive(Default)]
struct Readiness(bool);

impl Clone for Readiness {
    fn clone(&self) -> Self {
        Self(false)
    }
}

impl Inner {
    /// Answers every request with 200 and the body `inside`.
    pub fn new() -> Self {
        Self::answering(|_| Ok(Response::new("inside".to_owned())))
    }

    /// Answers with what `answer` says.
    pub fn answering(
        answer: impl Fn(&Request<String>) -> Result<Response<String>, Failure> + Send + Sync + 'static,
    ) -> Self {
        Self { seen: Arc::default(), answer: Arc::new(answer), readiness: Readiness::default() }
    }

    /// How often it was called.
    ///
    /// # Panics
    /// If a call has panicked.
    pub fn calls(&self) -> usize {
        self.seen.lock().unwrap().calls
    }

    /// The request of its last call.
    ///
    /// # Panics
    /// If it was not called, or not since this was last asked.
    pub fn take_last(&self) -> Request<String> {
        match self.seen.lock().unwrap().last.take() {
            Some(request) => request,
            None => panic!("the inner service was not called"),
        }
    }
}

impl Default for Inner {
    fn default() -> Self {
        Self::new()
    }
}

impl Service<Request<String>> for Inner {
    type Response = Response<String>;
    type Error = Failure;
    type Future = Ready<Result<Response<String>, Failure>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.readiness = Readiness(true);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        assert!(self.readiness.0, "the inner service was called without being ready");
        self.readiness = Readiness(false);
        let answer = (self.answer)(&request);
        let mut seen = self.seen.lock().unwrap();
        seen.calls += 1;
        seen.last = Some(request);
        ready(answer)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inner")
    }
}

/// The inner service's own error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub &'static str);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Failure {}
