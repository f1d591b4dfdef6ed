//! The credits of organizations.
//!
//! ```text
//! > GET /v1/scanner/credits/balance
//! < 200 {"balance":99}
//! ```

use axum::{Json, extract::State};
use serde_json::{Value, json};
use support::clock::ServiceClock;
use tollgate::{
    DenialKind,
    clock::Clock as _,
    credits::{CreditAdmin, CreditAdminError, Credits as _, NewGrant},
    manage::{Actor, Command},
};
use tollgate_axum::{Authenticated, Refused};
use tollgate_sql::SqlCredits;

use crate::keys;

/// Grants what each organization has bought.
pub(crate) async fn grant(credits: &impl CreditAdmin, clock: &ServiceClock) -> Result<(), CreditAdminError> {
    for (organization, amount) in [(keys::ACME, 100), (keys::GLOBEX, 1_000), (keys::INITECH, 100)] {
        // A grant with an identifier is made once, also if the service starts again with the same database.
        let grant = NewGrant::new(organization, amount).with_id("welcome");
        credits.grant(Command::new(grant, Actor::new("sly"), clock.now())).await?;
    }
    Ok(())
}

/// What can be spent: credits that requests in progress have reserved are subtracted.
pub(crate) async fn balance(
    caller: Authenticated,
    State((credits, clock)): State<(SqlCredits, ServiceClock)>,
) -> Result<Json<Value>, Refused> {
    let organization = caller.tenant().ok_or(DenialKind::Forbidden)?;
    let balance = credits.balance(organization, clock.now()).await?;
    Ok(Json(json!({ "balance": balance.available })))
}
