//! What a request asks for, read from its body or its query.

use std::{fmt, time::SystemTime};

use axum::extract::{FromRequest, Query, Request};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri, header::CONTENT_TYPE};
use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, Visitor},
};

use super::refused::Refused;

/// A key to be issued.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) expires_at: Option<Instant>,
}

/// A key to be renamed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Renaming {
    pub(super) name: String,
}

/// A key to be changed: what is absent stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Changes {
    pub(super) name: Option<String>,
    pub(super) scopes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[expect(clippy::option_option, reason = "absent, null and an instant are three things")]
    pub(super) expires_at: Option<Option<Instant>>,
}

/// A secret to be replaced.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    pub(super) overlap_s: Option<u64>,
}

/// Nothing more to say.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Keys to be listed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    pub(super) limit: Option<u32>,
    pub(super) after: Option<String>,
    pub(super) status: Option<String>,
    pub(super) search: Option<String>,
}

/// Events to be listed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PastListing {
    pub(super) limit: Option<u32>,
    pub(super) after: Option<String>,
}

/// Reads what must be said.
pub(super) async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Refused> {
    let (headers, bytes) = received(request).await?;
    parse(&headers, &bytes)
}

/// Reads what may be left out.
pub(super) async fn read_if_any<T: DeserializeOwned + Default>(request: Request) -> Result<T, Refused> {
    let (headers, bytes) = received(request).await?;
    if bytes.is_empty() { Ok(T::default()) } else { parse(&headers, &bytes) }
}

async fn received(mut request: Request) -> Result<(HeaderMap, Bytes), Refused> {
    let headers = std::mem::take(request.headers_mut());
    match Bytes::from_request(request, &()).await {
        Ok(bytes) => Ok((headers, bytes)),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(Refused::too_large()),
        Err(_) => Err(Refused::invalid("the body did not arrive")),
    }
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Refused> {
    if !is_json(headers) {
        return Err(Refused::no_json());
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = error.path().to_string();
        // Neither is a member's name: the body as a whole, or somewhere after its last good member.
        let is_whole = matches!(&*place, "." | "?");
        let place = if is_whole { "the body".to_owned() } else { format!("`{place}`") };
        Refused::invalid(format!("{place} is not understood: {}", error.inner()))
    })?;
    json.end().map_err(|error| Refused::invalid(format!("the body is not understood: {error}")))?;
    Ok(value)
}

/// `application/json`, or another type of its family: none of them is what a form can send.
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

/// A point in time, in the words of RFC 3339.
pub(super) struct Instant(pub(super) SystemTime);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rfc3339;

        impl Visitor<'_> for Rfc3339 {
            type Value = Instant;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an instant such as \"2027-01-31T00:00:00Z\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Instant, E> {
                let instant = text.parse::<Timestamp>().ok().and_then(|instant| instant.try_into().ok());
                let none = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
                instant.map(Instant).ok_or_else(none)
            }
        }

        deserializer.deserialize_str(Rfc3339)
    }
}

/// Tells `null` from what is absent.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
