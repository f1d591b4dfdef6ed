//! Requests without a credential.

use std::{
    any::Any,
    error::Error,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, request::Builder};
use http_body_util::Full;
use tokio::time::timeout;
use tower_service::Service;

use super::{
    answer::{Answer, Verdict},
    routes::{Route, Routes, USUAL_METHODS, fallback_request, http_request, rpc_request},
};

/// How long a route may take to answer: 5 seconds. Refusing takes much less, so a route that answers later has accepted the request.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// A gRPC message of no bytes: not compressed, length 0.
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// Tries one of the routes. Returns what was found, each under its name.
pub(super) async fn route<S, R>(service: &S, route: &Route, routes: &Routes) -> Vec<(String, Verdict)>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match route {
        Route::Method(method, path) => {
            let verdict = send(service, http_request(method.clone(), path), &[]).await;
            vec![(format!("{method} {path}"), counted(verdict))]
        }
        Route::AnyMethod(path) => {
            let mut found = Vec::new();
            for method in USUAL_METHODS {
                let verdict = send(service, http_request(method.clone(), path), &[]).await;
                found.push((method, verdict));
            }
            let is_unknown = found.iter().all(|(_, verdict)| matches!(verdict, Verdict::NoSuchMethod(_)));
            if is_unknown && !routes.has_method_of(path) {
                return vec![(format!("ANY {path}"), Verdict::Undecided(Answer::NoUsualMethod))];
            }
            together(found, path)
        }
        Route::Fallback(prefix) => {
            let name = if prefix == "/" { "fallback".to_owned() } else { format!("fallback {prefix}") };
            let [first, others @ ..] = USUAL_METHODS;
            let mut worst = send(service, fallback_request(first, prefix), &[]).await;
            for method in others {
                let verdict = send(service, fallback_request(method, prefix), &[]).await;
                if severity(&verdict) > severity(&worst) {
                    worst = verdict;
                }
            }
            vec![(name, counted(worst))]
        }
        Route::Rpc(name) => {
            let verdict = send(service, rpc_request(name), EMPTY_MESSAGE).await;
            vec![(name.clone(), counted(verdict))]
        }
    }
}

/// A route that is listed by mistake, or a fallback that has no method, is reported like any other that no layer guards.
fn counted(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::NoSuchMethod(answer) => Verdict::Open(answer),
        verdict => verdict,
    }
}

/// Names what was found for the methods of a path: `ANY` if all are open, and otherwise each. A router answers HEAD wherever it answers
/// GET.
fn together(mut found: Vec<(Method, Verdict)>, path: &str) -> Vec<(String, Verdict)> {
    let is_open = |(_, verdict): &(Method, Verdict)| matches!(verdict, Verdict::Open(_));
    if found.iter().all(is_open) {
        return found.into_iter().take(1).map(|(_, verdict)| (format!("ANY {path}"), verdict)).collect();
    }
    if found.iter().any(|one| one.0 == Method::GET && is_open(one)) {
        found.retain(|(method, _)| method != Method::HEAD);
    }
    found.into_iter().map(|(method, verdict)| (format!("{method} {path}"), verdict)).collect()
}

fn severity(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::NoSuchMethod(_) => 0,
        Verdict::Guarded => 1,
        Verdict::Undecided(_) => 2,
        Verdict::Open(_) => 3,
    }
}

async fn send<S, R>(service: &S, request: Builder, body: &'static [u8]) -> Verdict
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    // Each part of the request was checked when its route was added.
    let request = request.body(Full::new(Bytes::from_static(body))).unwrap();
    let mut service = service.clone();
    let answer = caught(async move {
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(request).await
    });
    match timeout(DEADLINE, answer).await {
        Ok(Ok(Ok(response))) => Verdict::of(&response),
        Ok(Ok(Err(error))) => Verdict::Open(Answer::Failed(error.into().to_string())),
        Ok(Err(_panic)) => Verdict::Open(Answer::Panicked),
        Err(_elapsed) => Verdict::Open(Answer::Pending),
    }
}

/// The output of a future, or its panic: a handler that does not expect an empty request must not end the test.
async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}
