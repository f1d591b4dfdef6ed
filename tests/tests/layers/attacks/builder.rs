//! A stack that cannot work as configured is an error at start-up. The error names the layer.

use tests::suite::{Backend, Directory, SlowEntitlements};
use tollgate::{
    ConfigurationError, CredentialLayer, EntitlementLayer, PerWindow as _, PlanLayer, Policy, RateLimitLayer,
    RequestIdLayer, ScopeLayer, Tollgate, VerifyLayer,
    clock::ManualClock,
    layers::TollgateBuilder,
    limit::{PolicyName, Subject},
    respond::Problem,
    scope::{ScopeMap, scope},
    verify::CredentialSource,
};

use super::shared_limit;

fn builder() -> TollgateBuilder {
    Tollgate::builder().verify(Directory::default())
}

fn verify() -> VerifyLayer {
    VerifyLayer::new(Directory::default())
}

/// Asserts that building fails with an error that contains these words.
#[track_caller]
fn refuses(stack: TollgateBuilder, words: &[&str]) {
    expect(&stack.build().unwrap_err(), words);
}

#[track_caller]
fn expect(error: &ConfigurationError, words: &[&str]) {
    let error = error.to_string();
    for word in words {
        assert!(error.contains(word), "{word} is missing: {error}");
    }
}

#[test]
fn refuses_a_stack_without_a_verifier() {
    refuses(Tollgate::builder(), &["no verifier", ".verify("]);
    let without_verifier = Tollgate::builder().rate_limit(1.per_day()).scope(scope("read"));
    refuses(without_verifier, &["no verifier"]);
}

/// Only one of them would apply, perhaps the wrong one.
#[test]
fn refuses_the_same_layer_twice() {
    let two = |stack: TollgateBuilder, layer: &str| refuses(stack, &["two of", layer]);
    two(builder().request_id(RequestIdLayer::new()).request_id(RequestIdLayer::new()), "RequestIdLayer");
    two(builder().credential(CredentialLayer::new()).credential(CredentialLayer::new()), "CredentialLayer");
    two(builder().verify(Directory::default()), "VerifyLayer");
    two(
        builder().plan(SlowEntitlements(Backend::prompt())).plan(SlowEntitlements(Backend::prompt())),
        "PlanLayer",
    );
    two(builder().rate_limit(1.per_day()).rate_limit(9.per_day()), "RateLimitLayer");
    two(
        builder().entitlement(EntitlementLayer::new()).entitlement(EntitlementLayer::new()),
        "EntitlementLayer",
    );
    two(builder().scope(scope("read")).scope(scope("admin")), "ScopeLayer");
}

/// The builder's responder, clock and realm replace those of its layers, so a layer's own would be lost.
#[test]
fn refuses_a_layer_with_its_own_responder_clock_or_realm() {
    let own = |stack: TollgateBuilder, layer: &str| refuses(stack, &[layer, "of its own"]);
    macro_rules! each_setting {
        ($builder:expr, $method:ident, $layer:expr, $name:literal) => {
            own($builder.$method($layer.with_responder(Problem::new())), $name);
            own($builder.$method($layer.with_clock(ManualClock::default())), $name);
            own($builder.$method($layer.with_realm("jobs")), $name);
        };
    }
    each_setting!(builder(), request_id, RequestIdLayer::new(), "RequestIdLayer");
    each_setting!(builder(), credential, CredentialLayer::new(), "CredentialLayer");
    each_setting!(Tollgate::builder(), verify, verify(), "VerifyLayer");
    each_setting!(builder(), plan, PlanLayer::new(SlowEntitlements(Backend::prompt())), "PlanLayer");
    each_setting!(builder(), rate_limit, RateLimitLayer::new(1.per_day()), "RateLimitLayer");
    each_setting!(builder(), entitlement, EntitlementLayer::new(), "EntitlementLayer");
    each_setting!(builder(), scope, ScopeLayer::new(scope("read")).unwrap(), "ScopeLayer");
}

/// A caller could avoid every limit by sending no key.
#[test]
fn refuses_optional_credentials_with_limits_that_count_by_principal_only() {
    let optional = || CredentialLayer::new().with_anonymous();
    let words = ["RateLimitLayer", "CredentialLayer", "anonymous", "Subject::custom"];
    refuses(builder().credential(optional()).rate_limit(1.per_day()), &words);
    refuses(builder().rate_limit(1.per_day()).credential(optional()), &words);
    let tenant = Policy::new("organization", 1.per_day()).with_subject(Subject::Tenant);
    refuses(
        builder().credential(optional()).rate_limit(RateLimitLayer::from_policies([tenant]).unwrap()),
        &words,
    );

    assert!(builder().credential(optional()).rate_limit(shared_limit(1.per_day())).build().is_ok());
    assert!(builder().credential(optional()).build().is_ok(), "without any limit");
}

#[test]
fn refuses_an_invalid_scope() {
    refuses(builder().scope(scope("not valid")), &["ScopeLayer", "not valid"]);
    refuses(builder().scope(scope("read") | scope("")), &["ScopeLayer"]);
    let map = ScopeMap::new().get("/jobs", scope("not valid"));
    expect(&ScopeLayer::per_route(map).unwrap_err(), &["ScopeMap", "GET /jobs", "not valid"]);
}

#[test]
fn refuses_a_tier_that_is_not_in_the_list_of_tiers() {
    let entitlement = EntitlementLayer::at_least("entreprise", ["basic", "pro", "enterprise"]);
    expect(&entitlement.unwrap_err(), &["EntitlementLayer", "entreprise", "list of tiers"]);
}

/// Policies with the same name would share counters.
#[test]
fn refuses_policies_with_the_same_name() {
    let policies = [
        Policy::new("key", 1.per_day()),
        Policy::new("organization", 9.per_day()).with_subject(Subject::Tenant),
        Policy::new(PolicyName::interned("key"), 9.per_hour()),
    ];
    expect(&RateLimitLayer::from_policies(policies).unwrap_err(), &["RateLimitLayer", "\"key\""]);
}

#[test]
fn refuses_a_limit_without_policies() {
    expect(&RateLimitLayer::from_policies([]).unwrap_err(), &["RateLimitLayer", "no policy"]);
}

#[test]
fn refuses_credentials_without_a_source() {
    let nowhere = CredentialLayer::from_sources([] as [CredentialSource; 0]);
    expect(&nowhere.unwrap_err(), &["CredentialLayer", "no source"]);
}

/// A separate layer has no builder, so its constructor refuses.
#[test]
fn refuses_an_invalid_scope_in_a_separate_layer() {
    expect(&ScopeLayer::new(scope("not valid")).unwrap_err(), &["ScopeLayer", "not valid"]);
    expect(&ScopeLayer::new(scope("read") | scope("")).unwrap_err(), &["ScopeLayer"]);
}
