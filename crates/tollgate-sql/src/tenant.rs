//! A tenant, as the tables have it.

use tollgate_core::manage::{KeyAdminError, TenantDetails};

use crate::{
    database::Connection,
    fault::Fault,
    record::{generation, read_plan},
    shared::Shared,
};

/// The tenant with this name. Without a row, it was never changed.
pub(crate) async fn tenant(shared: &Shared, tenant: Box<str>) -> Result<TenantDetails, KeyAdminError> {
    if tenant.contains('\0') {
        return Ok(TenantDetails::new(tenant));
    }
    let limit = shared.settings.admin_deadline;
    let read = shared
        .database
        .read(limit, |connection| Box::pin(async move { read_tenant(connection, &tenant, "").await }));
    Ok(read.await?)
}

/// Reads the row of a tenant with this row lock.
pub(crate) async fn read_tenant(
    connection: &mut Connection,
    tenant: &str,
    lock: &'static str,
) -> Result<TenantDetails, Fault> {
    let sql = "SELECT is_suspended, generation, plan, plan_is_active FROM tollgate_tenants WHERE tenant = $1";
    let sql = connection.locking(sql, lock);
    let mut details = TenantDetails::new(tenant);
    if let Some(row) = connection.row(sql, [tenant.into()]).await? {
        details.is_suspended = row.number(0)? == 1;
        details.generation = generation(row.number(1)?);
        details.plan = read_plan(&row, 2)?;
    }
    Ok(details)
}
