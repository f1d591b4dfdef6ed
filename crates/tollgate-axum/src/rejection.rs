//! The rejection of the extractors.

use std::{error::Error, fmt};

use axum_core::response::{IntoResponse, Response};
use http::request::Parts;
use tollgate::{Denial, respond::refuse};

/// The rejection of an extractor. As a response it is a refusal like those of the layers: from the same responder, with
/// the same headers, the same log event, and the [`Denial`] in its extensions.
///
/// It is logged only when it becomes a response, so a handler can inspect it and continue:
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
    // For the responder. Boxed to keep the extractors' results small.
    head: Box<Parts>,
}

impl Rejection {
    /// A rejection for an extractor of your own. `extractor` is its name in the log.
    pub fn new(extractor: &'static str, denial: Denial, head: &Parts) -> Self {
        Self { extractor, denial, head: Box::new(head.clone()) }
    }

    /// The reason of the refusal.
    pub fn denial(&self) -> &Denial {
        &self.denial
    }
}

impl IntoResponse for Rejection {
    fn into_response(mut self) -> Response {
        refuse(self.extractor, self.denial, &mut self.head)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.denial.fmt(f)
    }
}

impl fmt::Debug for Rejection {
    // Omits the request's head: its headers may contain a credential that no layer has marked as sensitive.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("extractor", &self.extractor)
            .field("denial", &self.denial)
            .finish_non_exhaustive()
    }
}

impl Error for Rejection {}
