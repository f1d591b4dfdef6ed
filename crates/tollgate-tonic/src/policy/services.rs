//! The services of a server, checked against the policies.

use std::convert::Infallible;

use axum_core::response::IntoResponse;
use http::Request;
use tollgate::ConfigurationError;
use tonic::{
    body::Body,
    codegen::Service,
    server::NamedService,
    service::{Routes, RoutesBuilder},
};

use super::{PolicyTable, nearest::suggestion};

/// The services of a server. Each is recorded as it is added, so that none is served without a policy.
///
/// ```
/// use tollgate_tonic::policy::{RpcPolicies, Services};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (_reporter, health) = tonic_health::server::health_reporter();
/// let table = RpcPolicies::new().with_public_health().build()?;
/// let routes = Services::new().add_service(health).routes(&table)?;
/// # let _ = routes;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Services {
    routes: RoutesBuilder,
    names: Vec<&'static str>,
    repeated: Option<&'static str>,
}

impl Services {
    /// No services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service.
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        if self.names.contains(&S::NAME) {
            // tonic would panic.
            self.repeated = Some(S::NAME);
        } else {
            self.names.push(S::NAME);
            self.routes.add_service(service);
        }
        self
    }

    /// The routes of all services, for `Server::add_routes` or an axum router.
    ///
    /// # Errors
    /// If a service was added twice, or one of them has no policy.
    pub fn routes(self, policies: &PolicyTable) -> Result<Routes, ConfigurationError> {
        if let Some(name) = self.repeated {
            return Err(ConfigurationError::new(format!(
                "Services: the service {name} is added twice: remove one"
            )));
        }
        let known = || policies.services.iter().map(String::as_str);
        match self.names.iter().find(|name| !policies.services.contains(**name)) {
            None => Ok(self.routes.routes()),
            Some(name) => Err(ConfigurationError::new(format!(
                "Services: the service {name} is served without a policy{}: {}",
                suggestion(name, known()),
                what_to_do(name, policies.is_described)
            ))),
        }
    }
}

fn what_to_do(service: &str, is_described: bool) -> String {
    let opened_by = match service {
        "grpc.health.v1.Health" => "call RpcPolicies::with_public_health, or ",
        "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection" => {
            "call RpcPolicies::with_public_reflection, or "
        }
        _ => "",
    };
    // Beside descriptor sets, a policy for a service that none of them describes is an error: the service may have been renamed.
    let by_service = if is_described {
        "add its descriptor set (such as tonic_health::pb::FILE_DESCRIPTOR_SET), and give it a policy, in the proto or by \
         RpcPolicies::service"
    } else {
        "give it a policy by RpcPolicies::service"
    };
    format!("{opened_by}{by_service}")
}
