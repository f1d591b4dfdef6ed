//! A value for each environment: a state, or a router.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum_core::{
    extract::{FromRef, FromRequestParts},
    response::Response,
};
use http::{Extensions, Request, request::Parts};
use pin_project_lite::pin_project;
use tollgate::{Denial, DenialKind, Environment, RequestContext, respond::refuse};
use tower_service::Service;

use crate::Rejection;

/// A value for live keys and one for test keys. It is a state, from which [`InEnvironment`] takes the caller's value, or two services in
/// one, such as a router for each environment.
///
/// ```
/// use axum::{Router, extract::FromRef, routing::get};
/// use tollgate_axum::{ByEnvironment, InEnvironment};
///
/// #[derive(Clone)]
/// struct Corpus(&'static str); // such as a pool of connections
///
/// async fn corpus(InEnvironment(corpus): InEnvironment<Corpus>) -> &'static str {
///     corpus.0
/// }
///
/// let state = ByEnvironment::new(Corpus("production"), Corpus("sandbox"));
/// let app: Router = Router::new().route("/corpus", get(corpus)).with_state(state); // .layer(tollgate)
/// ```
///
/// A router for each environment, with routes and layers of its own:
///
/// ```
/// use axum::{Router, routing::get};
/// use tollgate_axum::ByEnvironment;
///
/// let live = Router::new().route("/scan", get(async || "production"));
/// let test = Router::new().route("/scan", get(async || "sandbox")).route("/reset", get(async || "done"));
/// let app: Router = Router::new().fallback_service(ByEnvironment::new(live, test)); // .layer(tollgate)
/// ```
///
/// The environment is that of the [`Principal`](tollgate::Principal), and nothing else that a request contains.
///
/// | condition | status |
/// |---|---|
/// | anonymous request, in optional mode, for a public route, or as a CORS preflight | 401 |
/// | the principal has no environment | 500 |
/// | no outer `VerifyLayer` | 500 |
///
/// As a service it is always ready. A request clones the service of its environment, and waits for the readiness of that clone: one
/// environment does not wait for the other, and no readiness is held for a request that never comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByEnvironment<T> {
    live: T,
    test: T,
}

impl<T> ByEnvironment<T> {
    /// The values for live and for test keys.
    pub fn new(live: T, test: T) -> Self {
        Self { live, test }
    }

    /// The value of an environment.
    ///
    /// # Errors
    /// A denial with 500, if this version does not know the environment.
    pub fn get(&self, environment: Environment) -> Result<&T, Denial> {
        match environment {
            Environment::Live => Ok(&self.live),
            Environment::Test => Ok(&self.test),
            other => {
                Err(Denial::misconfigured(format!("ByEnvironment has no value for the environment {other}")))
            }
        }
    }

    /// The value of the caller's environment.
    fn of_caller(&self, extensions: &Extensions) -> Result<&T, Denial> {
        let Some(context) = RequestContext::of(extensions).filter(|context| context.is_identified()) else {
            return Err(Denial::misconfigured(
                "ByEnvironment requires a VerifyLayer: \
                 put a CredentialLayer and a VerifyLayer, or a Tollgate, around the route",
            ));
        };
        let Some(principal) = context.principal() else { return Err(DenialKind::CredentialMissing.into()) };
        let environment = principal.environment().ok_or_else(|| {
            Denial::misconfigured(
                "ByEnvironment requires a principal with an environment: \
                 let the verifier call Principal::with_environment",
            )
        });
        self.get(environment?)
    }
}

/// The value for the caller's environment, from a state that is or has a [`ByEnvironment`].
#[derive(Clone, Copy, Debug)]
pub struct InEnvironment<T>(pub T);

impl<S, T> FromRequestParts<S> for InEnvironment<T>
where
    S: Sync,
    T: Clone,
    ByEnvironment<T>: FromRef<S>,
{
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let values = ByEnvironment::from_ref(state);
        match values.of_caller(&head.extensions) {
            Ok(value) => Ok(Self(value.clone())),
            Err(denial) => Err(Rejection::new("InEnvironment", denial, head)),
        }
    }
}

impl<S, B> Service<Request<B>> for ByEnvironment<S>
where
    S: Service<Request<B>, Response = Response> + Clone,
{
    type Response = Response;
    type Error = S::Error;
    type Future = ByEnvironmentFuture<S, B>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // Which service is called is not known before the request.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = match self.of_caller(request.extensions()) {
            Ok(service) => State::Waiting { service: service.clone(), request: Some(request) },
            Err(denial) => {
                let (mut head, _body) = request.into_parts();
                State::Refused { response: Some(refuse("ByEnvironment", denial, &mut head)) }
            }
        };
        ByEnvironmentFuture { state }
    }
}

pin_project! {
    /// The future of a [`ByEnvironment`] that is a service.
    pub struct ByEnvironmentFuture<S: Service<Request<B>>, B> {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S: Service<Request<B>>, B> {
        // Until the service is ready.
        Waiting { service: S, request: Option<Request<B>> },
        Called { #[pin] future: S::Future },
        Refused { response: Option<Response> },
    }
}

impl<S, B> Future for ByEnvironmentFuture<S, B>
where
    S: Service<Request<B>, Response = Response>,
{
    type Output = Result<Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let future = match state.as_mut().project() {
                StateProjection::Waiting { service, request } => {
                    ready!(service.poll_ready(context))?;
                    // Present: the state is left as soon as it is taken.
                    let Some(request) = request.take() else { return Poll::Pending };
                    service.call(request)
                }
                StateProjection::Called { future } => return future.poll(context),
                StateProjection::Refused { response } => {
                    return response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)));
                }
            };
            state.set(State::Called { future });
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for ByEnvironmentFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByEnvironmentFuture")
    }
}
