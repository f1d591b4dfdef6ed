//! `tenants show`, `tenants plan`, `tenants suspend` and `tenants resume`.

use tollgate::{Plan, manage::TenantDetails};

use super::Session;
use crate::{
    arguments::Tenants,
    failure::{Exit, Failure},
    output::{
        self, describe,
        table::{self, Stream},
    },
    store::show_waiting,
};

pub(super) async fn run(command: Tenants, session: Session) -> Result<Exit, Failure> {
    let manager = session.keyless_manager();
    let actor = &session.actor;
    match command {
        Tenants::Show { tenant } => {
            let shown = show_waiting("Reading", manager.tenant(&tenant, actor)).await?;
            report(&table::tenant(&shown, Stream::Out), &shown, &session)
        }
        Tenants::Plan { tenant, tier, lapsed, .. } => {
            let plan = tier.map(|tier| if lapsed { Plan::lapsed(tier) } else { Plan::active(tier) });
            let work = manager.set_tenant_plan(&tenant, plan, actor);
            let changed = show_waiting("Changing", work).await?;
            let plan = match table::plan(changed.plan.as_ref()) {
                plan if plan.is_empty() => "no plan".to_owned(),
                plan => format!("the plan {}", output::visible(&plan)),
            };
            let what = format!("has {plan}. This applies to all its keys without a plan of their own");
            report(&sentence(&changed, &what), &changed, &session)
        }
        Tenants::Suspend { tenant } => {
            let changed = show_waiting("Suspending", manager.suspend_tenant(&tenant, actor)).await?;
            report(&sentence(&changed, "is suspended: all its keys are refused"), &changed, &session)
        }
        Tenants::Resume { tenant } => {
            let changed = show_waiting("Resuming", manager.resume_tenant(&tenant, actor)).await?;
            let what = "is not suspended: its keys are accepted, except expired and revoked ones";
            report(&sentence(&changed, what), &changed, &session)
        }
    }
}

fn sentence(details: &TenantDetails, what: &str) -> String {
    format!("{} {what}.", output::visible(&details.tenant))
}

/// Writes the tenant: as JSON, or as a message.
fn report(message: &str, details: &TenantDetails, session: &Session) -> Result<Exit, Failure> {
    if session.is_json {
        output::json(&describe::tenant(details))?;
    } else {
        output::result(message)?;
    }
    Ok(Exit::Done)
}
