//! Checks of the application's own.

use http::StatusCode;
use tests::suite::{Directory, Inner, Log, Stack, World, erase, get, send, with_key};
use tollgate::{
    CredentialLayer, Denial, DenialKind, Plan, PlanLayer, Principal, Tollgate,
    denial::Unavailable,
    guard::{GuardRequest, guard_fn, guard_sync_fn},
    layers::ReportOnly,
    respond::Json,
    verify::entitlements_sync_fn,
};
use tower::Layer as _;

fn directory() -> Directory {
    Directory::new(&World::new().backend)
        .with("ada", Principal::new("ada").with_tenant("acme"))
        .with("bob", Principal::new("bob").with_tenant("globex"))
}

fn of_acme(request: &GuardRequest<'_>) -> Result<(), Denial> {
    match request.authenticated()?.tenant() {
        Some("acme") => Ok(()),
        _ => Err(Denial::new(DenialKind::Forbidden).with_code("pilot_only").with_detail("Join the pilot.")),
    }
}

fn stack(tollgate: &Tollgate, inner: &Inner) -> Stack {
    erase(tollgate.layer(inner.clone()))
}

#[tokio::test]
async fn admits_and_refuses_by_the_principal_with_a_denial_of_its_own() {
    let tollgate = Tollgate::builder().verify(directory()).guard(guard_sync_fn(of_acme));
    let inner = Inner::new();
    let mut stack = stack(&tollgate.build().unwrap(), &inner);
    assert_eq!(send(&mut stack, with_key("ada")).await.status(), StatusCode::OK);
    let refused = send(&mut stack, with_key("bob")).await;
    assert_eq!((refused.status(), refused.kind()), (StatusCode::FORBIDDEN, Some(DenialKind::Forbidden)));
    assert_eq!(refused.json()["code"], "pilot_only");
    assert_eq!(refused.json()["detail"], "Join the pilot.");
    assert_eq!(inner.calls(), 1);
}

#[tokio::test]
async fn a_check_may_ask_a_backend_and_read_the_head() {
    async fn owner_of(project: String) -> Result<&'static str, Unavailable> {
        tokio::task::yield_now().await;
        match project.as_str() {
            "p1" => Ok("acme"),
            "p2" => Ok("globex"),
            _ => Err(Unavailable::new("the project service does not answer")),
        }
    }
    let guard = guard_fn(|request: &GuardRequest<'_>| {
        let project = request.head.uri.path().trim_start_matches('/').to_owned();
        let caller = request.authenticated().cloned();
        async move {
            if caller?.tenant() == Some(owner_of(project).await?) {
                return Ok(());
            }
            Err(Denial::new(DenialKind::Forbidden))
        }
    });
    let tollgate = Tollgate::builder().verify(directory()).guard(guard).build().unwrap();
    let mut stack = stack(&tollgate, &Inner::new());
    for (path, key, status) in [
        ("/p1", "ada", StatusCode::OK),
        ("/p2", "ada", StatusCode::FORBIDDEN),
        ("/p2", "bob", StatusCode::OK),
        ("/p3", "bob", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let reply = send(&mut stack, get(path, &[("x-api-key", key)])).await;
        assert_eq!(reply.status(), status, "{path} {key}");
    }
}

#[tokio::test]
async fn several_guards_run_in_order_and_the_log_names_the_one_that_refuses() {
    use tollgate::GuardLayer;

    let refusing = |code: &'static str| {
        guard_sync_fn(move |request: &GuardRequest<'_>| match request.head.headers.get("x-refuse") {
            Some(by) if by == code => Err(Denial::new(DenialKind::Forbidden).with_code(code)),
            _ => Ok(()),
        })
    };
    let tollgate = Tollgate::builder()
        .verify(directory())
        .guard(GuardLayer::new(refusing("both")).with_name("FirstGuard"))
        .guard(GuardLayer::new(refusing("both")).with_name("SecondGuard"))
        .guard(GuardLayer::new(refusing("last")).with_name("LastGuard"))
        .build()
        .unwrap();
    let mut stack = stack(&tollgate, &Inner::new());
    for (refuse, layer) in [("both", Some("FirstGuard")), ("last", Some("LastGuard")), ("no", None)] {
        let log = Log::start();
        send(&mut stack, get("/", &[("x-api-key", "ada"), ("x-refuse", refuse)])).await;
        let refusals = log.refusals();
        assert_eq!(refusals.first().and_then(|entry| entry.field("layer")), layer, "{refuse}");
        assert!(refusals.len() <= 1);
    }
}

#[tokio::test]
async fn decides_about_anonymous_callers_where_they_are_accepted() {
    let open = guard_sync_fn(|request: &GuardRequest<'_>| match request.head.uri.path() {
        "/open" => Ok(()),
        _ => request.authenticated().map(|_| ()),
    });
    let credential = CredentialLayer::new().with_anonymous();
    let tollgate = Tollgate::builder().credential(credential).verify(directory()).guard(open);
    let mut stack = stack(&tollgate.build().unwrap(), &Inner::new());
    for (path, headers, status) in [
        ("/open", &[][..], StatusCode::OK),
        ("/closed", &[], StatusCode::UNAUTHORIZED),
        ("/closed", &[("x-api-key", "ada")], StatusCode::OK),
    ] {
        assert_eq!(send(&mut stack, get(path, headers)).await.status(), status, "{path}");
    }
}

#[tokio::test]
async fn a_waived_caller_is_refused_without_asking_the_guard() {
    use tollgate::VerifyLayer;

    let verify = VerifyLayer::new(directory()).with_report_only(&ReportOnly::new());
    let tollgate = Tollgate::builder().verify(verify).guard(guard_sync_fn(|_: &GuardRequest<'_>| Ok(())));
    let mut stack = stack(&tollgate.build().unwrap(), &Inner::new());
    let reply = send(&mut stack, with_key("unknown")).await;
    assert_eq!(
        (reply.status(), reply.kind()),
        (StatusCode::UNAUTHORIZED, Some(DenialKind::CredentialMissing))
    );
}

#[tokio::test]
async fn sees_the_plan_that_a_layer_outside_has_found() {
    let billing = entitlements_sync_fn(|principal: &Principal| {
        Ok(Some(Plan::active(if principal.id() == "ada" { "pro" } else { "basic" })))
    });
    let pro = guard_sync_fn(|request: &GuardRequest<'_>| match request.plan.map(|plan| plan.tier()) {
        Some("pro") => Ok(()),
        _ => Err(Denial::new(DenialKind::TierTooLow)),
    });
    let tollgate = Tollgate::builder()
        .verify(directory())
        .plan(PlanLayer::new(billing))
        .guard(pro)
        .responder(Json::new(|denial| serde_json::json!({ "error": denial.code() })))
        .build()
        .unwrap();
    let mut stack = stack(&tollgate, &Inner::new());
    assert_eq!(send(&mut stack, with_key("ada")).await.status(), StatusCode::OK);
    let refused = send(&mut stack, with_key("bob")).await;
    assert_eq!(refused.json(), serde_json::json!({ "error": "tier_too_low" }));
}
