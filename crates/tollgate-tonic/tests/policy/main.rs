//! Policies of RPCs: from protos that the tests compile, and from code.
//!
//! | module | tests |
//! |---|---|
//! | `options` | what the options in a proto say |
//! | `precedence` | which policy of an RPC counts |
//! | `errors` | what stops the start-up, sentence by sentence |
//! | `services` | services that are served, checked against the policies |
//! | `table` | the forms that the layers take, and routes beside the RPCs |
//! | `garbage` | descriptor sets that are none |
//! | `server` | a whole stack in front of a tonic server |
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod errors;
mod garbage;
mod options;
mod precedence;
mod server;
mod services;
mod table;

use std::{convert::Infallible, fs};

use http::{Request, Response, StatusCode};
use tollgate::{
    CredentialLayer, Denial, DenialKind, Principal, ScopeLayer, Scopes, VerifyLayer,
    scope::ScopeMap,
    verify::{VerifyRequest, verify_sync_fn},
};
use tollgate_tonic::policy::{PolicyTable, RpcPolicies, write_proto};
use tower::{Layer as _, ServiceExt as _, service_fn};

/// An encoded descriptor set of the package `market.v1` with these services, and its imports.
fn compile(services: &str) -> Vec<u8> {
    compile_as("market.v1", "import \"tollgate/policy.proto\";", services)
}

fn compile_as(package: &str, import: &str, services: &str) -> Vec<u8> {
    let text = format!("syntax = \"proto3\"; package {package}; {import} message Empty {{}} {services}");
    let directory = tempfile::tempdir().unwrap();
    let file = format!("{package}.proto");
    fs::write(directory.path().join(&file), text).unwrap();
    let policies = write_proto(directory.path().join("out")).unwrap();
    let mut compiler = protox::Compiler::new([directory.path(), policies.as_path()]).unwrap();
    compiler.include_imports(true).open_file(&file).unwrap();
    compiler.encode_file_descriptor_set()
}

/// A service `Market` with one RPC `Get`, which has these options.
fn market(options: &str) -> Vec<u8> {
    compile(&format!("service Market {{ rpc Get(Empty) returns (Empty) {{ {options} }} }}"))
}

const GET: &str = "market.v1.Market/Get";

fn policies(services: &str) -> RpcPolicies {
    RpcPolicies::from_descriptor_set(&compile(services)).unwrap()
}

fn table(services: &str) -> PolicyTable {
    policies(services).build().unwrap()
}

/// The response of a map to a caller whose key is its list of scopes; `None` is a caller without a key.
async fn ask(map: &ScopeMap, method: &str, path: &str, scopes: Option<&str>) -> StatusCode {
    let by_scopes = verify_sync_fn(|presented: &VerifyRequest<'_>| {
        let scopes = presented.credential.expose_secret().replace('+', " ").parse::<Scopes>();
        let found = scopes.map(|scopes| Principal::new("ada").with_scopes(scopes));
        found.map_err(|_| Denial::new(DenialKind::KeyUnknown))
    });
    let inside = service_fn(async |_: Request<String>| Ok::<_, Infallible>(Response::new(String::new())));
    let stack = CredentialLayer::new()
        .with_anonymous()
        .layer(VerifyLayer::new(by_scopes).layer(ScopeLayer::per_route(map.clone()).unwrap().layer(inside)));
    let mut request = Request::builder().method(method).uri(path);
    if let Some(scopes) = scopes {
        request = request.header("x-api-key", scopes.replace(' ', "+"));
    }
    stack.oneshot(request.body(String::new()).unwrap()).await.unwrap().status()
}
