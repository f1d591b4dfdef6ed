//! The policy of one RPC.

use tollgate::scope::Requirement;

/// Who may call an RPC, and what a call costs: what `tollgate.Policy` is in the proto.
///
/// ```
/// use tollgate::scope;
/// use tollgate_tonic::policy::RpcPolicy;
///
/// let read = RpcPolicy::requires(scope("prices:read"));
/// let upload = RpcPolicy::requires(scope("candles:write") & (scope("eu") | scope("us"))).with_cost(10).with_credits(5);
/// let whoami = RpcPolicy::authenticated();
/// let ping = RpcPolicy::anonymous();
/// let health = RpcPolicy::public();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcPolicy {
    access: Access,
    // `None`: the default.
    cost: Option<u64>,
    credits: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Access {
    Public,
    Anonymous,
    Requires(Requirement),
}

impl RpcPolicy {
    /// The caller needs these scopes. A requirement that even an anonymous caller meets, such as an empty `all_of`, is an error at start-up:
    /// write [`authenticated`](Self::authenticated) or [`anonymous`](Self::anonymous).
    pub fn requires(requirement: impl Into<Requirement>) -> Self {
        Self { access: Access::Requires(requirement.into()), cost: None, credits: None }
    }

    /// The caller needs a principal, whatever its scopes.
    pub fn authenticated() -> Self {
        Self::requires(Requirement::authenticated())
    }

    /// Also open to callers without a credential, if the stack accepts them. Limits apply to them.
    pub fn anonymous() -> Self {
        Self { access: Access::Anonymous, cost: None, credits: None }
    }

    /// Open to everyone, past all guards and limits: see [`PublicRoutes`](tollgate::verify::PublicRoutes).
    pub fn public() -> Self {
        Self { access: Access::Public, cost: None, credits: None }
    }

    /// How much a call takes from quotas. Default: 1. A call with a cost of 0 is not counted.
    pub fn with_cost(mut self, units: u64) -> Self {
        self.cost = Some(units);
        self
    }

    /// How many credits a call is estimated to cost. Default: 0.
    pub fn with_credits(mut self, credits: u64) -> Self {
        self.credits = Some(credits);
        self
    }

    /// Whether the RPC is open to everyone.
    pub fn is_public(&self) -> bool {
        self.access == Access::Public
    }

    /// What a principal needs. An RPC that is public or open to anonymous callers requires nothing.
    pub fn requirement(&self) -> Requirement {
        match &self.access {
            Access::Public | Access::Anonymous => Requirement::none(),
            Access::Requires(requirement) => requirement.clone(),
        }
    }

    /// How much a call takes from quotas.
    pub fn cost(&self) -> u64 {
        self.cost.unwrap_or(1)
    }

    /// How many credits a call is estimated to cost.
    pub fn credits(&self) -> u64 {
        self.credits.unwrap_or(0)
    }

    /// Why the policy cannot hold, as the end of a sentence that begins with its name; `None` if it can.
    pub(super) fn error(&self) -> Option<String> {
        let requirement = self.requirement();
        if let Err(invalid) = requirement.validate() {
            return Some(format!("has an error: {invalid}"));
        }
        if matches!(self.access, Access::Requires(_)) && requirement.admits_anonymous() {
            return Some(
                "requires nothing, so that anonymous callers meet it: write RpcPolicy::authenticated() if the caller needs a principal, or \
                 RpcPolicy::anonymous() if not"
                    .to_owned(),
            );
        }
        if self.is_public() && (self.cost.is_some() || self.credits.is_some()) {
            return Some(
                "is public and has a cost, but public RPCs are not counted: remove one of the two".to_owned(),
            );
        }
        if requirement.admits_anonymous() && self.credits() > 0 {
            return Some(
                "admits anonymous callers and has a cost in credits, which they cannot pay: remove one of the two".to_owned(),
            );
        }
        None
    }
}
