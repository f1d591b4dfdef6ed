//! The bounds on what is stored and kept of keys and of credits, in one place.
//!
//! A command that exceeds a bound is refused with an error that names it, for every store: a `KeyManager` calls
//! [`Command::check`](crate::manage::Command::check) before the store. A record that was stored before the bounds existed can still
//! be read.
//!
//! The guide `docs/guides/bounds.md` in Tollgate's repository has a table of these bounds and of those of caches and counters.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The identifier of a key, in bytes.
pub const MAX_ID_BYTES: usize = 256;

/// The name of a key, in characters.
pub const MAX_NAME_CHARS: usize = 100;

/// The display prefix of a key, in bytes.
pub const MAX_DISPLAY_PREFIX_BYTES: usize = 64;

/// A tenant, in bytes.
pub const MAX_TENANT_BYTES: usize = 200;

/// One scope, in bytes.
pub const MAX_SCOPE_BYTES: usize = 128;

/// The number of scopes of a key.
pub const MAX_SCOPES: usize = 256;

/// All scopes of a key together, in bytes: separated by spaces.
pub const MAX_SCOPES_BYTES: usize = 8 * 1024;

/// The tier of a plan, in bytes.
pub const MAX_TIER_BYTES: usize = 100;

/// The role of a key, in bytes.
pub const MAX_ROLE_BYTES: usize = 100;

/// The number of quotas of a key.
pub const MAX_QUOTAS: usize = 16;

/// The number of windows of each quota of a key.
pub const MAX_WINDOWS: usize = 8;

/// The name of the policy of a key's quota, in bytes.
pub const MAX_POLICY_BYTES: usize = 100;

/// The number of networks from which a key may be used.
pub const MAX_NETWORKS: usize = 100;

/// The metadata of a key, in bytes: as compact JSON.
pub const MAX_METADATA_BYTES: usize = 16 * 1024;

/// The name of an actor in the history, in characters.
pub const MAX_ACTOR_CHARS: usize = 256;

/// The detail of an event in the history, in bytes. A longer one ends in `…`.
pub const MAX_DETAIL_BYTES: usize = 4 * 1024;

/// How long a former secret stays valid after a rotation: 366 days. Longer use of two secrets needs two keys.
pub const MAX_OVERLAP: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Every instant of a key is before the year 9999: in seconds since 1970-01-01 UTC. Calendars end there, since a date has four
/// digits for the year in any time zone.
pub const END_OF_CALENDAR_SECONDS: u64 = 253_370_764_800;

/// The amount of a grant, of a reservation and of a debt: 10^15 credits. The sums of an account then fit into 64 bits.
pub const MAX_CREDITS: u64 = 1_000_000_000_000_000;

/// The number of grants of an account that have not ended.
pub const MAX_GRANTS: usize = 100;

/// The identifier of a grant, in bytes.
pub const MAX_GRANT_ID_BYTES: usize = 200;

/// The note of a grant, in characters.
pub const MAX_NOTE_CHARS: usize = 500;

/// The number of reservations of an account that are not settled and have not expired. More requests are refused with 429.
pub const MAX_OPEN_RESERVATIONS: u32 = 5_000;

/// How long a reservation lasts at most: 7 days. A later expiry is brought forward.
pub const MAX_RESERVATION_TIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The idempotency key of a reservation, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// How long a reservation and its idempotency key are remembered after its settlement or its expiry: 24 hours.
pub const SETTLEMENT_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The number of entries in a page of keys or events.
pub const MAX_PAGE_ITEMS: u32 = 1_000;

/// The texts in a page of keys or events, in bytes: a page of larger entries has fewer of them, and at least one.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// Whether an instant is before the year 9999.
pub(crate) fn is_in_calendar(instant: SystemTime) -> bool {
    instant.duration_since(UNIX_EPOCH).map_or(true, |since| since.as_secs() < END_OF_CALENDAR_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_ends_with_the_year_9998() {
        let end = UNIX_EPOCH + Duration::from_secs(END_OF_CALENDAR_SECONDS);
        assert!(is_in_calendar(end - Duration::from_nanos(1)) && !is_in_calendar(end));
        assert!(is_in_calendar(UNIX_EPOCH - Duration::from_secs(1)));
        // 400 years are 146,097 days. From 1600, 21 such periods end with the year 9999. 1970 is 370 years with 90 leap days later.
        let days = 21 * 146_097 - 365 - (370 * 365 + 90);
        assert_eq!(END_OF_CALENDAR_SECONDS, days * 86_400);
    }
}
