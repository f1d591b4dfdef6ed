//! Which routes a stack leaves open.
//!
//! A layer guards what it is put around, and nothing that is added later. So a route that is merged after the layer, a gRPC service that
//! is added beside it, or a fallback outside it answers everybody, and no test of the other routes fails. [`Coverage::of`] sends a
//! request without a credential to each route, and lists those that do not refuse it. A test states which routes are meant to be open:
//!
//! ```
//! use axum::{Router, routing::{get, post}};
//! use tollgate::{ConfigurationError, KeyVerifier, Tollgate};
//! use tollgate_testing::{TestKeys, coverage::Coverage};
//!
//! fn app(keys: KeyVerifier) -> Result<Router, ConfigurationError> {
//!     let tollgate = Tollgate::builder().verify(keys).build()?;
//!     Ok(Router::new()
//!         .route("/jobs/{id}", get(async || "a job"))
//!         .layer(tollgate)
//!         // Added after the layer, so it is open.
//!         .route("/health", get(async || "ok")))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let app = app(TestKeys::new().verifier())?;
//! let coverage = Coverage::of(app, [("GET", "/jobs/{id}"), ("GET", "/health")]).await;
//! coverage.assert_only_open(["GET /health"]);
//! # Ok(())
//! # }
//! ```
//!
//! A list can miss a route that is added later. Two other sources of [`Routes`] cannot:
//!
//! - A `RecordedRouter` of `tollgate-axum` records the routes of an axum application as they are added (feature `axum`).
//! - An encoded descriptor set contains every RPC of a gRPC service: `Routes::of_descriptor_set` (feature `grpc`).
//!
//! # What is open
//!
//! | answer to a request without a credential | the route is |
//! |---|---|
//! | a refusal of Tollgate with [`DenialKind::CredentialMissing`] | guarded |
//! | a refusal of Tollgate for a limit, for a backend that does not answer, or for a wrong configuration | undecided: the assertion fails |
//! | 405 (Method Not Allowed) to each usual method of a path whose methods are not known | undecided: list it with its method |
//! | any other refusal of Tollgate, which a credential does not decide | open |
//! | everything else: also a 401 or 403 of the application's own, an error, a panic, or no answer within [`DEADLINE`] | open |
//!
//! A route inside the layer is open if it is one of the stack's [`PublicRoutes`], such as a health check: expect it, too. A stack in
//! report-only mode leaves every route open, and so does one that accepts requests without a credential. An OAuth or session layer
//! of your own is none of Tollgate's: list its routes as open, or let it refuse with a [`Denial`].
//!
//! # Security
//!
//! A request to an open route runs its handler, with an empty body, and placeholders for the parameters of the path. Test with a
//! database of the test's own. The body of the response is dropped, and not read.

mod answer;
#[cfg(feature = "grpc")]
mod descriptor_set;
mod probe;
mod routes;

pub use answer::Answer;
pub use probe::DEADLINE;
pub use routes::Routes;

use std::{error::Error, fmt};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
#[expect(unused_imports, reason = "for the documentation")]
use tollgate::{Denial, DenialKind, verify::PublicRoutes};
use tower_service::Service;

use answer::Verdict;

/// What a service leaves open. See the [module](self).
#[derive(Clone, Debug)]
#[must_use = "nothing is checked until an assertion is called"]
pub struct Coverage {
    open: Vec<OpenRoute>,
    undecided: Vec<OpenRoute>,
    guarded: Vec<String>,
}

/// A route that is open.
///
/// Its `Display` is the name that [`Coverage::assert_only_open`] expects: `GET /health`, `ANY /files/{*rest}` if it answers every
/// usual method, `grpc.health.v1.Health/Check`, `fallback`, or `fallback /api` for that of a nested router.
#[derive(Clone, Debug)]
pub struct OpenRoute {
    name: String,
    answer: Answer,
}

impl Coverage {
    /// Sends a request without a credential to each route, one after the other.
    ///
    /// The service is a complete application: an axum `Router` with its layers, tonic's `Routes`, or another Tower service. One that takes
    /// only its own type of body is adapted with `tower::ServiceExt::map_request`.
    ///
    /// # Panics
    /// If there are no routes, or if there is no Tokio runtime with a timer.
    pub async fn of<S, R>(service: S, routes: impl Into<Routes>) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let routes = routes.into();
        assert!(!routes.is_empty(), "there are no routes to check: a check of nothing always passes");
        let mut coverage = Self { open: Vec::new(), undecided: Vec::new(), guarded: Vec::new() };
        for route in routes.iter() {
            for (name, verdict) in probe::route(&service, route, &routes).await {
                match verdict {
                    Verdict::Guarded => coverage.guarded.push(name),
                    Verdict::Open(answer) => coverage.open.push(OpenRoute { name, answer }),
                    Verdict::Undecided(answer) => coverage.undecided.push(OpenRoute { name, answer }),
                    Verdict::NoSuchMethod(_) => {}
                }
            }
        }
        coverage
    }

    /// The routes that are open, in the order in which they were listed.
    pub fn open(&self) -> &[OpenRoute] {
        &self.open
    }

    /// Asserts that exactly these routes are open.
    ///
    /// # Panics
    /// If another route is open, if one of these is not, or if a route could not be checked. The message has one line for each, and
    /// says what to do.
    #[track_caller]
    pub fn assert_only_open<'a>(&self, expected: impl IntoIterator<Item = &'a str>) {
        let expected: Vec<_> = expected.into_iter().collect();
        let mut faults = Vec::new();
        for route in &self.open {
            if !expected.contains(&&*route.name) {
                faults.push(format!(
                    "`{route}` is open: {}. Add it before the layer that guards the others, remove it from `PublicRoutes`, or expect it here.",
                    route.answer
                ));
            }
        }
        for route in &self.undecided {
            faults.push(format!("`{route}` could not be checked: {}", route.answer));
        }
        for name in expected {
            if self.guarded.iter().any(|guarded| guarded == name) {
                faults.push(format!(
                    "`{name}` is not open: it needs a credential. List it in `PublicRoutes`, add it after the layer, or do not expect it here."
                ));
            } else if !self.open.iter().chain(&self.undecided).any(|route| route.name == name) {
                faults.push(format!("`{name}` is not open: there is no such route. {}", self.advice()));
            }
        }
        assert!(faults.is_empty(), "not exactly the expected routes are open:\n  {}", faults.join("\n  "));
    }

    fn advice(&self) -> String {
        match &*self.open {
            [] => "No route is open.".to_owned(),
            open => {
                let names: Vec<_> = open.iter().map(|route| format!("`{route}`")).collect();
                format!("The open routes are {}.", names.join(", "))
            }
        }
    }
}

impl OpenRoute {
    /// How the route answered.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }
}

impl fmt::Display for Coverage {
    /// The open routes, one in each line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, route) in self.open.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{route}")?;
        }
        Ok(())
    }
}

impl fmt::Display for OpenRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
