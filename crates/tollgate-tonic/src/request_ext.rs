//! What the layers know about a request, for handlers and interceptors.

use std::{fmt, sync::Arc};

use http::Extensions;
use tollgate::{
    Denial, DenialKind, Ended, MessageMeter, Plan, Principal, RequestContext, credits::CreditMeter,
    limit::Decision, request::RequestId,
};
use tonic::Status;

use crate::status;

/// Reads what the layers know about a request, and refuses as they do: for [`tonic::Request`], in handlers and interceptors, for its
/// [`Extensions`] after `into_parts`, and for a [`CallContext`], which outlives the request.
///
/// ```
/// use tollgate_tonic::RequestExt;
/// use tonic::{Request, Response, Status};
///
/// async fn get_price(request: Request<String>) -> Result<Response<u64>, Status> {
///     let tenant = request.principal()?.tenant().unwrap_or("no tenant");
///     Ok(Response::new(if tenant == "acme" { 42 } else { 43 }))
/// }
/// ```
///
/// If a layer is missing, the status is `INTERNAL`, and the log names the layer: a configuration error must not look like an anonymous
/// request. What may be missing is in the [`RequestContext`]: `RequestContext::of(request.extensions())`.
pub trait RequestExt {
    /// The extensions of the request, in which the layers keep the context.
    fn context_extensions(&self) -> &Extensions;

    /// The authenticated caller.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for an anonymous request and for one to a public RPC, `INTERNAL` without an outer `VerifyLayer`.
    fn principal(&self) -> Result<&Arc<Principal>, Status> {
        self.optional_principal()?.ok_or_else(|| refused_by_this(self, DenialKind::CredentialMissing.into()))
    }

    /// The authenticated caller; `None` for an anonymous request and for one to a public RPC.
    ///
    /// # Errors
    /// `INTERNAL` without an outer `VerifyLayer`.
    fn optional_principal(&self) -> Result<Option<&Arc<Principal>>, Status> {
        match context(self) {
            Some(context) if context.is_identified() => Ok(context.principal()),
            _ => Err(missing(
                self,
                "RequestExt::principal requires a VerifyLayer: \
                 put a CredentialLayer and a VerifyLayer, or a Tollgate, around the service",
            )),
        }
    }

    /// The caller's active plan: the one that a `PlanLayer` has found, else the principal's own.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for a caller without a plan or with a lapsed one, `UNAUTHENTICATED` for an anonymous request and for one to a
    /// public RPC, `INTERNAL` without an outer `VerifyLayer`.
    fn plan(&self) -> Result<&Arc<Plan>, Status> {
        self.principal()?;
        let plan = context(self).and_then(RequestContext::plan).filter(|plan| plan.is_active());
        plan.ok_or_else(|| refused_by_this(self, DenialKind::EntitlementInactive.into()))
    }

    /// The request's identifier.
    ///
    /// # Errors
    /// `INTERNAL` without an outer `RequestIdLayer`.
    fn request_id(&self) -> Result<&RequestId, Status> {
        context(self).and_then(RequestContext::request_id).ok_or_else(|| {
            missing(
                self,
                "RequestExt::request_id requires a RequestIdLayer: put a RequestIdLayer, or a Tollgate, around the service",
            )
        })
    }

    /// Where the caller's limits stand. `None` if no limit counts the request: the RPC is public or free, or there is no `RateLimitLayer`.
    fn decision(&self) -> Option<&Decision> {
        context(self)?.decision()
    }

    /// Waits until the caller has ended: its key is revoked or expires, or its tenant is suspended. `None` for an anonymous request and for
    /// one to a public RPC. See [`Ended`].
    fn ended(&self) -> Option<Ended> {
        Ended::of(self.context_extensions())
    }

    /// By what the handler reports the actual cost of the request, in credits.
    ///
    /// # Errors
    /// `INTERNAL` without an outer `CreditsLayer`.
    fn credits(&self) -> Result<&CreditMeter, Status> {
        context(self).and_then(RequestContext::credits).ok_or_else(|| {
            missing(
                self,
                "RequestExt::credits requires a CreditsLayer: put a CreditsLayer around the service",
            )
        })
    }

    /// By what the handler charges the messages of a stream.
    ///
    /// ```
    /// use tollgate_tonic::{Details, RequestExt};
    /// use tonic::{Request, Status, Streaming};
    ///
    /// async fn upload(request: Request<Streaming<String>>, details: Details) -> Result<(), Status> {
    ///     let meter = request.messages()?.clone();
    ///     let mut messages = request.into_inner();
    ///     while let Some(_message) = messages.message().await? {
    ///         // The charge has logged a refusal already, so it needs no other event.
    ///         meter.charge(1).await.map_err(|denial| details.status(&denial))?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// `INTERNAL` without an outer `MessageLayer`.
    fn messages(&self) -> Result<&MessageMeter, Status> {
        context(self).and_then(RequestContext::messages).ok_or_else(|| {
            missing(
                self,
                "RequestExt::messages requires a MessageLayer: put a MessageLayer around the service, \
                 or add .messages(..) to the stack",
            )
        })
    }

    /// A status that refuses the request as the layers do: from the same responder, with its details and its metadata, and with the same
    /// event in the log, whose field `layer` is `handler`. The denial is the source of the status.
    ///
    /// The event has the path `/`, because tonic does not give handlers the path: the request's identifier says which request it is. Without
    /// a responder for gRPC, the status has no details. **A responder that is chosen by path**, such as a
    /// [`ByRequest`](tollgate::respond::ByRequest), sees `/` as well, and may choose another one than for the layers: choose by
    /// [`GrpcKind`](tollgate::respond::GrpcKind).
    ///
    /// ```
    /// use tollgate::{Denial, DenialKind};
    /// use tollgate_tonic::RequestExt;
    /// use tonic::{Request, Status};
    ///
    /// fn check<T>(request: &Request<T>, symbol: &str) -> Result<(), Status> {
    ///     if symbol == "BTCUSD" {
    ///         return Ok(());
    ///     }
    ///     Err(request.refuse(Denial::new(DenialKind::Forbidden).with_detail("This key may see BTCUSD only.")))
    /// }
    /// assert_eq!(check(&Request::new(()), "ETHUSD").unwrap_err().code(), tonic::Code::PermissionDenied);
    /// ```
    fn refuse(&self, denial: impl Into<Denial>) -> Status {
        status::refuse("handler", denial.into(), self.context_extensions())
    }

    /// What the layers know about the request, to keep after the request is consumed: in the task of a stream, for example. It does not have
    /// the caller's credential, so that the secret is not kept in memory as long as a stream is open.
    fn call_context(&self) -> CallContext {
        let mut extensions = Extensions::new();
        RequestContext::copy_without_credential(self.context_extensions(), &mut extensions);
        CallContext { extensions: Arc::new(extensions) }
    }
}

impl<T> RequestExt for tonic::Request<T> {
    fn context_extensions(&self) -> &Extensions {
        self.extensions()
    }
}

impl RequestExt for Extensions {
    fn context_extensions(&self) -> &Extensions {
        self
    }
}

/// What the layers know about a request, after the request is consumed: see [`RequestExt::call_context`]. A clone is cheap.
///
/// ```
/// use tollgate::DenialKind;
/// use tollgate_tonic::RequestExt;
/// use tonic::{Request, Status, Streaming};
///
/// async fn chat(request: Request<Streaming<String>>) -> Result<(), Status> {
///     let context = request.call_context();
///     let mut messages = request.into_inner();
///     while let Some(message) = messages.message().await? {
///         if message == "secret" {
///             return Err(context.refuse(DenialKind::Forbidden));
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct CallContext {
    extensions: Arc<Extensions>,
}

impl RequestExt for CallContext {
    fn context_extensions(&self) -> &Extensions {
        &self.extensions
    }
}

impl fmt::Debug for CallContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallContext").field("context", &RequestContext::of(&self.extensions)).finish()
    }
}

fn context<R: RequestExt + ?Sized>(request: &R) -> Option<&RequestContext> {
    RequestContext::of(request.context_extensions())
}

/// A layer is missing. `log_detail` names it.
#[cold]
fn missing<R: RequestExt + ?Sized>(request: &R, log_detail: &'static str) -> Status {
    refused_by_this(request, Denial::misconfigured(log_detail))
}

#[cold]
fn refused_by_this<R: RequestExt + ?Sized>(request: &R, denial: Denial) -> Status {
    status::refuse("RequestExt", denial, request.context_extensions())
}
