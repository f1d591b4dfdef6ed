//! The headers of a refusal: in a map that is made for all of them at once, since one that grows is filled several times.

use std::{mem, sync::OnceLock};

use http::{
    HeaderMap, HeaderName,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, VARY, WWW_AUTHENTICATE},
};
use tollgate_core::Denial;

use super::{PLACE, Stamp, fill, put};
use crate::{
    engine::{
        Gate as _, Passage, Station,
        headers::{PRIVATE, set_header},
        refusal::{Answered, challenge, retry_after},
    },
    layers::AnyGate,
};

/// The names of the headers of a refusal that comes after these stations, without values yet, as maps to be copied: one for each
/// choice of those that not every refusal has.
#[derive(Debug)]
pub(in crate::engine) struct RefusalTemplate {
    stamped: Vec<HeaderName>,
    // Then the refusal may vary on where the credential stood.
    finds_credential: bool,
    maps: [OnceLock<Option<HeaderMap>>; 1 << CHOICES],
}

const CHOICES: usize = 3;

/// The headers that only some refusals have.
static SOMETIMES: [HeaderName; CHOICES] = [WWW_AUTHENTICATE, RETRY_AFTER, VARY];

impl RefusalTemplate {
    pub(in crate::engine) fn new(stations: &[Station]) -> Self {
        let stamped = stations.iter().filter_map(|station| station.gate.stamps()).flatten().collect();
        let finds_credential = stations.iter().any(|station| matches!(station.gate, AnyGate::Credential(_)));
        Self { stamped, finds_credential, maps: Default::default() }
    }

    /// All headers of a refusal, and whether the numbers among them tell of limits further out, too. `None` if the responder
    /// has said more than its media type, or a gate has nothing to tell: such headers are set one by one.
    pub(in crate::engine) fn fill(
        &self,
        stations: &[Station],
        passage: &mut Passage,
        denial: &Denial,
        answered: &Answered,
    ) -> Option<(HeaderMap, bool)> {
        let media_type = answered.only_media_type()?;
        let challenge = challenge(denial, answered.response.status(), answered.realm);
        let retry_after = retry_after(denial);
        let varies = self.finds_credential && passage.credential().is_some();

        let mut headers = self.map([challenge.is_some(), retry_after.is_some(), varies])?.clone();
        let mut places = headers.values_mut();
        put(&mut places, media_type.clone());
        put(&mut places, PRIVATE);
        if let Some(challenge) = challenge {
            put(&mut places, challenge);
        }
        if let Some(retry_after) = retry_after {
            put(&mut places, retry_after);
        }
        let vary = if varies { places.next() } else { None };
        let mut stamp = Stamp::default();
        if !fill(stations, passage, &mut places, &mut stamp) {
            return None;
        }
        match (vary, mem::take(&mut stamp.caching).vary_of_private()) {
            (Some(place), Some(value)) => *place = value,
            // Some sources have no header, and sometimes it is the absence of a credential on which a response varies.
            (None, Some(value)) => set_header(&mut headers, &VARY, value),
            (Some(_), None) => drop(headers.remove(VARY)),
            (None, None) => {}
        }
        Some((headers, stamp.are_numbers_merged))
    }

    /// The map of one choice. `None` if a gate stamps a header that refusals have of themselves, which would have two places.
    fn map(&self, is_there: [bool; CHOICES]) -> Option<&HeaderMap> {
        let choice = is_there.iter().fold(0, |choice, &is_there| choice << 1 | usize::from(is_there));
        let map = self.maps.get(choice)?.get_or_init(|| {
            let sometimes = SOMETIMES.iter().cloned().zip(is_there);
            let sometimes = sometimes.filter_map(|(name, is_there)| is_there.then_some(name));
            let names = [CONTENT_TYPE, CACHE_CONTROL].into_iter().chain(sometimes);
            let names: Vec<_> = names.chain(self.stamped.iter().cloned()).collect();
            let places = names.len();
            let map: HeaderMap = names.into_iter().map(|name| (name, PLACE)).collect();
            (map.len() == places).then_some(map)
        });
        map.as_ref()
    }
}
