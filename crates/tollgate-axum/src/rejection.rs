//! Why an extractor has nothing to give.

use std::{error::Error, fmt};

use axum_core::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::request::Parts;
use tollgate::{Denial, respond::refuse};

/// Why an extractor has nothing to give. As a response it is a refusal like the layers' own: from the same responder, with
/// the same headers, the same event in the log, and the [`Denial`] in its extensions.
///
/// Nothing is logged before it becomes a response, so a handler may look at it and go on without:
///
/// ```
/// use tollgate_axum::{RateLimit, Rejection};
///
/// async fn usage(limits: Result<RateLimit, Rejection>) -> String {
///     match limits {
///         Ok(limits) => format!("{} windows", limits.windows().len()),
///         Err(rejection) => rejection.denial().code().to_owned(),
///     }
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(usage));
/// ```
pub struct Rejection {
    extractor: &'static str,
    denial: Denial,
    // What the responder may need, boxed to keep extractors' results small.
    head: Box<Parts>,
}

impl Rejection {
    /// A rejection of an extractor of the application's own. `extractor` is the name by which the log calls it.
    pub fn new(extractor: &'static str, denial: Denial, head: &Parts) -> Self {
        Self { extractor, denial, head: Box::new(head.clone()) }
    }

    /// What the refusal says.
    pub fn denial(&self) -> &Denial {
        &self.denial
    }
}

impl IntoResponse for Rejection {
    fn into_response(mut self) -> Response {
        refuse(self.extractor, self.denial, &mut self.head).map(Body::from)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.denial.fmt(f)
    }
}

impl fmt::Debug for Rejection {
    // Without the request's head: its headers may hold a credential that no layer has marked as sensitive.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("extractor", &self.extractor)
            .field("denial", &self.denial)
            .finish_non_exhaustive()
    }
}

impl Error for Rejection {}
