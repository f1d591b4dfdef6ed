//! The floor: the whole job, written by hand as one function.
//!
//! It does everything that a guarded service needs: the caller's UUID is checked and echoed, or a new one is made; the key is
//! hashed once and looked up in a table that can change; expiry, subscription and scope are checked; windows are counted, all or
//! none; three headers show the caller's limit. It is as cheap as one function with the `http` crate can be, and it has no options:
//! no other source, format, policy, body or order.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Ready, ready},
    hash::{BuildHasherDefault, Hasher},
    marker::PhantomData,
    sync::{Arc, LazyLock, Mutex, RwLock},
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::body::Body;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use sha2::{Digest, Sha256};
use tower::Service;
use uuid::{Builder, Uuid};

use crate::{
    cast::{self, Scenario},
    drive::{Answers, Driven, Stack},
    random,
};

mod layer;

pub(super) use layer::on;

pub(super) fn build<A: Answers>(scenario: Scenario, windows: usize) -> Box<dyn Stack> {
    match windows {
        1 => Box::new(Driven(Floor::<1, A>::new(scenario))),
        3 => Box::new(Driven(Floor::<3, A>::new(scenario))),
        other => panic!("there is no floor with {other} windows"),
    }
}

/// Counts `N` windows. Allowed requests are answered with `A`.
struct Floor<const N: usize, A>(Arc<Table<N>>, PhantomData<A>);

impl<const N: usize, A> Floor<N, A> {
    fn new(scenario: Scenario) -> Self {
        Self(Arc::new(Table::new(scenario)), PhantomData)
    }
}

/// Keys by the digest of their text, in shards.
struct Table<const N: usize> {
    shards: [RwLock<Shard<N>>; SHARDS],
    // The shortest first.
    windows: [Window; N],
}

type Shard<const N: usize> = HashMap<[u8; 32], Record<N>, BuildHasherDefault<DigestIsHash>>;

const SHARDS: usize = 64;

struct Window {
    seconds: u64,
    limit: u64,
    limit_text: HeaderValue,
    // The headers that its responses have in common: all four names, and the limit.
    headers: HeaderMap,
}

impl Window {
    fn new(seconds: u32, limit: u32) -> Self {
        let place = HeaderValue::from_static("");
        let limit_text = HeaderValue::from_static(limit.to_string().leak());
        // In the order in which `complete` fills them in.
        let headers = [
            (X_REQUEST_ID.clone(), place.clone()),
            (X_RATELIMIT_REMAINING.clone(), place.clone()),
            (X_RATELIMIT_RESET.clone(), place),
            (X_RATELIMIT_LIMIT.clone(), limit_text.clone()),
        ];
        let headers = headers.into_iter().collect();
        Self { seconds: seconds.into(), limit: limit.into(), limit_text, headers }
    }
}

struct Record<const N: usize> {
    expires_at: u64,
    has_subscription: bool,
    scopes: Vec<String>,
    counters: Mutex<[Counter; N]>,
}

struct Counter {
    used: u64,
    ends_at: u64,
    // Formatted when a window begins, not for each request.
    ends_at_text: HeaderValue,
}

impl Counter {
    const PASSED: Self = Self { used: 0, ends_at: 0, ends_at_text: HeaderValue::from_static("0") };
}

impl<const N: usize> Table<N> {
    fn new(scenario: Scenario) -> Self {
        let windows = scenario.limits(N).into_iter().map(|(seconds, limit)| Window::new(seconds, limit));
        let windows = windows.collect::<Vec<_>>().try_into().ok().unwrap();
        let table = Self { shards: std::array::from_fn(|_| RwLock::default()), windows };
        for key in cast::keys() {
            let digest: [u8; 32] = Sha256::digest(key).into();
            let record = Record {
                expires_at: u64::MAX,
                has_subscription: true,
                scopes: scenario.scopes().map(str::to_owned).to_vec(),
                counters: Mutex::new([Counter::PASSED; N]),
            };
            table.shard(&digest).write().unwrap().insert(digest, record);
        }
        table
    }

    /// Selects the shard by a byte that does not select the place within the shard.
    fn shard(&self, digest: &[u8; 32]) -> &RwLock<Shard<N>> {
        &self.shards[usize::from(digest[31]) % SHARDS]
    }

    /// Authenticates the caller and checks its rights.
    fn admit(&self, headers: &HeaderMap) -> Result<Numbers, Refusal> {
        let credential = headers.get(AUTHORIZATION).ok_or(Refusal::UnknownKey)?.as_bytes();
        let (scheme, key) = credential.split_at_checked(7).ok_or(Refusal::UnknownKey)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") || key.len() > 4_096 {
            return Err(Refusal::UnknownKey);
        }
        let digest: [u8; 32] = Sha256::digest(key).into();
        let shard = self.shard(&digest).read().unwrap();
        let record = shard.get(&digest).ok_or(Refusal::UnknownKey)?;
        #[expect(clippy::disallowed_methods, reason = "the floor has no clock of Tollgate's")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        if record.expires_at <= now {
            return Err(Refusal::UnknownKey);
        }
        let numbers = self.count(&mut record.counters.lock().unwrap(), now)?;
        let has_scope = record.scopes.iter().any(|scope| scope == cast::SCOPE);
        if record.has_subscription && has_scope { Ok(numbers) } else { Err(Refusal::Forbidden) }
    }

    /// Counts in all windows or in none. Returns the values of the window with the least remaining.
    fn count(&self, counters: &mut [Counter; N], now: u64) -> Result<Numbers, Refusal> {
        let (mut tightest, mut least) = (0, u64::MAX);
        for (at, (counter, window)) in counters.iter_mut().zip(&self.windows).enumerate() {
            // Divides only when a window ends.
            if now >= counter.ends_at {
                let ends_at = (now / window.seconds + 1) * window.seconds;
                *counter = Counter { used: 0, ends_at, ends_at_text: HeaderValue::from(ends_at) };
            }
            let left = window.limit.saturating_sub(counter.used);
            if left < least {
                (tightest, least) = (at, left);
            }
        }
        let counter = &counters[tightest];
        let numbers = Numbers {
            window: tightest,
            remaining: least.saturating_sub(1),
            ends_at: counter.ends_at_text.clone(),
        };
        if least == 0 {
            return Err(Refusal::OverLimit { numbers, retry_after: counter.ends_at - now });
        }
        for counter in counters {
            counter.used += 1;
        }
        Ok(numbers)
    }

    /// Adds the four headers. If there are none yet, copying a map with their names costs less than four insertions.
    fn complete(&self, headers: &mut HeaderMap, numbers: Numbers, id: HeaderValue) {
        let window = &self.windows[numbers.window];
        let own = [id, digits(numbers.remaining), numbers.ends_at];
        if headers.is_empty() {
            headers.clone_from(&window.headers);
            headers.values_mut().zip(own).for_each(|(place, value)| *place = value);
        } else {
            insert(headers, own, window.limit_text.clone());
        }
    }

    /// The same problem and headers as Tollgate's.
    fn refuse(&self, refusal: Refusal, id: HeaderValue) -> Response<Body> {
        let (status, before_id, after_id) = refusal.problem();
        // The ID between the two is a UUID, which JSON does not escape.
        let body = [before_id.as_bytes(), id.as_bytes(), after_id.as_bytes()].concat();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match refusal {
            Refusal::UnknownKey => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                headers.insert(&X_REQUEST_ID, id);
            }
            Refusal::OverLimit { numbers, retry_after } => {
                headers.insert(RETRY_AFTER, digits(retry_after));
                self.complete(headers, numbers, id);
            }
            Refusal::Forbidden => {
                headers.insert(&X_REQUEST_ID, id);
            }
        }
        response
    }
}

/// Adds the headers to existing ones: moving those into a copy of the template costs more, because it has no room for them. Names
/// are created here because borrowed names are cloned.
#[inline(never)]
fn insert(headers: &mut HeaderMap, [id, remaining, reset]: [HeaderValue; 3], limit: HeaderValue) {
    headers.insert(const { HeaderName::from_static("x-request-id") }, id);
    headers.insert(const { HeaderName::from_static("x-ratelimit-remaining") }, remaining);
    headers.insert(const { HeaderName::from_static("x-ratelimit-reset") }, reset);
    headers.insert(const { HeaderName::from_static("x-ratelimit-limit") }, limit);
}

/// The values of the window with the least remaining.
struct Numbers {
    window: usize,
    remaining: u64,
    ends_at: HeaderValue,
}

enum Refusal {
    UnknownKey,
    OverLimit { numbers: Numbers, retry_after: u64 },
    Forbidden,
}

impl Refusal {
    /// The status and the problem: the text before the request ID, and after it.
    fn problem(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::UnknownKey => (
                StatusCode::UNAUTHORIZED,
                r#"{"code":"invalid_api_key","detail":"The API key is not valid.","request_id":""#,
                r#"","status":401,"title":"Unauthorized","type":"about:blank"}"#,
            ),
            Self::OverLimit { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                r#"{"code":"rate_limited","detail":"Too many requests.","request_id":""#,
                r#"","status":429,"title":"Too Many Requests","type":"about:blank"}"#,
            ),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                r#"{"code":"missing_scope","detail":"The API key lacks a scope.","request_id":""#,
                r#"","status":403,"title":"Forbidden","type":"about:blank"}"#,
            ),
        }
    }
}

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

impl<const N: usize, A: Answers> Service<Request<Body>> for Floor<N, A> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let id = request_id(request.headers());
        let response = match self.0.admit(request.headers()) {
            Ok(numbers) => {
                let mut response = A::answer(request);
                self.0.complete(response.headers_mut(), numbers, id);
                response
            }
            Err(refusal) => self.0.refuse(refusal, id),
        };
        ready(Ok(response))
    }
}

/// The caller's ID if it is a UUID, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sent = headers.get(&X_REQUEST_ID).filter(|value| Uuid::try_parse_ascii(value.as_bytes()).is_ok());
    sent.cloned().unwrap_or_else(|| {
        let bytes = [random::next(), random::next()].map(u64::to_ne_bytes);
        let bytes = bytes.as_flattened().try_into().unwrap();
        let mut text = [0; 36];
        let text = Builder::from_random_bytes(bytes).into_uuid().hyphenated().encode_lower(&mut text);
        HeaderValue::from_str(text).unwrap()
    })
}

/// A number as text. Small numbers come from a table.
fn digits(number: u64) -> HeaderValue {
    // Four digits each: 0000, 0001, and so on.
    static DIGITS: LazyLock<&str> = LazyLock::new(|| {
        (0..10_000).map(|number| format!("{number:04}")).collect::<Vec<_>>().concat().leak()
    });

    if number >= 10_000 {
        return HeaderValue::from(number);
    }
    let end = usize::try_from(number).unwrap() * 4 + 4;
    let width = 1 + usize::from(number >= 10) + usize::from(number >= 100) + usize::from(number >= 1_000);
    HeaderValue::from_static(&DIGITS[end - width..end])
}

/// A digest is already a good hash, and callers cannot choose the keys of the table.
#[derive(Default)]
struct DigestIsHash(u64);

impl Hasher for DigestIsHash {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::{self, Bare};

    fn served(floor: &mut Floor<3, Bare>, scenario: Scenario, has_id: bool) -> (StatusCode, HeaderMap) {
        let request = drive::requests(scenario, has_id, 1).remove(0);
        let response = floor.call(request).into_inner().unwrap();
        (response.status(), response.headers().clone())
    }

    /// A floor that leaves something out makes every comparison look worse.
    #[test]
    fn leaves_nothing_out() {
        let mut floor = Floor::new(Scenario::Allowed);
        let (status, headers) = served(&mut floor, Scenario::Allowed, true);
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[&X_REQUEST_ID], "0192a3b4-c5d6-7e8f-9012-3456789abcde");
        assert_eq!(headers[&X_RATELIMIT_LIMIT], "9999");
        assert_eq!(headers[&X_RATELIMIT_REMAINING], "9998");
        assert_eq!(headers[&X_RATELIMIT_RESET].to_str().unwrap().parse::<u64>().unwrap() % 60, 0);

        let (_, headers) = served(&mut floor, Scenario::Allowed, false);
        let made = Uuid::try_parse_ascii(headers[&X_REQUEST_ID].as_bytes()).unwrap();
        assert_eq!(made.get_version_num(), 4);

        let (status, headers) = served(&mut floor, Scenario::UnknownKey, true);
        assert_eq!(
            (status, &headers[WWW_AUTHENTICATE]),
            (StatusCode::UNAUTHORIZED, &"Bearer".parse().unwrap())
        );
        assert!(headers.contains_key(&X_REQUEST_ID));
    }
}
