//! Refusals by handlers.

use std::{
    cell::RefCell,
    error::Error,
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

use axum_core::response::{IntoResponse, Response};
use http::{Request, request::Parts};
use pin_project_lite::pin_project;
use tollgate::{Denial, DenialKind, denial::Unavailable, respond::refuse};
use tower_layer::Layer;
use tower_service::Service;

use crate::Rejection;

/// A refusal by a handler: `?` turns a [`Denial`], a [`DenialKind`] or an [`Unavailable`] into one.
///
/// ```
/// use axum::{Router, routing::post};
/// use tollgate::{Denial, DenialKind, denial::Unavailable};
/// use tollgate_axum::{Authenticated, RefusalLayer, Refused};
///
/// async fn credits_of(tenant: &str) -> Result<u64, Unavailable> {
///     // asks a database ...
/// #   Ok(tenant.len() as u64)
/// }
///
/// async fn create_job(caller: Authenticated) -> Result<String, Refused> {
///     let tenant = caller.tenant().ok_or(DenialKind::Forbidden)?;
///     if credits_of(tenant).await? < 10 {
///         return Err(Denial::new(DenialKind::CreditsExhausted).with_detail("A job costs 10 credits.").into());
///     }
///     Ok("created".to_owned())
/// }
///
/// let app: Router = Router::new().route("/jobs", post(create_job)).layer(RefusalLayer::new());
/// // .layer(tollgate)
/// ```
///
/// Inside a [`RefusalLayer`], the response is a refusal like those of the layers: from the same responder, with the same headers, the
/// same log event, and the denial in its extensions. Without one, the default responder answers, and the log event lacks what
/// belongs to the request, such as its identifier and the principal. Put it inside all layers of Tollgate: it keeps a copy of the
/// request's head as it is there.
///
/// A middleware that has the request's head needs neither: [`refuse`] returns a response that axum accepts.
///
/// ```
/// use axum::{extract::Request, middleware::Next, response::Response};
/// use tollgate::{Denial, DenialKind, respond::refuse};
///
/// async fn weekdays_only(request: Request, next: Next) -> Response {
///     # let is_weekday = true;
///     if is_weekday {
///         return next.run(request).await;
///     }
///     let (mut head, _body) = request.into_parts();
///     refuse("weekdays_only", Denial::new(DenialKind::Forbidden), &mut head)
/// }
/// # let _: axum::Router = axum::Router::new().layer(axum::middleware::from_fn(weekdays_only));
/// ```
#[derive(Clone, Debug)]
pub struct Refused(pub Denial);

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self(denial)
    }
}

impl From<DenialKind> for Refused {
    fn from(kind: DenialKind) -> Self {
        Self(kind.into())
    }
}

impl From<Unavailable> for Refused {
    fn from(error: Unavailable) -> Self {
        Self(error.into())
    }
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self(rejection.denial().clone())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refusing { name, mut head } = Refusing::current();
        refuse(name, self.0, &mut head)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Refused {}

/// Lets handlers refuse requests as the layers do: see [`Refused`].
///
/// Put it around the routes, inside the layers of Tollgate. It keeps a copy of each request's head, for the case that the handler
/// refuses.
///
/// ```
/// use axum::{Router, routing::get};
/// use tollgate::DenialKind;
/// use tollgate_axum::{RefusalLayer, Refused};
///
/// let app: Router = Router::new()
///     .route("/beta", get(async || Err::<(), _>(Refused::from(DenialKind::Forbidden))))
///     .layer(RefusalLayer::new().with_name("beta"));
/// // .layer(tollgate)
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RefusalLayer {
    name: &'static str,
}

impl RefusalLayer {
    /// A layer whose refusals are logged with the value `handler` in the field `layer`.
    pub fn new() -> Self {
        Self { name: HANDLER }
    }

    /// Sets the value of the field `layer` in the log.
    pub fn with_name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }
}

const HANDLER: &str = "handler";

impl Default for RefusalLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for RefusalLayer {
    type Service = RefusalService<S>;

    fn layer(&self, inner: S) -> RefusalService<S> {
        RefusalService { inner, name: self.name }
    }
}

/// The service of a [`RefusalLayer`].
#[derive(Clone, Debug)]
pub struct RefusalService<S> {
    inner: S,
    name: &'static str,
}

impl<S, RequestBody> Service<Request<RequestBody>> for RefusalService<S>
where
    S: Service<Request<RequestBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RefusalFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let (head, body) = request.into_parts();
        let refusing = Refusing { name: self.name, head: Box::new(head.clone()) };
        let future = self.inner.call(Request::from_parts(head, body));
        RefusalFuture { future, refusing: Some(refusing) }
    }
}

pin_project! {
    /// The future of a [`RefusalService`].
    pub struct RefusalFuture<F> {
        #[pin]
        future: F,
        // `None` while the future is polled.
        refusing: Option<Refusing>,
    }
}

impl<F: Future> Future for RefusalFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _entered = Entered::new(this.refusing);
        this.future.poll(context)
    }
}

impl<F> fmt::Debug for RefusalFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefusalFuture")
    }
}

/// What a refusal needs to know about its request.
#[derive(Clone)]
struct Refusing {
    name: &'static str,
    head: Box<Parts>,
}

thread_local! {
    /// The request whose handler runs now. A handler's result becomes a response while its future is polled, so this is the right
    /// request.
    static CURRENT: RefCell<Option<Refusing>> = const { RefCell::new(None) };
}

impl Refusing {
    /// The request whose handler runs now. Outside a [`RefusalLayer`], an empty request.
    fn current() -> Self {
        let current = CURRENT.try_with(|current| current.borrow().clone());
        current.ok().flatten().unwrap_or_else(|| {
            let (head, ()) = Request::new(()).into_parts();
            Self { name: HANDLER, head: Box::new(head) }
        })
    }
}

/// Makes a request the current one while this exists. After that, and after a panic, the previous one is the current one again.
struct Entered<'f>(&'f mut Option<Refusing>);

impl<'f> Entered<'f> {
    fn new(refusing: &'f mut Option<Refusing>) -> Self {
        let mut entered = Self(refusing);
        entered.swap();
        entered
    }
}

impl Entered<'_> {
    fn swap(&mut self) {
        // Fails only while the thread ends, when no handler runs.
        let _ = CURRENT.try_with(|current| mem::swap(&mut *current.borrow_mut(), self.0));
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.swap();
    }
}
