//! `keys usage`.

use std::time::{Duration, SystemTime};

use tollgate::usage::UsageQuery;

use super::{Session, keys, now};
use crate::{
    arguments::keys::Usage,
    failure::{Exit, Failure},
    output::{
        self, describe,
        table::{self, Stream},
    },
    store::show_waiting,
};

/// The default of `--from`: this long before `--until`.
const WEEK: Duration = Duration::from_hours(7 * 24);

pub(super) async fn run(usage: Usage, session: &Session) -> Result<Exit, Failure> {
    let until = usage.until.unwrap_or_else(now);
    let from =
        usage.from.unwrap_or_else(|| hour_of(until.checked_sub(WEEK).unwrap_or(SystemTime::UNIX_EPOCH)));
    if from >= until {
        return Err(Failure::new(Exit::Refused, "the usage range is empty: --until must be after --from"));
    }
    // Fails if there is no such key. A key without usage is no failure.
    let details = keys::find(&usage.id, session).await?;
    let stored = session.store.usage.usage(&UsageQuery::new(&details.id, from, until)).into_future();
    let hours = show_waiting("Adding up", stored).await?.hours;
    if session.is_json {
        output::json(&describe::usage(&details.id, (from, until), &hours))?;
    } else if hours.is_empty() {
        let (from, until) = (table::instant(Some(from)), table::instant(Some(until)));
        output::note(&format!("{} was not used from {from} to {until}.", output::visible(&details.id)));
    } else {
        output::result(&table::usage(&hours, Stream::Out))?;
    }
    Ok(Exit::Done)
}

/// The beginning of the hour, so that the first hour is complete.
fn hour_of(instant: SystemTime) -> SystemTime {
    let since_epoch = instant.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch - since_epoch % 3_600)
}
