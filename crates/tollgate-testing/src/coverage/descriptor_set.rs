//! The RPCs of a descriptor set.

use prost::Message as _;
use prost_types::FileDescriptorSet;

use super::Routes;

impl Routes {
    /// Every RPC of an encoded `google.protobuf.FileDescriptorSet`: what `protoc --descriptor_set_out` or tonic-build's
    /// `file_descriptor_set_path` writes, and what reflection serves.
    ///
    /// It must contain the files of all services that the server has. Services of other crates have their own sets, such as
    /// `tonic_health::pb::FILE_DESCRIPTOR_SET`: [`merge`](Self::merge) them.
    ///
    /// ```
    /// use tollgate_testing::coverage::Routes;
    ///
    /// let routes = Routes::of_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    /// // grpc.health.v1.Health/Check, grpc.health.v1.Health/Watch
    /// # let _ = routes;
    /// ```
    ///
    /// # Panics
    /// If these bytes are not an encoded descriptor set, or if it has no service.
    pub fn of_descriptor_set(encoded: &[u8]) -> Self {
        let set = match FileDescriptorSet::decode(encoded) {
            Ok(set) => set,
            Err(error) => panic!("this is not an encoded FileDescriptorSet: {error}"),
        };
        let mut routes = Self::new();
        for file in &set.file {
            for service in &file.service {
                let name = match file.package() {
                    "" => service.name().to_owned(),
                    package => format!("{package}.{}", service.name()),
                };
                for method in &service.method {
                    routes.rpc(&name, method.name());
                }
            }
        }
        assert!(
            !routes.is_empty(),
            "the descriptor set has no RPC: does it contain the file of the service?"
        );
        routes
    }
}
