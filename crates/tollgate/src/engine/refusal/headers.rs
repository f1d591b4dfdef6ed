//! The headers of a refusal, all at once: a map that grows is filled several times, and refusals come in floods.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, VARY, WWW_AUTHENTICATE},
};
use tollgate_core::denial::Denial;

use super::{challenge::challenge, is_error, retry_after};
use crate::engine::{
    ResponseParts,
    headers::PRIVATE,
    stamp::{self, Blanks, LIMIT, REMAINING, RESET, X_REQUEST_ID},
};

/// In which a map's names stand.
static ORDER: [&HeaderName; COUNT] = [
    &CONTENT_TYPE,
    &CACHE_CONTROL,
    &WWW_AUTHENTICATE,
    &RETRY_AFTER,
    &VARY,
    &LIMIT,
    &REMAINING,
    &RESET,
    &X_REQUEST_ID,
];

const COUNT: usize = 9;

/// All headers of a refusal, if the responder has answered with an error and named its media type, and nothing else.
pub(super) fn of(
    response: &Response<Bytes>,
    denial: &Denial,
    realm: &str,
    stamp: &mut ResponseParts,
) -> Option<HeaderMap> {
    let is_usual = response.headers().len() == 1
        && is_error(response.status())
        && stamp.other_header.is_none()
        // Or others are to be told that the numbers are written.
        && !stamp.are_numbers_merged;
    let media_type = response.headers().get(CONTENT_TYPE).filter(|_| is_usual)?.clone();
    let challenge = challenge(denial, response.status(), realm);
    let retry_after = retry_after(denial);
    let vary = stamp.caching.vary_of_private();
    let request_id = stamp.request_id.take();
    let has_numbers = stamp.numbers.is_some();
    let names = names([
        true,
        true,
        challenge.is_some(),
        retry_after.is_some(),
        vary.is_some(),
        has_numbers,
        has_numbers,
        has_numbers,
        request_id.is_some(),
    ])?;
    let mut headers = names.clone();
    let mut blanks = Blanks::of(&mut headers);
    blanks.fill(media_type);
    blanks.fill(PRIVATE);
    if let Some(challenge) = challenge {
        blanks.fill(challenge);
    }
    if let Some(retry_after) = retry_after {
        blanks.fill(retry_after);
    }
    if let Some(vary) = vary {
        blanks.fill(vary);
    }
    if let Some(numbers) = stamp.numbers {
        numbers.tell(|_, number| blanks.fill(number));
    }
    if let Some(request_id) = request_id {
        blanks.fill(request_id);
    }
    Some(headers)
}

/// Some of the names, as a map without values yet: one is made for each choice, and kept.
fn names(are_chosen: [bool; COUNT]) -> Option<&'static HeaderMap> {
    static MAPS: [OnceLock<Option<HeaderMap>>; 1 << COUNT] = [const { OnceLock::new() }; 1 << COUNT];

    let choice = are_chosen.iter().fold(0, |choice, &is_chosen| choice << 1 | usize::from(is_chosen));
    let map = MAPS.get(choice)?.get_or_init(|| {
        let chosen = ORDER.iter().zip(are_chosen).filter_map(|(name, is_chosen)| is_chosen.then_some(*name));
        stamp::names(chosen)
    });
    map.as_ref()
}
