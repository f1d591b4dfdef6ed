//! What a layer allows, what it refuses, and what it logs.

use http::StatusCode;
use tests::suite::{Backend, Case, Entry, Failure, Inner, Log, World, failing, get, send, try_send};
use tollgate::{DenialKind, RequestContext, layers::ReportOnly};
use tracing::Level;

pub(crate) async fn allows(case: &Case) {
    let inner = Inner::new();
    let mut stack = case.build(&World::new(), &inner, 1);
    let reply = send(&mut stack, case.allowed()).await;
    assert_eq!((reply.status(), reply.body()), (StatusCode::OK, "inside"), "{reply:?}");
    assert_eq!(inner.calls(), 1);
    assert_eq!(reply.kind(), None);
    assert!(RequestContext::of(inner.take_last().extensions()).is_some());
}

pub(crate) async fn refuses(case: &Case) {
    let inner = Inner::new();
    let mut stack = case.build(&World::new(), &inner, 1);
    let Some(refusal) = case.refusal else {
        // A layer that never refuses lets an invalid request pass.
        let reply =
            send(&mut stack, get("/", &[("x-request-id", "<script>"), ("authorization", "?!")])).await;
        assert_eq!((reply.status(), reply.kind(), inner.calls()), (StatusCode::OK, None, 1));
        return;
    };
    let reply = send(&mut stack, (refusal.request)()).await;
    assert_eq!((reply.status(), reply.kind()), (refusal.status, Some(refusal.kind)), "{reply:?}");
    assert_eq!(inner.calls(), 0, "a refusal never calls the inner service");
    assert_ne!(reply.body(), "inside");
    assert_eq!(reply.header("cache-control"), "private, no-store");

    assert_eq!(
        send(&mut stack, case.allowed()).await.status(),
        StatusCode::OK,
        "a refusal leaves no extension"
    );
    assert_eq!(inner.calls(), 1);
}

pub(crate) async fn logs_a_refusal_once(case: &Case) {
    let Some(refusal) = case.refusal else { return };
    let mut stack = case.build(&World::new(), &Inner::new(), 1);
    let log = Log::start();
    send(&mut stack, case.allowed()).await;
    assert!(log.refusals().is_empty(), "{log:?}");

    let reply = send(&mut stack, (refusal.request)()).await;
    let entry = only(log.refusals());
    expect_refusal(&entry, case, refusal.kind, Level::INFO, "false");
    assert_eq!(entry.field("request_id"), Some(&*reply.header("x-request-id")));
    assert_eq!(entry.field("tenant"), refusal.is_proven.then_some("acme"));
    assert_eq!(entry.field("principal").is_some(), refusal.is_proven);
}

pub(crate) async fn only_reports_in_report_only_mode(case: &Case) {
    let report = ReportOnly::new();
    let inner = Inner::new();
    let mut stack = case.build(&World::reporting_to(&report), &inner, 1);
    send(&mut stack, case.allowed()).await;
    assert_eq!((report.refusals(), inner.calls()), (0, 1));

    let Some(refusal) = case.refusal else { return };
    let log = Log::start();
    let reply = send(&mut stack, (refusal.request)()).await;
    assert_eq!((reply.status(), reply.kind(), inner.calls()), (StatusCode::OK, None, 2), "{reply:?}");
    assert_eq!(report.refusals(), 1);
    expect_refusal(&only(log.refusals()), case, refusal.kind, Level::INFO, "true");
}

pub(crate) async fn fails_closed_when_its_backend_is_down(case: &Case) {
    if !case.has_backend {
        return;
    }
    let inner = Inner::new();
    let mut stack = case.build(&World::with_backend(Backend::down()), &inner, 1);
    let log = Log::start();
    let reply = send(&mut stack, case.allowed()).await;
    assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.kind(), Some(DenialKind::Unavailable));
    assert_eq!(inner.calls(), 0);

    let entry = only(log.refusals());
    assert_eq!((entry.level, entry.field("reason")), (Level::WARN, Some("unavailable")));
    assert_eq!(entry.field("detail"), Some("the test has switched this backend off"));
    assert!(
        !format!("{reply:?}", reply = reply.body()).contains("switched"),
        "the response does not name the backend"
    );
}

pub(crate) async fn answers_500_without_the_layer_that_it_needs(case: &Case) {
    for report in [None, Some(ReportOnly::new())] {
        let world = World { report_only: report.clone(), ..World::new() };
        let inner = Inner::new();
        let log = Log::start();
        let reply = send(&mut case.build_alone(&world, &inner), case.allowed()).await;
        let Some(needed) = case.needs else {
            assert_eq!(
                (reply.status(), inner.calls()),
                (StatusCode::OK, 1),
                "this layer needs no other layer"
            );
            continue;
        };
        assert_eq!(reply.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(reply.kind(), Some(DenialKind::Misconfigured));
        assert_eq!(inner.calls(), 0);
        assert!(!reply.body().contains("Layer"), "the response reveals nothing internal: {}", reply.body());

        let entry = only(log.refusals());
        expect_refusal(&entry, case, DenialKind::Misconfigured, Level::ERROR, "false");
        assert!(entry.field("detail").is_some_and(|detail| detail.contains(needed)), "{entry:?}");
        assert_eq!(entry.field("request_id"), Some(&*reply.header("x-request-id")));
        assert_eq!(
            report.map_or(0, |report| report.refusals()),
            0,
            "a misconfiguration is not a reported refusal"
        );
    }
}

pub(crate) async fn passes_inner_errors_untouched(case: &Case) {
    let inner = failing();
    let mut stack = case.build(&World::new(), &inner, 1);
    let log = Log::start();
    let error = try_send(&mut stack, case.allowed()).await.unwrap_err();
    assert_eq!(error, Failure("the inner service's own error"));
    assert_eq!(inner.calls(), 1, "called once");
    assert!(log.refusals().is_empty());
}

pub(crate) async fn clones_share_state(case: &Case) {
    let Some(refusal) = case.refusal else { return };
    let report = ReportOnly::new();
    let mut stack = case.build(&World::reporting_to(&report), &Inner::new(), 1);
    for _ in 0..3 {
        send(&mut stack.clone(), (refusal.request)()).await;
    }
    send(&mut stack, (refusal.request)()).await;
    assert_eq!(report.refusals(), 4);
}

fn only(mut entries: Vec<Entry>) -> Entry {
    assert_eq!(entries.len(), 1, "{entries:#?}");
    entries.remove(0)
}

/// The field names of the log are stable: users search for them.
const NAMES: [&str; 12] = [
    "code",
    "detail",
    "layer",
    "message",
    "method",
    "path",
    "principal",
    "reason",
    "report_only",
    "request_id",
    "status",
    "tenant",
];

/// Target, level and values are stable, too.
fn expect_refusal(entry: &Entry, case: &Case, kind: DenialKind, level: Level, report_only: &str) {
    assert_eq!((&*entry.target, entry.level), ("tollgate", level));
    assert_eq!(entry.field("layer"), Some(case.layer));
    assert_eq!(entry.field("reason"), Some(kind.reason()));
    assert_eq!(entry.field("status"), Some(kind.status().as_str()));
    assert_eq!(entry.field("report_only"), Some(report_only));
    assert!(entry.field("detail").is_some());
    assert_eq!(entry.field("method"), Some("GET"));
    assert!(entry.field("path").is_some_and(|path| path.starts_with('/')), "{entry:?}");
    let unknown: Vec<_> = entry.fields.keys().filter(|name| !NAMES.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
