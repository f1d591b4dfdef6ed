//! The usage of an account's tokens, and what remains of their limits:
//!
//! ```text
//! > GET /account/api-usage
//! < {"items":[{
//!     "id": "key_…", "name": "basic", "prefix": "sk_live_…", "status": "active",
//!     "limits": [{"window":"minute","limit":60,"used":1,"remaining":59,"resets_at":"2026-03-01T22:59:00Z"}, …],
//!     "usage": {"last_24_hours":[{"hour":"2026-03-01T22:00:00Z","requests":1}],
//!               "last_30_days":[{"day":"2026-03-01","requests":1}]},
//!     "last_used_at": "2026-03-01T22:58:30Z"
//!   }],"next":null}
//! ```
//!
//! The limits are live; a token that has ended has none. Usage counts the requests that passed the limits and the subscription.
//! Hours and days without usage are left out.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header::CACHE_CONTROL, request::Parts};
use jiff::{Timestamp, civil::Date, tz::Offset};
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate::{
    Denial, RateLimitLayer,
    denial::Unavailable,
    limit::{Window, WindowState},
    manage::{Actor, KeyAdminError, KeyDetails, KeyManager, KeyQuery, KeyState},
    store::EndSignal,
    usage::{HourlyUsage, UsageRecorder},
};
use tollgate_axum::{Authenticated, Rejection};

use crate::error;

/// The sources of the answer.
#[derive(Clone)]
pub(crate) struct ApiUsage {
    pub(crate) manager: KeyManager,
    pub(crate) limits: RateLimitLayer,
    pub(crate) usage: UsageRecorder,
}

#[derive(Deserialize)]
pub(crate) struct From {
    after: Option<String>,
}

pub(crate) async fn show(
    Authenticated(session): Authenticated,
    State(api_usage): State<ApiUsage>,
    from: Result<Query<From>, QueryRejection>,
    head: Parts,
) -> Response {
    let Ok(Query(From { after })) = from else {
        return error::response(StatusCode::BAD_REQUEST, "invalid_request", "The query is not understood.");
    };
    let account = session.tenant().unwrap_or_default();
    match api_usage.page(&Actor::of_tenant(account, account), after).await {
        Ok(page) => ([(CACHE_CONTROL, "no-store")], Json(page)).into_response(),
        Err(KeyAdminError::InvalidCursor) => {
            let message = KeyAdminError::InvalidCursor.to_string();
            error::response(StatusCode::BAD_REQUEST, "invalid_cursor", &message)
        }
        Err(error) => {
            Rejection::new("api-usage", Denial::unavailable(error.to_string()), &head).into_response()
        }
    }
}

impl ApiUsage {
    async fn page(&self, actor: &Actor, after: Option<String>) -> Result<Value, KeyAdminError> {
        let mut query = KeyQuery::all();
        query.after = after.map(Into::into);
        let page = self.manager.list(query, actor).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for token in &page.items {
            items.push(self.describe(token).await?);
        }
        Ok(json!({ "items": items, "next": page.next }))
    }

    async fn describe(&self, token: &KeyDetails) -> Result<Value, Unavailable> {
        let now = self.manager.now();
        let state = token.state(now);
        let mut limits = Vec::new();
        if state == KeyState::Active {
            let decision = self.limits.peek(token.to_principal(EndSignal::new()), now).await?;
            limits.extend(decision.windows().iter().map(describe_window));
        }
        let (hours, days) = self.used(token, now).await?;
        Ok(json!({
            "id": token.id,
            "name": token.name,
            "prefix": token.display_prefix,
            "status": state.as_str(),
            "limits": limits,
            "usage": { "last_24_hours": hours, "last_30_days": days },
            "last_used_at": token.last_used_at.and_then(instant),
        }))
    }

    /// A token's requests in each of the last 24 hours and each of the last 30 days, including the current hour and day.
    async fn used(
        &self,
        token: &KeyDetails,
        now: SystemTime,
    ) -> Result<(Vec<Value>, Vec<Value>), Unavailable> {
        let this_hour = beginning(Window::HOUR, now);
        let a_day_ago = this_hour - Duration::from_hours(23);
        let a_month_ago = beginning(Window::DAY, now) - Duration::from_hours(29 * 24);
        let used = self.usage.usage(&token.id, a_month_ago, this_hour + Duration::from_hours(1)).await?;

        let latest = used.iter().filter(|hour| hour.hour >= a_day_ago);
        let hours = latest.map(|hour| json!({ "hour": instant(hour.hour), "requests": hour.requests }));
        let mut days = BTreeMap::<Date, u64>::new();
        for HourlyUsage { hour, requests, .. } in &used {
            *days.entry(day(*hour)).or_default() += requests;
        }
        let days = days.iter().map(|(day, requests)| json!({ "day": day.to_string(), "requests": requests }));
        Ok((hours.collect(), days.collect()))
    }
}

fn describe_window(state: &WindowState) -> Value {
    json!({
        "window": state.window.to_string(),
        "limit": state.limit,
        "used": state.used,
        "remaining": state.remaining(),
        "resets_at": instant(state.resets_at()),
    })
}

/// When the hour or day of `now` began.
fn beginning(window: Window, now: SystemTime) -> SystemTime {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = u64::from(window.seconds());
    SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs() / seconds * seconds)
}

/// `None` after the year 9999. The last window of the clock's last day resets then.
fn instant(instant: SystemTime) -> Option<String> {
    Some(Timestamp::try_from(instant).ok()?.to_string())
}

fn day(instant: SystemTime) -> Date {
    Offset::UTC.to_datetime(instant.try_into().unwrap_or_default()).date()
}
