//! Parsers of argument values. Each error says what to write instead, and repeats nothing of the value.

use std::time::{Duration, SystemTime};

use jiff::{Span, SpanRelativeTo, Timestamp, civil::Date};
use tollgate::{
    KeyFormat, Quota, Scopes, bounds::END_OF_CALENDAR_SECONDS, credits::Refill, manage::Metadata,
    network::Network,
};

/// An instant in the format of RFC 3339, before the year 9999.
pub(crate) fn instant(text: &str) -> Result<SystemTime, String> {
    // A negative second is before 1970.
    let is_in_calendar =
        |instant: &Timestamp| u64::try_from(instant.as_second()).unwrap_or(0) < END_OF_CALENDAR_SECONDS;
    let instant = text.parse::<Timestamp>().ok().filter(is_in_calendar);
    instant
        .and_then(|instant| instant.try_into().ok())
        .ok_or_else(|| "write an instant before the year 9999, such as 2027-01-31T00:00:00Z".to_owned())
}

/// An instant, or a date, which means midnight UTC at its beginning.
pub(crate) fn instant_or_day(text: &str) -> Result<SystemTime, String> {
    // A longer text can parse as a date, and contain a time as well.
    let is_day = text.len() == "2027-01-31".len() && text.parse::<Date>().is_ok();
    let read = if is_day { instant(&format!("{text}T00:00:00Z")) } else { instant(text) };
    read.map_err(|_| "write a date such as 2027-01-31, or an instant such as 2027-01-31T00:00:00Z".into())
}

/// A duration of more than zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let read = || {
        let span = text.parse::<Span>().ok()?;
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
        Duration::try_from(duration).ok().filter(|duration| !duration.is_zero())
    };
    read().ok_or_else(|| {
        "write a duration such as 30d, 12h or 1h30m: months and years have no fixed length".into()
    })
}

/// When a grant of credits is filled up again.
pub(crate) fn refill(text: &str) -> Result<Refill, String> {
    text.parse().map_err(|_| "write `daily`, or `monthly:` and a day from 1 to 31, such as monthly:1".into())
}

/// A quota, and the policy whose quota it replaces: `default=60/minute,1000/hour`.
pub(crate) fn quota(text: &str) -> Result<(String, Quota), String> {
    let read = || {
        let (policy, quota) = text.split_once('=').filter(|(policy, _)| !policy.is_empty())?;
        Some((policy.to_owned(), quota.parse().ok()?))
    };
    read().ok_or_else(|| {
        "write a policy and its quota, such as default=60/minute or default=10/second,1000/hour; the units are second, minute, \
         hour, day, week and month"
            .to_owned()
    })
}

/// Scopes, separated by commas or spaces.
pub(crate) fn scopes(text: &str) -> Result<Scopes, String> {
    let names = word(text)?.replace(',', " ");
    names.parse().map_err(|_| {
        "a scope is 1 to 128 printable ASCII characters without space, comma, quote and backslash".to_owned()
    })
}

/// A network from which a key may be used.
pub(crate) fn network(text: &str) -> Result<Network, String> {
    text.parse().map_err(|_| {
        "write an address such as 198.51.100.7 or 2001:db8::7, or a network such as 198.51.100.0/24 or 2001:db8::/32".into()
    })
}

/// Application data.
pub(crate) fn metadata(text: &str) -> Result<Metadata, String> {
    let most = Metadata::MAX_BYTES;
    word(text)?
        .parse()
        .map_err(|_| format!("write a JSON object of at most {most} bytes, such as {{\"team\":7}}"))
}

/// Any text but a secret, which would be stored and shown.
pub(crate) fn word(text: &str) -> Result<String, String> {
    /// The random part of a secret is longer.
    const RANDOM: usize = 20;

    let begins_random = |rest: &str| rest.bytes().take_while(u8::is_ascii_alphanumeric).count() >= RANDOM;
    if ["_live_", "_test_"].iter().any(|environment| text.split(environment).skip(1).any(begins_random)) {
        return Err(
            "this is the secret of a key, which other users of this machine can read here: rotate the key"
                .into(),
        );
    }
    Ok(text.to_owned())
}

/// The prefix of keys.
pub(crate) fn prefix(text: &str) -> Result<KeyFormat, String> {
    KeyFormat::new(text).map_err(|error| error.to_string())
}

/// A name in the history.
pub(crate) fn operator(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().count() > 100 || text.chars().any(char::is_control) {
        return Err("a name must have 1 to 100 characters, and no control characters".to_owned());
    }
    word(text)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use tollgate::PerWindow as _;

    use super::*;

    #[test]
    fn reads_instants_with_any_offset() {
        let hours = |hours: u64| UNIX_EPOCH + Duration::from_secs(hours * 60 * 60);
        assert_eq!(instant("1970-01-01T10:00:00Z"), Ok(hours(10)));
        assert_eq!(instant("1970-01-01T10:00:00+02:00"), Ok(hours(8)));
        assert_eq!(instant_or_day("1970-01-01T10:00:00Z"), Ok(hours(10)));
        assert_eq!(instant_or_day("1970-01-02"), Ok(hours(24)));
        for text in ["", "1970-01-01", "1970-01-01T10:00:00", "tomorrow", "30d"] {
            assert!(instant(text).is_err(), "{text}");
        }
        assert!(instant("9998-12-31T23:59:59Z").is_ok());
        for text in ["9999-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
            assert!(instant(text).unwrap_err().contains("before the year 9999"), "{text}");
        }
        for text in ["", "1970-01-01T10:00:00", "1970-02-30", "tomorrow"] {
            assert!(instant_or_day(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_durations_of_a_fixed_length() {
        let minutes = |minutes: u64| Ok(Duration::from_secs(minutes * 60));
        assert_eq!(duration("90m"), minutes(90));
        assert_eq!(duration("1h30m"), minutes(90));
        assert_eq!(duration("30d"), minutes(30 * 24 * 60));
        assert_eq!(duration("2w"), minutes(14 * 24 * 60));
        for text in ["", "0s", "-1h", "1h ago", "1mo", "1y", "30", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_quotas_for_policies() {
        let both = 60.per_minute().and(1_000.per_hour());
        assert_eq!(quota("default=60/minute,1000/hour"), Ok(("default".to_owned(), both)));
        for text in ["", "60/minute", "=60/minute", "default=", "default=60", "default=60/min"] {
            // In the form of the help.
            assert!(quota(text).unwrap_err().contains("default=60/minute"), "{text}");
        }
    }

    #[test]
    fn reads_scopes_separated_by_commas_or_spaces() {
        let both = Scopes::new(["jobs:create", "jobs:read"]).unwrap();
        for text in ["jobs:read,jobs:create", "jobs:read jobs:create", " jobs:read, jobs:create,"] {
            assert_eq!(scopes(text).as_ref(), Ok(&both), "{text}");
        }
        assert!(scopes("jobs\"read").is_err());
    }

    #[test]
    fn refuses_the_secret_of_a_key_as_a_word() {
        let secret = KeyFormat::new("sk").unwrap().generate(tollgate::Environment::Live).unwrap();
        let secret = secret.expose_secret();
        for text in [secret.to_owned(), format!("my key {secret}"), secret.replace("_live_", "_test_")] {
            for error in [word(&text).unwrap_err(), scopes(&text).unwrap_err(), operator(&text).unwrap_err()]
            {
                assert!(error.contains("secret") && !error.contains(&secret[8..]), "{error}");
            }
        }
        for text in ["", "my_live_service", "sk_live_a1B2", "a_test_of_a_name_that_is_rather_long"] {
            assert_eq!(word(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn refuses_control_characters_in_names() {
        assert!(operator("Ada Lovelace").is_ok());
        for name in ["", " ", "ada\nrevoked", "\x1b[31m"] {
            assert!(operator(name).is_err(), "{name:?}");
        }
    }
}
