//! What tools such as grpcurl learn by reflection, without a key.

use crate::{python::Client, service::Service};

#[tokio::test]
async fn both_versions_list_all_services() {
    let service = Service::start().await;
    let mut client = Client::start(service.address());
    for version in ["v1", "v1alpha"] {
        let services = client.services(version).await;
        for expected in ["tollgate.demo.v1.Market", "grpc.health.v1.Health"] {
            assert!(services.iter().any(|service| service == expected), "{version}: {services:?}");
        }
    }
    service.end().await;
}
