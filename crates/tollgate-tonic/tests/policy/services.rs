//! Services that are served, checked against the policies.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use http::{Request, Response};
use tollgate_tonic::policy::{RpcPolicies, RpcPolicy, Services};
use tonic::{body::Body, codegen::Service, server::NamedService};

use crate::table;

/// A service that answers every call with an empty response.
macro_rules! service {
    ($name:ident, $full_name:literal) => {
        #[derive(Clone)]
        pub(crate) struct $name;

        impl NamedService for $name {
            const NAME: &'static str = $full_name;
        }

        impl Service<Request<Body>> for $name {
            type Response = Response<Body>;
            type Error = Infallible;
            type Future = Ready<Result<Response<Body>, Infallible>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, _: Request<Body>) -> Self::Future {
                let response =
                    Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
                ready(Ok(response.body(Body::empty()).unwrap()))
            }
        }
    };
}

service!(Market, "market.v1.Market");
service!(Markets, "market.v1.Markets");

const SERVICES: &str = "service Market { option (tollgate.service_policy) = { scopes: 'read' }; rpc Get(Empty) returns (Empty); }";

fn error(services: Services) -> String {
    services.routes(&table(SERVICES)).unwrap_err().to_string()
}

#[test]
fn services_with_policies_are_served() {
    assert!(Services::new().add_service(Market).routes(&table(SERVICES)).is_ok());
    // A policy whose service is not served guards nothing, and opens nothing.
    assert!(Services::new().routes(&table(SERVICES)).is_ok());
    let by_hand = [
        RpcPolicies::new().service("market.v1.Market", RpcPolicy::authenticated()),
        RpcPolicies::new().method("market.v1.Market/Get", RpcPolicy::authenticated()),
    ];
    for policies in by_hand {
        assert!(Services::new().add_service(Market).routes(&policies.build().unwrap()).is_ok());
    }
}

#[test]
fn a_service_without_a_policy_is_an_error() {
    assert_eq!(
        error(Services::new().add_service(Market).add_service(Markets)),
        "Services: the service market.v1.Markets is served without a policy (did you mean market.v1.Market?): add its descriptor set \
         (such as tonic_health::pb::FILE_DESCRIPTOR_SET), and give it a policy, in the proto or by RpcPolicies::service"
    );
    let (_, health) = tonic_health::server::health_reporter();
    assert_eq!(
        error(Services::new().add_service(Market).add_service(health)),
        "Services: the service grpc.health.v1.Health is served without a policy: call RpcPolicies::with_public_health, or add its \
         descriptor set (such as tonic_health::pb::FILE_DESCRIPTOR_SET), and give it a policy, in the proto or by RpcPolicies::service"
    );
    let in_code = RpcPolicies::new().service("market.v1.Market", RpcPolicy::authenticated()).build().unwrap();
    assert_eq!(
        Services::new().add_service(Markets).routes(&in_code).unwrap_err().to_string(),
        "Services: the service market.v1.Markets is served without a policy (did you mean market.v1.Market?): give it a policy by \
         RpcPolicies::service"
    );
}

/// Each advice, followed to the letter.
#[test]
fn the_advice_leads_to_a_server_that_starts() {
    let health = || tonic_health::server::health_reporter().1;
    let described = || crate::policies(SERVICES);
    let in_code = || RpcPolicies::new().service("market.v1.Market", RpcPolicy::authenticated());
    let name = "grpc.health.v1.Health";
    for policies in [
        described().with_public_health(),
        described()
            .with_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .unwrap()
            .service(name, RpcPolicy::authenticated()),
        in_code().with_public_health(),
        in_code().service(name, RpcPolicy::authenticated()),
    ] {
        let table = policies.build().unwrap();
        assert!(Services::new().add_service(Market).add_service(health()).routes(&table).is_ok());
    }
    // What the documentation says about a service that no descriptor set describes.
    let error = described().service(name, RpcPolicy::authenticated()).build().unwrap_err().to_string();
    assert!(error.contains("add the descriptor set"), "{error}");
}

#[test]
fn a_service_that_is_added_twice_is_an_error() {
    assert_eq!(
        error(Services::new().add_service(Market).add_service(Market)),
        "Services: the service market.v1.Market is added twice: remove one"
    );
}
