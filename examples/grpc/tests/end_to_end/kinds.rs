//! What a client with grpcio sees of every kind of denial, also of those that the example itself does not have.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use tokio::net::TcpListener;
use tollgate::{
    Denial, DenialKind, Principal, Tollgate,
    credits::{ReservationId, Settlement, Shortage},
    respond::Grpc,
    verify::{VerifyRequest, verify_sync_fn},
};
use tollgate_tonic::{
    Details,
    policy::{RpcPolicies, Services},
};

use crate::{EVERY_KIND, python::Client};

static DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/market.bin"));

/// A denial, and what a client sees of it: the code of the status, the reason, and the details beside the `ErrorInfo`.
type Case = (Denial, &'static str, &'static str, &'static [&'static str]);

/// In the order of `DenialKind`.
fn cases() -> Vec<Case> {
    use DenialKind as Kind;

    let of = |kind: Kind, code, reason, details| (Denial::new(kind), code, reason, details);
    let nothing: &[&str] = &[];
    let settled = Settlement::new(ReservationId::from_number(7), 5, 0);
    vec![
        of(Kind::CredentialMissing, "UNAUTHENTICATED", "missing_credential", nothing),
        of(Kind::CredentialEmpty, "UNAUTHENTICATED", "missing_credential", nothing),
        of(Kind::CredentialMalformed, "UNAUTHENTICATED", "invalid_credential", nothing),
        of(Kind::CredentialRepeated, "UNAUTHENTICATED", "invalid_request", nothing),
        of(Kind::CredentialConflicting, "UNAUTHENTICATED", "invalid_request", nothing),
        of(Kind::KeyUnknown, "UNAUTHENTICATED", "invalid_credential", nothing),
        of(Kind::KeyRevoked, "UNAUTHENTICATED", "invalid_credential", nothing),
        of(Kind::KeyExpired, "UNAUTHENTICATED", "invalid_credential", nothing),
        of(Kind::TokenInvalid, "UNAUTHENTICATED", "invalid_credential", nothing),
        of(Kind::WrongEnvironment, "UNAUTHENTICATED", "invalid_credential", nothing),
        of(Kind::EnvironmentInvalid, "INVALID_ARGUMENT", "invalid_environment", nothing),
        of(Kind::NetworkNotAllowed, "UNAUTHENTICATED", "invalid_credential", nothing),
        of(Kind::TenantSuspended, "PERMISSION_DENIED", "tenant_suspended", nothing),
        of(Kind::TooManyInFlight, "RESOURCE_EXHAUSTED", "too_many_concurrent_requests", &["QuotaFailure"]),
        of(Kind::EntitlementInactive, "PERMISSION_DENIED", "inactive_entitlement", &["PreconditionFailure"]),
        of(Kind::TierTooLow, "PERMISSION_DENIED", "tier_too_low", &["PreconditionFailure"]),
        (Denial::scope_missing("prices:read"), "PERMISSION_DENIED", "insufficient_scope", nothing),
        of(Kind::RouteUnlisted, "UNIMPLEMENTED", "not_found", nothing),
        (
            Denial::credits_exhausted(Shortage::new(3, 5)),
            "RESOURCE_EXHAUSTED",
            "insufficient_credits",
            &["PreconditionFailure"],
        ),
        of(Kind::IdempotencyKeyInvalid, "INVALID_ARGUMENT", "invalid_idempotency_key", &["BadRequest"]),
        of(Kind::IdempotencyKeyReused, "INVALID_ARGUMENT", "idempotency_key_reused", &["BadRequest"]),
        (
            Denial::new(Kind::RequestInProgress).with_retry_after(Duration::from_secs(1)),
            "ABORTED",
            "request_in_progress",
            &["RetryInfo"],
        ),
        (Denial::request_repeated(settled), "ALREADY_EXISTS", "request_repeated", nothing),
        of(Kind::Forbidden, "PERMISSION_DENIED", "forbidden", nothing),
        of(Kind::Unavailable, "UNAVAILABLE", "unavailable", nothing),
        of(Kind::Misconfigured, "INTERNAL", "internal", nothing),
    ]
}

#[tokio::test]
async fn every_kind_of_denial_has_its_status_message_and_details() {
    let mut client = Client::start(&serve().await.to_string());
    for (number, (denial, code, reason, others)) in cases().into_iter().enumerate() {
        let kind = denial.kind();
        for rpc in EVERY_KIND {
            let end = client.call(rpc, &[("x-api-key", &number.to_string())]).await;
            assert_eq!(end.status(), (code, denial.detail()), "{kind:?} {rpc}");
            let info = end.detail("ErrorInfo");
            assert_eq!(
                (&info["reason"], &info["domain"]),
                (&json!(reason), &json!("example.com")),
                "{kind:?}"
            );
            let mut expected = others.to_vec();
            expected.push("ErrorInfo");
            expected.sort_unstable();
            assert_eq!(end.details(), expected, "{kind:?}");
            assert!(end.trailing("x-request-id").is_some());
        }
    }
}

#[tokio::test]
async fn used_up_credits_show_the_balance_and_no_retry() {
    let mut client = Client::start(&serve().await.to_string());
    let number = cases().iter().position(|(denial, ..)| denial.kind() == DenialKind::CreditsExhausted);
    let key = number.unwrap().to_string();
    for rpc in EVERY_KIND {
        let end = client.call(rpc, &[("x-api-key", &key)]).await;
        assert_eq!(end.detail("ErrorInfo")["metadata"], json!({ "balance": "3", "needed": "5" }));
        let violation = &end.detail("PreconditionFailure")["violations"][0];
        assert_eq!((&violation["type"], &violation["subject"]), (&json!("credits"), &json!("balance")));
        assert_eq!(end.trailing("grpc-retry-pushback-ms"), Some("-1"));
    }
}

/// A server that refuses each call with the case whose number is the credential. By reflection it describes the service of the example.
async fn serve() -> SocketAddr {
    let cases = cases();
    let refuse_all = verify_sync_fn(move |request: &VerifyRequest<'_>| {
        let number: usize = request.credential.expose_secret().parse().unwrap();
        Err::<Principal, _>(cases[number].0.clone())
    });
    let policies = RpcPolicies::new().with_public_reflection().build().unwrap();
    let tollgate = Tollgate::builder()
        .public(policies.public_routes())
        .verify(refuse_all)
        .responder(Grpc::new().with_details(Details::new("example.com")))
        .build()
        .unwrap();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
        .build_v1alpha()
        .unwrap();
    let routes = Services::new().add_service(reflection).routes(&policies).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = routes.into_axum_router().layer(tollgate);
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}
