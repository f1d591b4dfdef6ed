//! The contract of `poll_ready`. `ConcurrencyLimit` panics if it is called before it is ready, and returns its permit only when the
//! ready service is called or dropped. The inner service checks the same.

use std::pin::pin;

use http::{Request, StatusCode};
use tests::suite::{Backend, Case, Inner, Latch, Reply, Stack, World, is_pending, is_ready_now, send};
use tower::Service;

pub(crate) async fn calls_only_ready_services(case: &Case) {
    let inner = Inner::new();
    let mut stack = case.build(&World::new(), &inner, 2);
    let mut clone = stack.clone();
    let mut allowed = 0;
    for round in 0..100 {
        let service = if round % 3 == 0 { &mut clone } else { &mut stack };
        match case.refusal {
            Some(refusal) if round % 2 == 0 => {
                assert_eq!(send(service, (refusal.request)()).await.status(), refusal.status);
            }
            _ => {
                assert_eq!(send(service, case.allowed()).await.status(), StatusCode::OK);
                allowed += 1;
            }
        }
    }
    assert_eq!(inner.calls(), allowed);
}

pub(crate) async fn a_refused_and_idle_service_holds_no_permit(case: &Case) {
    let Some(refusal) = case.refusal else { return };
    let mut refused = case.build(&World::new(), &Inner::new(), 1);
    let mut sibling = refused.clone();
    assert!(is_ready_now(&mut refused));
    assert!(!is_ready_now(&mut sibling), "the only permit is taken");

    // The refused future is not polled yet, and the idle service stays alive.
    let response = refused.call((refusal.request)());
    assert!(is_ready_now(&mut sibling));
    assert_eq!(Reply::read(response.await.unwrap()).await.status(), refusal.status);
    assert!(is_ready_now(&mut sibling));
    drop(refused);
}

pub(crate) async fn calls_a_ready_service_once_after_a_wait(case: &Case) {
    let Some((mut stack, inner, latch)) = slow(case) else { return };
    let mut sibling = stack.clone();
    {
        let mut response = pin!(call(&mut stack, case.allowed()));
        assert!(is_pending(response.as_mut()));
        assert_eq!(inner.calls(), 0, "the inner service is not called before the backend answers");
        assert!(!is_ready_now(&mut sibling.clone()), "the waiting call keeps its readiness");
        latch.open();
        let reply = Reply::read(response.await.unwrap()).await;
        assert_eq!((reply.status(), reply.body()), (StatusCode::OK, "inside"), "{reply:?}");
    }
    assert_eq!(inner.calls(), 1);

    assert_eq!(
        send(&mut stack, case.allowed()).await.status(),
        StatusCode::OK,
        "the clone left behind still works"
    );
    assert_eq!(send(&mut sibling, case.allowed()).await.status(), StatusCode::OK);
    assert_eq!(inner.calls(), 3);
}

pub(crate) async fn a_refusal_after_a_wait_calls_nothing_and_holds_no_permit(case: &Case) {
    let Some((mut stack, inner, latch)) = slow(case) else { return };
    let Some(refusal) = case.refusal else { return };
    let mut sibling = stack.clone();
    let response = call(&mut stack, (refusal.request)());
    latch.open();
    let reply = Reply::read(response.await.unwrap()).await;
    assert_eq!((reply.status(), reply.kind()), (refusal.status, Some(refusal.kind)), "{reply:?}");
    assert_eq!(inner.calls(), 0);
    assert!(is_ready_now(&mut sibling));
    drop(stack);
}

pub(crate) async fn dropping_a_call_half_way_leaks_no_permit(case: &Case) {
    let Some((mut stack, inner, latch)) = slow(case) else { return };
    let mut sibling = stack.clone();
    {
        let mut response = pin!(call(&mut stack, case.allowed()));
        assert!(is_pending(response.as_mut()));
        assert!(!is_ready_now(&mut sibling));
    }
    assert!(is_ready_now(&mut sibling), "dropping the call returns the permit");
    assert_eq!(inner.calls(), 0);

    latch.open();
    let reply = Reply::read(sibling.call(case.allowed()).await.unwrap()).await;
    assert_eq!((reply.status(), inner.calls()), (StatusCode::OK, 1));
    assert_eq!(send(&mut stack, case.allowed()).await.status(), StatusCode::OK);
}

/// The layer with a backend that waits, around an inner service that serves one request at a time. `None` if the layer has no
/// backend.
fn slow(case: &Case) -> Option<(Stack, Inner, Latch)> {
    let (inner, latch) = (Inner::new(), Latch::shut());
    let stack = case.build(&World::with_backend(Backend::slow(&latch)), &inner, 1);
    case.has_backend.then_some((stack, inner, latch))
}

/// Calls a service that is ready at once.
fn call(stack: &mut Stack, request: Request<String>) -> <Stack as Service<Request<String>>>::Future {
    assert!(is_ready_now(stack));
    stack.call(request)
}
