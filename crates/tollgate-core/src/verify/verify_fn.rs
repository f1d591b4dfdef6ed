//! Verifiers made from closures.

use std::{fmt, future::Future, sync::Arc};

use crate::{
    answer::Answer,
    denial::Denial,
    verify::{Credential, Principal, Verify, VerifyRequest},
};

/// A verifier made from an asynchronous closure.
///
/// The closure owns the credential and may move it into its future. It returns a [`Principal`] or an `Arc<Principal>`. `?` turns
/// [`Unavailable`](crate::denial::Unavailable) into a denial with the status 503.
///
/// ```
/// use tollgate_core::{
///     denial::{Denial, DenialKind, Unavailable},
///     verify::{Credential, Principal, verify_fn},
/// };
///
/// # struct Session { user: String }
/// async fn find_session(token: &str) -> Result<Option<Session>, Unavailable> {
///     // asks a database ...
/// #   Ok(None)
/// }
///
/// let verifier = verify_fn(|credential: Credential| async move {
///     match find_session(credential.expose_secret()).await? {
///         Some(session) => Ok(Principal::new(session.user)),
///         None => Err(Denial::new(DenialKind::KeyUnknown)),
///     }
/// });
/// # fn is_verifier(_: impl tollgate_core::verify::Verify) {}
/// # is_verifier(verifier);
/// ```
///
/// [`verify_sync_fn`] is for closures that need not wait, and for those that read the request's head. Implement [`Verify`] for
/// a verifier that answers at once for some credentials only.
pub fn verify_fn<F, Fut, P>(verify: F) -> VerifyFn<F>
where
    F: Fn(Credential) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<P, Denial>> + Send + 'static,
    P: Into<Arc<Principal>> + 'static,
{
    VerifyFn(verify)
}

/// A verifier made from a closure that answers at once.
///
/// ```
/// use tollgate_core::{
///     denial::{Denial, DenialKind},
///     verify::{Principal, VerifyRequest, verify_sync_fn},
/// };
///
/// let verifier = verify_sync_fn(|request: &VerifyRequest<'_>| {
///     match request.credential.expose_secret() {
///         "s3cret" => Ok(Principal::new("ada")),
///         _ => Err(Denial::new(DenialKind::KeyUnknown)),
///     }
/// });
/// # fn is_verifier(_: impl tollgate_core::verify::Verify) {}
/// # is_verifier(verifier);
/// ```
pub fn verify_sync_fn<F, P>(verify: F) -> VerifySyncFn<F>
where
    F: Fn(&VerifyRequest<'_>) -> Result<P, Denial> + Send + Sync + 'static,
    P: Into<Arc<Principal>>,
{
    VerifySyncFn(verify)
}

/// What [`verify_fn`] returns.
#[derive(Clone, Copy)]
pub struct VerifyFn<F>(F);

impl<F, Fut, P> Verify for VerifyFn<F>
where
    F: Fn(Credential) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<P, Denial>> + Send + 'static,
    P: Into<Arc<Principal>> + 'static,
{
    fn verify(&self, request: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        let found = (self.0)(request.credential.clone());
        Answer::later(async move { found.await.map(Into::into) })
    }
}

/// What [`verify_sync_fn`] returns.
#[derive(Clone, Copy)]
pub struct VerifySyncFn<F>(F);

impl<F, P> Verify for VerifySyncFn<F>
where
    F: Fn(&VerifyRequest<'_>) -> Result<P, Denial> + Send + Sync + 'static,
    P: Into<Arc<Principal>>,
{
    fn verify(&self, request: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        Answer::Now((self.0)(request).map(Into::into))
    }
}

impl<F> fmt::Debug for VerifyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyFn").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for VerifySyncFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifySyncFn").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{IntoFuture as _, ready},
        pin::Pin,
        task::{Context, Poll, Waker},
        time::UNIX_EPOCH,
    };

    use http::{HeaderValue, Request};

    use super::*;
    use crate::{
        denial::{DenialKind, Unavailable},
        request::RequestHead,
        verify::CredentialSource,
    };

    fn verify(verifier: &impl Verify, secret: &'static str) -> Result<Arc<Principal>, Denial> {
        let credential = Credential::new(HeaderValue::from_static(secret), 0, CredentialSource::Bearer);
        let (head, ()) = Request::new(()).into_parts();
        let answer = verifier.verify(&VerifyRequest::new(&credential, RequestHead::from(&head), UNIX_EPOCH));
        let mut future = answer.into_future();
        match Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(found) => found,
            Poll::Pending => panic!("the closure does not wait"),
        }
    }

    fn find(secret: &str) -> impl Future<Output = Result<Option<Arc<Principal>>, Unavailable>> {
        ready(match secret {
            "good" => Ok(Some(Arc::new(Principal::new("ada")))),
            "down" => Err(Unavailable::new("the session store is down")),
            _ => Ok(None),
        })
    }

    #[test]
    fn an_asynchronous_closure_verifies() {
        let verifier = verify_fn(|credential: Credential| async move {
            find(credential.expose_secret()).await?.ok_or(Denial::new(DenialKind::KeyUnknown))
        });
        assert_eq!(verify(&verifier, "good").unwrap().id(), "ada");
        assert_eq!(verify(&verifier, "other").unwrap_err().kind(), DenialKind::KeyUnknown);
        assert_eq!(verify(&verifier, "down").unwrap_err().log_detail(), "the session store is down");
    }

    #[test]
    fn a_synchronous_closure_answers_at_once() {
        let verifier =
            verify_sync_fn(|request: &VerifyRequest<'_>| match request.credential.expose_secret() {
                "good" => Ok(Principal::new("ada")),
                _ => Err(Denial::new(DenialKind::KeyUnknown)),
            });
        assert_eq!(verify(&verifier, "good").unwrap().id(), "ada");
        assert!(verify(&verifier, "other").is_err());
    }
}
