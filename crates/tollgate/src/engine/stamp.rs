//! What a response will carry: known before the inner service is called.

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Response};

use super::{Caching, Gate as _, Passage, Station, headers::set_header};

mod refusal;

pub(super) use refusal::RefusalTemplate;

/// What a response will carry of the gates that its request has passed.
#[derive(Default)]
pub(crate) struct Stamp {
    headers: Headers,
    /// What caches may do with it.
    pub(crate) caching: Caching,
    /// Those of the headers that tell where limits stand. Of stacked limits only the innermost writes them.
    pub(crate) numbers: &'static [HeaderName],
    /// Whether they tell of other limits, too, further out.
    pub(crate) are_numbers_merged: bool,
}

#[derive(Default)]
enum Headers {
    #[default]
    None,
    // Not worth a map.
    One(HeaderName, HeaderValue),
    Many(HeaderMap),
}

/// The names of the headers that stations stamp, without values yet: copying such a map costs less than inserting the names one
/// by one.
#[derive(Debug)]
pub(super) struct Template(Names);

#[derive(Debug)]
enum Names {
    None,
    One(HeaderName),
    Many(HeaderMap),
}

const PLACE: HeaderValue = HeaderValue::from_static("");

impl Template {
    pub(super) fn new(stations: &[Station]) -> Self {
        let mut names = stations.iter().filter_map(|station| station.gate.stamps()).flatten();
        Self(match (names.next(), names.next()) {
            (None, _) => Names::None,
            (Some(name), None) => Names::One(name),
            (Some(first), Some(second)) => {
                let all = [first, second].into_iter().chain(names);
                Names::Many(all.map(|name| (name, PLACE)).collect())
            }
        })
    }

    /// Has the gates fill it in.
    pub(super) fn fill(&self, stations: &[Station], passage: &mut Passage) -> Stamp {
        let mut stamp = Stamp::default();
        match &self.0 {
            Names::None => {
                fill(stations, passage, &mut [].iter_mut(), &mut stamp);
            }
            Names::One(name) => {
                let mut value = [PLACE];
                if fill(stations, passage, &mut value.iter_mut(), &mut stamp) {
                    let [value] = value;
                    stamp.headers = Headers::One(name.clone(), value);
                }
            }
            Names::Many(names) => {
                let mut headers = names.clone();
                if !fill(stations, passage, &mut headers.values_mut(), &mut stamp) {
                    return fill_one_by_one(stations, passage);
                }
                stamp.headers = Headers::Many(headers);
            }
        }
        stamp
    }
}

/// Has every gate fill in its places. `false` if one of them has nothing to tell.
#[inline(always)]
fn fill<'p>(
    stations: &[Station],
    passage: &mut Passage,
    places: &mut impl Iterator<Item = &'p mut HeaderValue>,
    stamp: &mut Stamp,
) -> bool {
    let mut is_filled = true;
    for station in stations.iter().filter(|station| station.stamps) {
        is_filled &= station.gate.stamp(passage, places, stamp);
    }
    is_filled
}

/// Where one of several gates has nothing to tell.
#[cold]
fn fill_one_by_one(stations: &[Station], passage: &mut Passage) -> Stamp {
    let (mut stamp, mut headers) = (Stamp::default(), HeaderMap::new());
    for station in stations {
        let Some(names) = station.gate.stamps() else { continue };
        let mut own: HeaderMap = names.into_iter().map(|name| (name, PLACE)).collect();
        if station.gate.stamp(passage, &mut own.values_mut(), &mut stamp) {
            headers.extend(own);
        }
    }
    stamp.headers = Headers::Many(headers);
    stamp
}

/// Puts a value in the next place.
pub(crate) fn put<'p>(places: &mut impl Iterator<Item = &'p mut HeaderValue>, value: HeaderValue) {
    if let Some(place) = places.next() {
        *place = value;
    }
}

impl Stamp {
    /// Completes a response. What the inner service says of the same headers is replaced.
    pub(super) fn apply<B>(&mut self, response: &mut Response<B>) {
        std::mem::take(&mut self.caching).apply(response.headers_mut());
        let are_numbers_written = !self.numbers.is_empty() && NumbersWritten::is_in(response.extensions());
        let is_due = |name: &HeaderName| !are_numbers_written || !self.numbers.contains(name);
        match std::mem::take(&mut self.headers) {
            Headers::None => {}
            Headers::One(name, value) if is_due(&name) => set_header(response.headers_mut(), &name, value),
            Headers::One(..) => {}
            Headers::Many(mut own) => {
                if are_numbers_written {
                    self.numbers.iter().for_each(|name| drop(own.remove(name)));
                }
                complete(response.headers_mut(), own);
            }
        }
        if self.are_numbers_merged && !are_numbers_written {
            response.extensions_mut().insert(NumbersWritten);
        }
    }
}

/// In a response's extensions: a limit further in has written the numbers of all.
#[derive(Clone)]
pub(super) struct NumbersWritten;

impl NumbersWritten {
    fn is_in(extensions: &Extensions) -> bool {
        !extensions.is_empty() && extensions.get::<Self>().is_some()
    }
}

/// Sets headers: whichever map has fewer is emptied into the other.
fn complete(headers: &mut HeaderMap, mut own: HeaderMap) {
    if headers.is_empty() {
        *headers = own;
    } else if headers.len() < own.len() {
        let inner = std::mem::replace(headers, own);
        add_missing(headers, inner);
    } else {
        for (name, value) in own.drain() {
            // Gates stamp no header twice, so that there is a name for each value.
            if let Some(name) = name {
                set_header(headers, &name, value);
            }
        }
    }
}

/// Adds the headers of `inner` that are not there yet, with all their lines.
fn add_missing(headers: &mut HeaderMap, inner: HeaderMap) {
    let (mut last, mut is_missing) = (None, false);
    for (name, value) in inner {
        // A further line of the same header comes without a name.
        if let Some(name) = name {
            is_missing = !headers.contains_key(&name);
            last = Some(name);
        }
        if let (true, Some(name)) = (is_missing, &last) {
            // A full map goes without.
            let _ = headers.try_append(name, value);
        }
    }
}
