//! One case for each layer: how it is built with what must stand outside it, and what it allows and refuses.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use http::{Request, StatusCode};
use tollgate::{
    AttemptLimitLayer, ClientAddress, CredentialLayer, CreditsLayer, DenialKind, EntitlementLayer,
    Environment, GuardLayer, InFlightLimitLayer, MessageLayer, PerWindow as _, Plan, PlanLayer, Principal,
    RateLimitLayer, RequestContext, RequestIdLayer, ScopeLayer, Scopes, StreamEndLayer, Tollgate, UsageLayer,
    VerifyLayer,
    clock::ManualClock,
    credits::CreditCost,
    layers::{Gated, ReportOnly},
    scope::{ScopeMap, scope},
    usage::{MemoryUsage, UsageRecorder},
};
use tower::{Layer, Service, ServiceBuilder, limit::ConcurrencyLimit};

use super::{
    Backend, Directory, Failure, Inner, SlowEntitlements, SlowGuard, SlowLimiter, SlowPlaces, Stack, at,
    credits::SlowCredits, erase, get, is_ready_now, limit_by_key, send, with_key,
};

/// What a layer is built with.
#[derive(Clone)]
pub struct World {
    /// The clock of all layers.
    pub clock: ManualClock,
    /// The backend of the layer under test; what stands outside it is always prompt.
    pub backend: Backend,
    /// Whether the layer under test only reports.
    pub report_only: Option<ReportOnly>,
    /// Whether the layer is given to a builder, which sets the clock for all.
    pub is_inside_a_builder: bool,
}

impl World {
    /// All backends answer at once.
    pub fn new() -> Self {
        Self {
            clock: ManualClock::at(at(0)),
            backend: Backend::prompt(),
            report_only: None,
            is_inside_a_builder: false,
        }
    }

    /// The layer under test has this backend.
    pub fn with_backend(backend: Backend) -> Self {
        Self { backend, ..Self::new() }
    }

    /// The layer under test refuses nothing, but reports.
    pub fn reporting_to(report: &ReportOnly) -> Self {
        Self { report_only: Some(report.clone()), ..Self::new() }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// A layer under test.
#[derive(Clone, Copy)]
pub struct Case {
    /// The layer that refuses, as the log names it.
    pub layer: &'static str,
    /// The layer with everything that must stand outside it.
    pub stack: fn(&World, ConcurrencyLimit<Inner>) -> Stack,
    /// The layer inside nothing but a `RequestIdLayer`.
    pub alone: fn(&World, ConcurrencyLimit<Inner>) -> Stack,
    /// The layer that `alone` misses; `None` if the layer needs no other.
    pub needs: Option<&'static str>,
    /// Whether the layer asks a backend.
    pub has_backend: bool,
    /// What the layer refuses; `None` if nothing.
    pub refusal: Option<Refusal>,
    /// How a layer, its service, and the future of a call look in a debug print.
    pub debug: fn(&World, Request<String>) -> [String; 3],
    /// What stands outside the layer, for [`debug`](Self::debug).
    pub outside: fn(Inner) -> Stack,
}

/// A request that is refused.
#[derive(Clone, Copy)]
pub struct Refusal {
    /// The request.
    pub request: fn() -> Request<String>,
    /// The status of its refusal.
    pub status: StatusCode,
    /// The kind of its refusal.
    pub kind: DenialKind,
    /// Whether the caller is known by then.
    pub is_proven: bool,
}

/// A key that may do everything.
pub const GOOD: &str = "s3cr3t-of-ada";
/// An unknown key.
const UNKNOWN: &str = "s3cr3t-unknown";
/// A key whose quota admits nothing.
const USED_UP: &str = "s3cr3t-of-bob";
/// A key whose plan has lapsed.
const LAPSED: &str = "s3cr3t-of-cyd";
/// A key whose tier may have no request in flight.
const BUSY: &str = "s3cr3t-of-eve";
/// A key whose requests cost more credits than its account has.
const COSTLY: &str = "s3cr3t-of-fay";
/// A key without scopes and without a role.
const POWERLESS: &str = "s3cr3t-of-dan";
/// The address of a request's client, in place of a connection. Without it, the address is unknown.
const ADDRESS: &str = "x-address";
/// An address that has failed too often.
const SHUT_OUT: &str = "192.0.2.66";

fn directory(backend: &Backend) -> Directory {
    let principal = |id: &str| {
        let scopes = Scopes::new(["read"]).unwrap();
        Principal::new(id)
            .with_tenant("acme")
            .with_scopes(scopes)
            .with_plan(Plan::active("pro"))
            .with_environment(Environment::Live)
            .with_quota("key", 1_000_000.per_minute())
    };
    Directory::new(backend)
        .with(GOOD, principal("ada").with_role("member"))
        .with(USED_UP, principal("bob").with_quota("key", 0.per_minute()))
        .with(LAPSED, principal("cyd").with_plan(Plan::lapsed("pro")))
        .with(BUSY, principal("eve").with_plan(Plan::active("none")))
        .with(COSTLY, principal("fay"))
        .with(POWERLESS, principal("dan").with_scopes(Scopes::none()))
}

/// Gives a layer the world's clock and mode.
macro_rules! in_world {
    ($layer:expr, $world:expr) => {{
        let layer = $layer;
        let layer = if $world.is_inside_a_builder { layer } else { layer.with_clock($world.clock.clone()) };
        match &$world.report_only {
            Some(report) => layer.with_report_only(report),
            None => layer,
        }
    }};
}

fn request_id(world: &World) -> RequestIdLayer {
    in_world!(RequestIdLayer::new(), world)
}

fn attempt_limit(world: &World) -> AttemptLimitLayer {
    let address = ClientAddress::of_peer(|head| {
        let named = head.headers.get(ADDRESS).and_then(|address| address.to_str().ok()?.parse().ok());
        Some(named.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
    });
    let quota = 1.per_minute();
    let limiter = SlowLimiter::new(&world.backend);
    limiter.use_up("failed-attempts", SHUT_OUT, &quota);
    in_world!(AttemptLimitLayer::new(quota, address).with_limiter(limiter), world)
}

fn credential(world: &World) -> CredentialLayer {
    in_world!(CredentialLayer::new(), world)
}

fn verify(world: &World) -> VerifyLayer {
    in_world!(VerifyLayer::new(directory(&world.backend)), world)
}

fn plan(world: &World) -> PlanLayer {
    in_world!(PlanLayer::new(SlowEntitlements(world.backend.clone())), world)
}

fn rate_limit(world: &World) -> RateLimitLayer {
    in_world!(limit_by_key(60.per_minute(), SlowLimiter::new(&world.backend)), world)
}

fn entitlement(world: &World) -> EntitlementLayer {
    in_world!(EntitlementLayer::new(), world)
}

fn one_scope(world: &World) -> ScopeLayer {
    in_world!(ScopeLayer::new(scope("read")).unwrap(), world)
}

fn scope_map(world: &World) -> ScopeLayer {
    in_world!(ScopeLayer::per_route(ScopeMap::new().get("/jobs", scope("read"))).unwrap(), world)
}

fn in_flight_limit(world: &World) -> InFlightLimitLayer {
    let places = SlowPlaces::new(&world.backend);
    in_world!(InFlightLimitLayer::new(1).with_tier("none", 0).with_places("key", places), world)
}

fn guard(world: &World) -> GuardLayer {
    in_world!(GuardLayer::new(SlowGuard(world.backend.clone())), world)
}

fn credits(world: &World) -> CreditsLayer {
    let cost = CreditCost::by_request(|_head, principal, _plan| match principal.map(Principal::id) {
        Some("fay") => 2_000_000,
        _ => 1,
    });
    in_world!(CreditsLayer::new(SlowCredits::new(&world.backend), cost), world)
}

fn usage(world: &World) -> UsageLayer {
    in_world!(UsageLayer::new(UsageRecorder::new(MemoryUsage::new())), world)
}

fn messages(world: &World) -> MessageLayer {
    let limits = limit_by_key(60.per_minute(), SlowLimiter::new(&world.backend));
    let credits = CreditsLayer::new(SlowCredits::new(&world.backend), 1);
    in_world!(MessageLayer::from_rate_limit(limits).with_credits(credits, 1), world)
}

fn stream_end(world: &World) -> StreamEndLayer {
    in_world!(StreamEndLayer::new(), world)
}

fn tollgate(world: &World) -> Tollgate {
    let inside = &World { is_inside_a_builder: true, report_only: None, ..world.clone() };
    let builder = Tollgate::builder()
        .verify(verify(inside))
        .plan(plan(inside))
        .in_flight_limit(in_flight_limit(inside))
        .rate_limit(rate_limit(inside))
        .entitlement(entitlement(inside))
        .scope(one_scope(inside))
        .guard(guard(inside))
        .credits(credits(inside))
        .usage(usage(inside))
        .messages(messages(inside))
        .stream_end(stream_end(inside))
        .clock(world.clock.clone());
    let builder = match &world.report_only {
        Some(report) => builder.report_only(report),
        None => builder,
    };
    builder.build().unwrap()
}

type Limited = ConcurrencyLimit<Inner>;

/// The layer as a guard: inside identifier, credential and principal.
fn guarding<L>(world: &World, layer: L, inner: Limited) -> Stack
where
    L: Layer<Limited, Service = Gated<Limited>>,
{
    let outside = World { clock: world.clock.clone(), ..World::new() };
    let builder = ServiceBuilder::new();
    erase(
        builder
            .layer(request_id(&outside))
            .layer(credential(&outside))
            .layer(verify(&outside))
            .layer(layer)
            .service(inner),
    )
}

/// The layer inside a `RequestIdLayer` alone.
fn identified<L>(layer: L, inner: Limited) -> Stack
where
    L: Layer<Limited, Service = Gated<Limited>>,
{
    erase(ServiceBuilder::new().layer(request_id(&World::new())).layer(layer).service(inner))
}

/// How a layer, its service, and the future of a call look.
fn debug<L>(layer: &L, request: Request<String>) -> [String; 3]
where
    L: Layer<Inner, Service = Gated<Inner>> + std::fmt::Debug,
{
    let mut service = layer.layer(Inner::new());
    assert!(is_ready_now(&mut service));
    let future = service.call(request);
    [format!("{layer:#?}"), format!("{service:#?}"), format!("{future:#?}")]
}

fn unknown() -> Request<String> {
    with_key(UNKNOWN)
}

impl Case {
    /// Refuses nothing.
    pub const REQUEST_ID: Self = Self {
        layer: "RequestIdLayer",
        stack: |world, inner| erase(request_id(world).layer(inner)),
        alone: |world, inner| identified(request_id(world), inner),
        needs: None,
        has_backend: false,
        refusal: None,
        debug: |world, request| debug(&request_id(world), request),
        outside: erase,
    };

    /// Refuses an address that has failed too often, whatever it presents.
    pub const ATTEMPT_LIMIT: Self = Self {
        layer: "AttemptLimitLayer",
        stack: |world, inner| identified(attempt_limit(world), inner),
        alone: |world, inner| identified(attempt_limit(world), inner),
        needs: None,
        has_backend: true,
        refusal: Some(Refusal {
            request: || get("/jobs", &[(ADDRESS, SHUT_OUT), ("authorization", &format!("Bearer {GOOD}"))]),
            status: StatusCode::TOO_MANY_REQUESTS,
            kind: DenialKind::RateLimited,
            is_proven: false,
        }),
        debug: |world, request| debug(&attempt_limit(world), request),
        outside: erase,
    };

    /// Refuses a request without a credential.
    pub const CREDENTIAL: Self = Self {
        layer: "CredentialLayer",
        stack: |world, inner| identified(credential(world), inner),
        alone: |world, inner| identified(credential(world), inner),
        needs: None,
        has_backend: false,
        refusal: Some(Refusal {
            request: || get("/jobs", &[]),
            status: StatusCode::UNAUTHORIZED,
            kind: DenialKind::CredentialMissing,
            is_proven: false,
        }),
        debug: |world, request| debug(&credential(world), request),
        outside: erase,
    };

    /// Refuses an unknown key.
    pub const VERIFY: Self = Self {
        layer: "VerifyLayer",
        stack: |world, inner| {
            let outside = World { clock: world.clock.clone(), ..World::new() };
            let builder = ServiceBuilder::new().layer(request_id(&outside)).layer(credential(&outside));
            erase(builder.layer(verify(world)).service(inner))
        },
        alone: |world, inner| identified(verify(world), inner),
        needs: Some("CredentialLayer"),
        has_backend: true,
        refusal: Some(Refusal {
            request: unknown,
            status: StatusCode::UNAUTHORIZED,
            kind: DenialKind::KeyUnknown,
            is_proven: false,
        }),
        debug: |world, request| debug(&verify(world), request),
        outside: |inner| erase(credential(&World::new()).layer(inner)),
    };

    /// Looks up plans, and refuses no request.
    pub const PLAN: Self = Self {
        layer: "PlanLayer",
        stack: |world, inner| {
            let builder = ServiceBuilder::new().layer(request_id(&World::new())).map_request(authenticated);
            erase(builder.layer(plan(world)).service(inner))
        },
        alone: |world, inner| identified(plan(world), inner),
        needs: Some("VerifyLayer"),
        has_backend: true,
        refusal: None,
        debug: |world, request| debug(&plan(world), request),
        outside: proven,
    };

    /// Refuses a key that has as many requests in flight as it may.
    pub const IN_FLIGHT_LIMIT: Self = Self {
        layer: "InFlightLimitLayer",
        stack: |world, inner| guarding(world, in_flight_limit(world), inner),
        alone: |world, inner| identified(in_flight_limit(world), inner),
        needs: Some("VerifyLayer"),
        has_backend: true,
        refusal: Some(Refusal {
            request: || with_key(BUSY),
            status: StatusCode::TOO_MANY_REQUESTS,
            kind: DenialKind::TooManyInFlight,
            is_proven: true,
        }),
        debug: |world, request| debug(&in_flight_limit(world), request),
        outside: proven,
    };

    /// Refuses a key whose quota is used up.
    pub const RATE_LIMIT: Self = Self {
        layer: "RateLimitLayer",
        stack: |world, inner| guarding(world, rate_limit(world), inner),
        alone: |world, inner| identified(rate_limit(world), inner),
        needs: Some("VerifyLayer"),
        has_backend: true,
        refusal: Some(Refusal {
            request: || with_key(USED_UP),
            status: StatusCode::TOO_MANY_REQUESTS,
            kind: DenialKind::RateLimited,
            is_proven: true,
        }),
        debug: |world, request| debug(&rate_limit(world), request),
        outside: proven,
    };

    /// Refuses a key whose plan has lapsed.
    pub const ENTITLEMENT: Self = Self {
        layer: "EntitlementLayer",
        stack: |world, inner| guarding(world, entitlement(world), inner),
        alone: |world, inner| identified(entitlement(world), inner),
        needs: Some("VerifyLayer"),
        has_backend: false,
        refusal: Some(Refusal {
            request: || with_key(LAPSED),
            status: StatusCode::FORBIDDEN,
            kind: DenialKind::EntitlementInactive,
            is_proven: true,
        }),
        debug: |world, request| debug(&entitlement(world), request),
        outside: proven,
    };

    /// Refuses a key without the scope.
    pub const SCOPE: Self = Self {
        layer: "ScopeLayer",
        stack: |world, inner| guarding(world, one_scope(world), inner),
        alone: |world, inner| identified(one_scope(world), inner),
        needs: Some("VerifyLayer"),
        has_backend: false,
        refusal: Some(Refusal {
            request: || with_key(POWERLESS),
            status: StatusCode::FORBIDDEN,
            kind: DenialKind::ScopeMissing,
            is_proven: true,
        }),
        debug: |world, request| debug(&one_scope(world), request),
        outside: proven,
    };

    /// Refuses a route that is not listed.
    pub const SCOPE_MAP: Self = Self {
        layer: "ScopeLayer",
        stack: |world, inner| guarding(world, scope_map(world), inner),
        alone: |world, inner| identified(scope_map(world), inner),
        refusal: Some(Refusal {
            request: || get("/elsewhere", &[("authorization", &format!("Bearer {GOOD}"))]),
            status: StatusCode::NOT_FOUND,
            kind: DenialKind::RouteUnlisted,
            is_proven: true,
        }),
        debug: |world, request| debug(&scope_map(world), request),
        ..Self::SCOPE
    };

    /// Refuses a key by a check of the application's own.
    pub const GUARD: Self = Self {
        layer: "GuardLayer",
        stack: |world, inner| guarding(world, guard(world), inner),
        alone: |world, inner| identified(guard(world), inner),
        needs: Some("VerifyLayer"),
        has_backend: true,
        refusal: Some(Refusal {
            request: || with_key(POWERLESS),
            status: StatusCode::FORBIDDEN,
            kind: DenialKind::Forbidden,
            is_proven: true,
        }),
        debug: |world, request| debug(&guard(world), request),
        outside: proven,
    };

    /// Refuses a request that costs more credits than its account has.
    pub const CREDITS: Self = Self {
        layer: "CreditsLayer",
        stack: |world, inner| guarding(world, credits(world), inner),
        alone: |world, inner| identified(credits(world), inner),
        needs: Some("VerifyLayer"),
        has_backend: true,
        refusal: Some(Refusal {
            request: || with_key(COSTLY),
            status: StatusCode::PAYMENT_REQUIRED,
            kind: DenialKind::CreditsExhausted,
            is_proven: true,
        }),
        debug: |world, request| debug(&credits(world), request),
        outside: proven,
    };

    /// Records each principal, and refuses no request.
    pub const USAGE: Self = Self {
        layer: "UsageLayer",
        stack: |world, inner| {
            let builder = ServiceBuilder::new().layer(request_id(&World::new())).map_request(authenticated);
            erase(builder.layer(usage(world)).service(inner))
        },
        alone: |world, inner| identified(usage(world), inner),
        needs: Some("VerifyLayer"),
        has_backend: false,
        refusal: None,
        debug: |world, request| debug(&usage(world), request),
        outside: proven,
    };

    /// Lets handlers charge messages, and refuses no request.
    pub const MESSAGES: Self = Self {
        layer: "MessageLayer",
        stack: |world, inner| {
            let builder = ServiceBuilder::new().layer(request_id(&World::new())).map_request(authenticated);
            erase(builder.layer(messages(world)).service(inner))
        },
        alone: |world, inner| identified(messages(world), inner),
        needs: Some("VerifyLayer"),
        has_backend: false,
        refusal: None,
        debug: |world, request| debug(&messages(world), request),
        outside: proven,
    };

    /// Watches each principal, and refuses no request at once.
    pub const STREAM_END: Self = Self {
        layer: "StreamEndLayer",
        stack: |world, inner| {
            let builder = ServiceBuilder::new().layer(request_id(&World::new())).map_request(authenticated);
            erase(builder.layer(stream_end(world)).service(inner))
        },
        alone: |world, inner| identified(stream_end(world), inner),
        needs: Some("VerifyLayer"),
        has_backend: false,
        refusal: None,
        debug: |world, request| debug(&stream_end(world), request),
        outside: proven,
    };

    /// The whole stack, which refuses by its last guard: all backends before it are asked.
    pub const TOLLGATE: Self = Self {
        layer: "ScopeLayer",
        stack: |world, inner| erase(tollgate(world).layer(inner)),
        alone: |world, inner| erase(tollgate(world).layer(inner)),
        needs: None,
        has_backend: true,
        refusal: Some(Refusal {
            request: || with_key(POWERLESS),
            status: StatusCode::FORBIDDEN,
            kind: DenialKind::ScopeMissing,
            is_proven: true,
        }),
        debug: |world, request| debug(&tollgate(world), request),
        outside: erase,
    };

    /// The whole stack, which refuses in its midst.
    pub const TOLLGATE_MIDST: Self =
        Self { layer: "RateLimitLayer", refusal: Self::RATE_LIMIT.refusal, ..Self::TOLLGATE };

    /// The whole stack, which refuses by its first guard.
    pub const TOLLGATE_FIRST: Self =
        Self { layer: "CredentialLayer", refusal: Self::CREDENTIAL.refusal, ..Self::TOLLGATE };

    /// A request that every layer allows.
    pub fn allowed(&self) -> Request<String> {
        with_key(GOOD)
    }

    /// The allowed request as it arrives at the layer, after all that stands outside has seen it.
    pub async fn arrived(&self) -> Request<String> {
        let inner = Inner::new();
        let _ = send(&mut (self.outside)(inner.clone()), self.allowed()).await;
        inner.take_last()
    }

    /// The layer with all that must stand outside it, around an inner service that serves `at_once` requests at a time.
    pub fn build(&self, world: &World, inner: &Inner, at_once: usize) -> Stack {
        (self.stack)(world, ConcurrencyLimit::new(inner.clone(), at_once))
    }

    /// The layer without what must stand outside it.
    pub fn build_alone(&self, world: &World, inner: &Inner) -> Stack {
        (self.alone)(world, ConcurrencyLimit::new(inner.clone(), 1))
    }
}

/// A request whose caller is known in another way than by a credential.
fn authenticated(mut request: Request<String>) -> Request<String> {
    RequestContext::authenticate(request.extensions_mut(), Arc::new(Principal::new("ada")));
    request
}

fn proven(inner: Inner) -> Stack {
    let world = World::new();
    erase(ServiceBuilder::new().layer(credential(&world)).layer(verify(&world)).service(inner))
}

/// An inner service that fails.
pub fn failing() -> Inner {
    Inner::answering(|_| Err(Failure("the inner service's own error")))
}
