//! The built stack in front of an RPC, with the scopes of its method: written in code, and as options in the proto.

use std::{
    env, fs, process,
    task::{Context, Poll},
};

use axum::body::Body;
use http::{Request, Uri};
use tollgate::{
    ScopeLayer,
    scope::{ScopeMap, scope},
};
use tollgate_tonic::policy::{RpcPolicies, write_proto};
use tower::{Layer, Service};

use super::{built, verifiers};
use crate::{
    cast::{self, Scenario},
    drive::{Bare, Driven, Handler, Stack},
};

const PATH: &str = "/bench.v1.Jobs/CreateJob";

/// Three services of four methods, as the proto has them. All require the scope of the measured callers.
const SERVICES: [&str; 3] = ["Accounts", "Jobs", "Results"];
const METHODS: [&str; 4] = ["CreateJob", "DeleteJob", "GetJob", "ListJobs"];

pub(super) fn empty() -> Box<dyn Stack> {
    Box::new(Driven(AsRpc(Handler::<Bare>::new())))
}

/// With a map that is written in code, without the crate of policies.
pub(super) fn by_hand(scenario: Scenario) -> Box<dyn Stack> {
    let paths = SERVICES
        .iter()
        .flat_map(|service| METHODS.iter().map(move |method| format!("/bench.v1.{service}/{method}")));
    on(scenario, paths.fold(ScopeMap::new(), |map, path| map.post(path, scope(cast::SCOPE))))
}

/// With the options of a proto, which is compiled here.
pub(super) fn from_proto(scenario: Scenario) -> Box<dyn Stack> {
    let table = RpcPolicies::from_descriptor_set(&descriptors()).unwrap().build().unwrap();
    on(scenario, table.scope_map())
}

fn on(scenario: Scenario, scopes: ScopeMap) -> Box<dyn Stack> {
    let tollgate =
        built::with_scope(verifiers::of(scenario), scenario, 1, ScopeLayer::per_route(scopes).unwrap())
            .build()
            .unwrap();
    Box::new(Driven(AsRpc(tollgate.layer(Handler::<Bare>::new()))))
}

fn descriptors() -> Vec<u8> {
    let directory = env::temp_dir().join(format!("tollgate-benches-{}", process::id()));
    let options = write_proto(&directory).unwrap();
    fs::write(directory.join("jobs.proto"), proto()).unwrap();
    let mut compiler = protox::Compiler::new([&directory, &options]).unwrap();
    compiler.include_imports(true).open_file("jobs.proto").unwrap();
    fs::remove_dir_all(&directory).unwrap();
    compiler.encode_file_descriptor_set()
}

fn proto() -> String {
    let policy = format!("option (tollgate.policy) = {{ scopes: \"{}\" }};", cast::SCOPE);
    let methods = METHODS.map(|name| format!("rpc {name}(Job) returns (Job) {{ {policy} }}\n")).concat();
    let services = SERVICES.map(|name| format!("service {name} {{ {methods} }}\n")).concat();
    format!(
        "syntax = \"proto3\"; package bench.v1; import \"tollgate/policy.proto\"; message Job {{}}\n{services}"
    )
}

/// Sends each request to the path of the RPC.
struct AsRpc<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for AsRpc<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> S::Future {
        *request.uri_mut() = Uri::from_static(PATH);
        self.0.call(request)
    }
}
