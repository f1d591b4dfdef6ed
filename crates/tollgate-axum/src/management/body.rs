//! Reads the body or the query of a request.

use std::{fmt, time::SystemTime};

use axum::extract::{FromRequest, Query, Request};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri, header::CONTENT_TYPE};
use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, Visitor},
};

use tollgate::bounds::END_OF_CALENDAR_SECONDS;

use super::refused::Refused;

/// Issues a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssueBody {
    pub(super) name: String,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) expires_at: Option<Instant>,
    pub(super) allowed_networks: Option<Vec<String>>,
}

/// Renames a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenameBody {
    pub(super) name: String,
}

/// Changes a key. An absent member does not change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateBody {
    pub(super) name: Option<String>,
    pub(super) scopes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[expect(clippy::option_option, reason = "absent, null and an instant have different meanings")]
    pub(super) expires_at: Option<Option<Instant>>,
    pub(super) allowed_networks: Option<Vec<String>>,
}

/// Rotates a key's secret.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateBody {
    pub(super) overlap_s: Option<u64>,
}

/// No members.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmptyBody {}

/// Lists keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    pub(super) limit: Option<u32>,
    pub(super) after: Option<String>,
    pub(super) status: Option<String>,
    pub(super) search: Option<String>,
}

/// Lists events.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    pub(super) limit: Option<u32>,
    pub(super) after: Option<String>,
}

/// Reads a required body.
pub(super) async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Refused> {
    let (headers, bytes) = receive(request).await?;
    parse(&headers, &bytes)
}

/// Reads an optional body.
pub(super) async fn read_optional<T: DeserializeOwned + Default>(request: Request) -> Result<T, Refused> {
    let (headers, bytes) = receive(request).await?;
    if bytes.is_empty() { Ok(T::default()) } else { parse(&headers, &bytes) }
}

async fn receive(mut request: Request) -> Result<(HeaderMap, Bytes), Refused> {
    let headers = std::mem::take(request.headers_mut());
    match Bytes::from_request(request, &()).await {
        Ok(bytes) => Ok((headers, bytes)),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(Refused::too_large()),
        Err(_) => Err(Refused::invalid("the body could not be read")),
    }
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Refused> {
    if !is_json(headers) {
        return Err(Refused::not_json());
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = error.path().to_string();
        // These two are not the name of a member: the error is in the body as a whole, or after its last valid member.
        let is_whole = matches!(&*place, "." | "?");
        let place = if is_whole { "the body".to_owned() } else { format!("`{place}`") };
        Refused::invalid(format!("{place} is invalid: {}", error.inner()))
    })?;
    json.end().map_err(|error| Refused::invalid(format!("the body is invalid: {error}")))?;
    Ok(value)
}

/// `application/json`, or a type ending in `+json`. HTML forms cannot send either.
fn is_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let Ok(line) = line.to_str() else { return false };
    let essence = line.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some(subtype) = essence.strip_prefix("application/") else { return false };
    subtype == "json" || subtype.ends_with("+json")
}

pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refused> {
    let query = Query::try_from_uri(uri);
    query.map(|Query(query)| query).map_err(|rejection| Refused::invalid(rejection.body_text()))
}

/// A point in time in RFC 3339 format, before the year 9999: later ones cannot be written in every time zone.
pub(super) struct Instant(pub(super) SystemTime);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rfc3339;

        impl Visitor<'_> for Rfc3339 {
            type Value = Instant;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a timestamp before the year 9999, such as \"2027-01-31T00:00:00Z\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Instant, E> {
                let instant = text.parse::<Timestamp>().ok().filter(is_in_calendar);
                let instant = instant.and_then(|instant| instant.try_into().ok());
                let none = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
                instant.map(Instant).ok_or_else(none)
            }
        }

        deserializer.deserialize_str(Rfc3339)
    }
}

fn is_in_calendar(instant: &Timestamp) -> bool {
    // A negative second is before 1970.
    u64::try_from(instant.as_second()).unwrap_or(0) < END_OF_CALENDAR_SECONDS
}

/// Distinguishes `null` from an absent member.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
