//! The error of a backend that does not answer.

use std::{borrow::Cow, error::Error, fmt, sync::Arc};

/// A backend did not answer: it is down, too slow, or sent data that cannot be read.
///
/// [`Display`](fmt::Display) shows the detail only, so that programs which print [`Error::source`] themselves print nothing twice.
/// The alternate form (`{:#}`) shows the detail and its sources, separated by colons; this is what the log of a refusal shows.
///
/// ```
/// use std::{error::Error, io};
/// use tollgate_core::denial::Unavailable;
///
/// let error = Unavailable::new("the session store does not answer").with_source(io::Error::other("timed out"));
/// assert_eq!(error.to_string(), "the session store does not answer");
/// assert_eq!(format!("{error:#}"), "the session store does not answer: timed out");
/// assert!(error.source().is_some_and(|source| source.is::<io::Error>()));
/// ```
///
/// # Security
///
/// The detail and the sources go to the log. They must not hold a secret: some database drivers print the connection URL with
/// its password. Such an error must not be a source; describe it in the detail instead.
#[derive(Clone, Debug)]
pub struct Unavailable {
    detail: Cow<'static, str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Unavailable {
    /// An error that says which backend did not answer, and what happened. It must not hold a secret.
    pub fn new(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: detail.into(), source: None }
    }

    /// Adds the error that caused this one. It goes to the log as well, and must not hold a secret.
    pub fn with_source(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into().into()), ..self }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        if f.alternate() {
            let mut next = self.source();
            while let Some(source) = next {
                write!(f, ": {source}")?;
                next = source.source();
            }
        }
        Ok(())
    }
}

impl Error for Unavailable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
