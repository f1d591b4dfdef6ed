//! `tenants suspend` and `tenants resume`.

use serde_json::json;

use super::Session;
use crate::{
    arguments::Tenants,
    failure::{Exit, Failure},
    output,
    store::show_waiting,
};

pub(super) async fn run(command: Tenants, session: Session) -> Result<Exit, Failure> {
    let manager = session.keyless_manager();
    let actor = &session.actor;
    let (tenant, suspended) = match command {
        Tenants::Suspend { tenant } => {
            show_waiting("Suspending", manager.suspend_tenant(&tenant, actor)).await?;
            (tenant, true)
        }
        Tenants::Resume { tenant } => {
            show_waiting("Resuming", manager.resume_tenant(&tenant, actor)).await?;
            (tenant, false)
        }
    };
    if session.is_json {
        output::json(&json!({ "tenant": tenant, "suspended": suspended }))?;
    } else {
        let what = if suspended {
            "is suspended: all its keys are refused"
        } else {
            "is not suspended: its keys are accepted, except expired and revoked ones"
        };
        output::result(&format!("{} {what}.", output::visible(&tenant)))?;
    }
    Ok(Exit::Done)
}
