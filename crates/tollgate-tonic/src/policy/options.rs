//! Reads policies from the options of methods and services.

use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, Value};
use tollgate::{
    ConfigurationError,
    scope::{Requirement, scope},
};

use super::RpcPolicy;

const NUMBER: u32 = 86554;

/// The extensions of `tollgate/policy.proto` in a set of descriptors.
pub(super) struct PolicyOptions {
    method: Option<ExtensionDescriptor>,
    service: Option<ExtensionDescriptor>,
}

impl PolicyOptions {
    pub(super) fn new(pool: &DescriptorPool) -> Result<Self, ConfigurationError> {
        Ok(Self {
            method: extension(pool, "tollgate.policy", "google.protobuf.MethodOptions")?,
            service: extension(pool, "tollgate.service_policy", "google.protobuf.ServiceOptions")?,
        })
    }

    /// Whether the set contains the extensions. Otherwise no method can have an option of theirs.
    pub(super) fn are_defined(&self) -> bool {
        self.method.is_some()
    }

    /// The policy among the options of a method. An error is the end of a sentence that begins with its name.
    pub(super) fn of_method(&self, options: &DynamicMessage) -> Result<Option<RpcPolicy>, String> {
        read(self.method.as_ref(), options)
    }

    /// The policy among the options of a service.
    pub(super) fn of_service(&self, options: &DynamicMessage) -> Result<Option<RpcPolicy>, String> {
        read(self.service.as_ref(), options)
    }
}

/// The extension of this name, if it is the one that this crate has published.
fn extension(
    pool: &DescriptorPool,
    name: &str,
    options: &str,
) -> Result<Option<ExtensionDescriptor>, ConfigurationError> {
    let Some(extension) = pool.get_extension_by_name(name) else { return Ok(None) };
    let is_ours = extension.number() == NUMBER
        && extension.containing_message().full_name() == options
        && !extension.is_list()
        && matches!(extension.kind(), Kind::Message(message) if message.full_name() == "tollgate.Policy");
    if is_ours {
        Ok(Some(extension))
    } else {
        Err(ConfigurationError::new(format!(
            "RpcPolicies: the option ({name}) of the descriptor set is not the one of tollgate/policy.proto: \
             compile with the file of this version of tollgate-tonic, which tollgate_tonic::policy::PROTO has"
        )))
    }
}

fn read(
    extension: Option<&ExtensionDescriptor>,
    options: &DynamicMessage,
) -> Result<Option<RpcPolicy>, String> {
    // A policy whose definition is not in the set. Without this check it would count as no policy.
    if options.unknown_fields().any(|field| field.number() == NUMBER) {
        return Err("cannot be read, because the descriptor set lacks tollgate/policy.proto: encode the set with its imports".to_owned());
    }
    let Some(extension) = extension.filter(|extension| options.has_extension(extension)) else {
        return Ok(None);
    };
    match options.get_extension(extension).as_message() {
        Some(message) => policy(message).map(Some),
        None => {
            Err("is not a message: compile with the policy.proto of this version of tollgate-tonic"
                .to_owned())
        }
    }
}

fn policy(message: &DynamicMessage) -> Result<RpcPolicy, String> {
    let mut fields = Fields::default();
    for (field, value) in message.fields() {
        fields.set(&field, value).ok_or_else(|| unknown(&format!("the field {}", field.name())))?;
    }
    // What is not understood may be a restriction.
    if let Some(field) = message.unknown_fields().next() {
        return Err(unknown(&format!("field number {}", field.number())));
    }
    fields.into_policy()
}

fn unknown(field: &str) -> String {
    format!("sets {field}, which this version of tollgate-tonic does not know: update tollgate-tonic")
}

/// The fields of a policy, as they are written.
#[derive(Default)]
struct Fields {
    scopes: Vec<Requirement>,
    any_scopes: Vec<Requirement>,
    cost: Option<u64>,
    credits: Option<u64>,
    is_public: bool,
    is_anonymous: bool,
}

impl Fields {
    /// Sets a field; `None` if it is not one of a policy.
    fn set(&mut self, field: &FieldDescriptor, value: &Value) -> Option<()> {
        match field.name() {
            "scopes" => self.scopes = scopes(value)?,
            "any_scopes" => self.any_scopes = scopes(value)?,
            "cost" => self.cost = Some(value.as_u64()?),
            "credits" => self.credits = Some(value.as_u64()?),
            "public" => self.is_public = value.as_bool()?,
            "anonymous" => self.is_anonymous = value.as_bool()?,
            _ => return None,
        }
        Some(())
    }

    fn into_policy(self) -> Result<RpcPolicy, String> {
        let has_scopes = !self.scopes.is_empty() || !self.any_scopes.is_empty();
        let policy = match (self.is_public, self.is_anonymous) {
            (true, _) if has_scopes => {
                return Err("is public and requires scopes: remove one of the two".to_owned());
            }
            (true, true) => return Err("is both public and anonymous: remove one of the two".to_owned()),
            (true, false) => RpcPolicy::public(),
            (false, true) if has_scopes => {
                return Err("admits anonymous callers and requires scopes: remove one of the two".to_owned());
            }
            (false, true) => RpcPolicy::anonymous(),
            (false, false) if has_scopes => RpcPolicy::requires(self.requirement()),
            (false, false) => RpcPolicy::authenticated(),
        };
        let policy = self.cost.map_or(policy.clone(), |cost| policy.with_cost(cost));
        Ok(self.credits.map_or(policy.clone(), |credits| policy.with_credits(credits)))
    }

    fn requirement(&self) -> Requirement {
        let all = Requirement::all_of(self.scopes.clone());
        if self.any_scopes.is_empty() { all } else { all & Requirement::any_of(self.any_scopes.clone()) }
    }
}

fn scopes(value: &Value) -> Option<Vec<Requirement>> {
    value.as_list()?.iter().map(|name| name.as_str().map(|name| scope(name.to_owned()))).collect()
}
