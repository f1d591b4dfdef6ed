//! The backend trait that fetches an issuer's key set.

use std::{fmt, future::Future, sync::Arc};

use tollgate_core::{answer::Answer, denial::Unavailable};

/// Fetches the key set of an issuer. [`fetch_keys_fn`] makes one from a closure; `HttpKeys` (feature `http`) reads a URL.
///
/// It is called in a task of its own, by one request at a time, and its future is dropped after the
/// [deadline](crate::Issuer::with_key_deadline).
pub trait FetchKeys: Send + Sync + 'static {
    /// The text of the key set (RFC 7517 section 5), of at most [`KeySet::MAX_BYTES`](crate::KeySet::MAX_BYTES).
    ///
    /// # Errors
    /// [`Unavailable`] if it cannot be had: the keys that are known already stay in use for [a time](crate::Issuer::with_stale_keys_for).
    fn fetch(&self) -> Answer<Result<Vec<u8>, Unavailable>>;
}

impl<F: FetchKeys + ?Sized> FetchKeys for Arc<F> {
    fn fetch(&self) -> Answer<Result<Vec<u8>, Unavailable>> {
        (**self).fetch()
    }
}

/// Fetches keys by an asynchronous closure: with an HTTP client that the application has already, or from a file.
///
/// ```
/// use tollgate_core::denial::Unavailable;
/// use tollgate_jwt::{Issuer, fetch_keys_fn};
///
/// async fn read_key_set() -> Result<Vec<u8>, Unavailable> {
///     // asks the proxy of the data centre ...
/// #   Ok(Vec::new())
/// }
///
/// let issuer = Issuer::from_source("https://login.example.com/", "https://api.example.com", fetch_keys_fn(read_key_set));
/// ```
pub fn fetch_keys_fn<F, Fut, T>(fetch: F) -> FetchKeysFn<F>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, Unavailable>> + Send + 'static,
    T: Into<Vec<u8>> + 'static,
{
    FetchKeysFn(fetch)
}

/// What [`fetch_keys_fn`] returns.
#[derive(Clone, Copy)]
pub struct FetchKeysFn<F>(F);

impl<F, Fut, T> FetchKeys for FetchKeysFn<F>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, Unavailable>> + Send + 'static,
    T: Into<Vec<u8>> + 'static,
{
    fn fetch(&self) -> Answer<Result<Vec<u8>, Unavailable>> {
        let fetched = (self.0)();
        Answer::later(async move { fetched.await.map(Into::into) })
    }
}

impl<F> fmt::Debug for FetchKeysFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchKeysFn").finish_non_exhaustive()
    }
}
