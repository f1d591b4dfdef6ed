//! The credits of organizations: 200 a month for each.
//!
//! ```text
//! > GET /v1/credits
//! < 200 {"balance":180,"reserved":20}
//! ```

use axum::{Json, extract::State};
use serde_json::{Value, json};
use support::clock::ServiceClock;
use tollgate::{
    clock::Clock,
    credits::{CreditAdmin, CreditAdminError, Credits, NewGrant, Refill},
    manage::{Actor, Command},
};
use tollgate_axum::Refused;
use tollgate_sql::SqlCredits;

use crate::organization::Organization;

const MONTHLY_CREDITS: u64 = 200;

/// Grants each organization its credits of each month. What is left of a month lapses at its end.
pub(crate) async fn grant(
    credits: &impl CreditAdmin,
    organizations: [&str; 3],
    clock: &ServiceClock,
) -> Result<(), CreditAdminError> {
    let actor = Actor::new("oplive");
    for organization in organizations {
        // A grant with an identifier is made once, also if the service starts again with the same store.
        let monthly = NewGrant::new(organization, MONTHLY_CREDITS)
            .with_id("monthly")
            .with_refill(Refill::Monthly { day: 1 });
        credits.grant(Command::new(monthly, actor.clone(), clock.now())).await?;
    }
    Ok(())
}

/// What can be spent, and what jobs in progress have reserved.
pub(crate) async fn balance(
    Organization(organization): Organization,
    State((credits, clock)): State<(SqlCredits, ServiceClock)>,
) -> Result<Json<Value>, Refused> {
    let balance = credits.balance(&organization, clock.now()).await?;
    Ok(Json(json!({ "balance": balance.available, "reserved": balance.reserved })))
}
