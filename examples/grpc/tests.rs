//! Which RPCs and routes need no key.

use tollgate_testing::coverage::{Coverage, Routes};

use super::*;

#[tokio::test]
async fn only_health_and_reflection_need_no_key() {
    let format = KeyFormat::new("demo").unwrap();
    let store = MemoryKeys::new();
    let (_, revocation) = keys::issue(KeyManager::new(format.clone(), store.clone())).await.unwrap();
    let app = app(KeyVerifier::new(format, store), revocation, Shutdown::never()).unwrap();

    let (service, recorded) = app.into_parts();
    let routes = Routes::from(recorded)
        .fallback("/")
        .merge(Routes::of_descriptor_set(DESCRIPTOR_SET))
        .merge(Routes::of_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET))
        .merge(Routes::of_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET))
        .merge(Routes::of_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET));
    Coverage::of(service, routes).await.assert_only_open([
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ]);
}
