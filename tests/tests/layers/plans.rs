//! Plans: those of tenants, and those that are looked up before limits.

use tests::suite::{Backend, Inner, SlowEntitlements, Stack, at, erase, get, send, with_key};
use tollgate::{
    CredentialLayer, DenialKind, EntitlementLayer, Environment, KeyFormat, KeyVerifier, MemoryKeys,
    PerWindow as _, Plan, PlanLayer, Policy, Principal, RateLimitLayer, RequestContext, Tollgate,
    VerifyLayer,
    clock::ManualClock,
    layers::TollgateBuilder,
    limit::Subject,
    verify::{Entitlements, entitlements_sync_fn},
};
use tower::Layer as _;

struct Api {
    format: KeyFormat,
    keys: MemoryKeys,
}

impl Api {
    fn new() -> Self {
        Self { format: KeyFormat::new("sk").unwrap(), keys: MemoryKeys::new() }
    }

    fn issue(&self, principal: Principal) -> String {
        self.keys.issue(&self.format, Environment::Live, principal).unwrap().expose_secret().to_owned()
    }

    /// One counter for each tenant, whose quota depends on the plan.
    fn limited(&self) -> TollgateBuilder {
        let policy = Policy::new("organization", 60.per_minute()).with_subject(Subject::Tenant);
        let limit = RateLimitLayer::from_policies([policy.with_tier("pro", 600.per_minute())]).unwrap();
        let verifier = KeyVerifier::new(self.format.clone(), self.keys.clone());
        Tollgate::builder().verify(verifier).rate_limit(limit).clock(ManualClock::at(at(0)))
    }
}

fn stack(builder: TollgateBuilder) -> (Stack, Inner) {
    let inner = Inner::new();
    (erase(builder.build().unwrap().layer(inner.clone())), inner)
}

/// The limit and what remains of it, as the caller sees them.
async fn limit(stack: &mut Stack, key: &str) -> (String, String) {
    let reply = send(stack, with_key(key)).await;
    (reply.header("x-ratelimit-limit"), reply.header("x-ratelimit-remaining"))
}

fn shown(limit: u64, remaining: u64) -> (String, String) {
    (limit.to_string(), remaining.to_string())
}

/// With a plan for each key, keys that were issued before an upgrade had another limit than later keys, on the same counter.
#[tokio::test]
async fn all_keys_of_a_tenant_have_one_limit_after_an_upgrade() {
    let api = Api::new();
    let key = |id: &str| api.issue(Principal::new(id).with_tenant("acme"));
    let (before, (mut stack, _)) = (key("before"), stack(api.limited()));
    assert_eq!(limit(&mut stack, &before).await, shown(60, 59));
    api.keys.set_tenant_plan("acme", Plan::active("pro"));
    let after = key("after");
    assert_eq!(limit(&mut stack, &before).await, shown(600, 598));
    assert_eq!(limit(&mut stack, &after).await, shown(600, 597));
    let own = api.issue(Principal::new("own").with_tenant("acme").with_plan(Plan::active("basic")));
    assert_eq!(limit(&mut stack, &own).await, shown(60, 56), "a key with a plan of its own");
    api.keys.set_tenant_plan("acme", Plan::lapsed("pro"));
    assert_eq!(limit(&mut stack, &after).await, shown(60, 55));
}

/// `acme` has a plan.
fn plans() -> impl Entitlements {
    entitlements_sync_fn(|principal: &Principal| {
        Ok((principal.tenant() == Some("acme")).then(|| Plan::active("pro")))
    })
}

#[tokio::test]
async fn a_plan_is_looked_up_before_limits_and_not_required() {
    let api = Api::new();
    let acme = api.issue(Principal::new("ada").with_tenant("acme"));
    // What is looked up replaces the principal's plan, also if nothing is found.
    let umbrella = api.issue(Principal::new("bob").with_tenant("umbrella").with_plan(Plan::active("pro")));
    let (mut stack, inner) = stack(api.limited().plan(plans()));
    assert_eq!(limit(&mut stack, &acme).await, shown(600, 599));
    let plan = |inner: &Inner| {
        let request = inner.take_last();
        RequestContext::of(request.extensions()).unwrap().plan().map(|plan| plan.tier().to_owned())
    };
    assert_eq!(plan(&inner).as_deref(), Some("pro"));
    assert_eq!(limit(&mut stack, &umbrella).await, shown(60, 59));
    assert_eq!((plan(&inner), inner.calls()), (None, 2));
}

#[tokio::test]
async fn an_entitlement_layer_requires_the_plan_that_was_looked_up() {
    let api = Api::new();
    let acme = api.issue(Principal::new("ada").with_tenant("acme"));
    let umbrella = api.issue(Principal::new("bob").with_tenant("umbrella").with_plan(Plan::active("pro")));
    let (mut stack, inner) = stack(api.limited().plan(plans()).entitlement(EntitlementLayer::new()));
    assert_eq!(send(&mut stack, with_key(&acme)).await.kind(), None);
    let refused = send(&mut stack, with_key(&umbrella)).await;
    assert_eq!((refused.kind(), inner.calls()), (Some(DenialKind::EntitlementInactive), 1));
    assert_eq!(refused.header("x-ratelimit-limit"), "60");
}

#[tokio::test]
async fn an_anonymous_caller_has_no_plan_and_passes() {
    let inner = Inner::new();
    let layers = (CredentialLayer::new().with_anonymous(), PlanLayer::new(SlowEntitlements(Backend::down())));
    let mut stack = erase(layers.layer(inner.clone()));
    assert_eq!(send(&mut stack, get("/", &[])).await.kind(), None);
    assert_eq!(inner.calls(), 1);
}

/// Regression: after an inner layer had verified another principal, the plan of the outer stack's principal still applied.
#[tokio::test]
async fn a_plan_that_was_found_belongs_to_its_principal_alone() {
    let outer = entitlements_sync_fn(|_: &Principal| Ok(Some(Plan::active("enterprise"))));
    let backend = Backend::prompt();
    let directory = |id| tests::suite::Directory::new(&backend).with("key", Principal::new(id));
    let layers = (
        Tollgate::builder().verify(directory("ada")).plan(PlanLayer::new(outer)).build().unwrap(),
        (VerifyLayer::new(directory("bob")), EntitlementLayer::new()),
    );
    let mut stack = erase(layers.layer(Inner::new()));
    let refused = send(&mut stack, with_key("key")).await;
    assert_eq!(refused.kind(), Some(DenialKind::EntitlementInactive));
}
