//! An issuer of JWTs for tests.

mod server;
mod signing_key;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::UNIX_EPOCH,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderValue;
use serde_json::{Map, Value, json};
use sha2::Sha256;
use tokio::{net::TcpListener, task::AbortHandle};
use tollgate::clock::{Clock, SystemClock};

use signing_key::SigningKey;

/// An issuer of JWTs for tests: it mints tokens, publishes its keys over HTTP on this machine, and rotates them.
///
/// ```
/// use serde_json::json;
/// use tollgate::Tollgate;
/// use tollgate_jwt::{Issuer, JwtVerifier};
/// use tollgate_testing::TestAuthority;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let authority = TestAuthority::start().await;
/// let issuer = Issuer::from_url(authority.issuer(), authority.audience(), authority.jwks_url())?;
/// let verifier = JwtVerifier::new(issuer);
/// verifier.connect().await?;
/// let tollgate = Tollgate::builder().verify(verifier).build()?;
///
/// let token = authority.mint(json!({"sub": "user_1", "scope": "jobs:read"}));
/// let expired = authority.mint(json!({"sub": "user_1", "exp": 1}));
/// let request = http::Request::get("/jobs").header("authorization", format!("Bearer {token}")).body(())?;
/// # let _ = expired;
/// # Ok(()) }
/// ```
///
/// Clones share their state. The server ends when the last clone is dropped.
///
/// # Panics
/// Methods panic if a test cannot go on, for example if there is no port.
#[derive(Clone)]
pub struct TestAuthority {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    _server: Arc<Server>,
}

struct Shared {
    address: SocketAddr,
    keys: Mutex<Keys>,
    answer: Mutex<KeySetAnswer>,
    requests: AtomicUsize,
}

struct Keys {
    published: Vec<(String, SigningKey)>,
    signs: (String, SigningKey),
    next: usize,
}

/// Ends the server when it is dropped.
struct Server(AbortHandle);

/// How the server answers requests for the key set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySetAnswer {
    /// The published keys: at first.
    Keys,
    /// This text, with status 200.
    Text(String),
    /// This status, without a text.
    Status(u16),
    /// A redirect to this URL.
    Redirect(String),
    /// No answer, while the connection stays open.
    Hang,
}

impl TestAuthority {
    /// Starts an issuer with one ES256 key, on a free port. Tokens expire one hour after the machine's time.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if there is no port.
    pub async fn start() -> Self {
        Self::start_with_clock(SystemClock).await
    }

    /// Starts an issuer whose tokens expire one hour after the time of this clock.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if there is no port.
    pub async fn start_with_clock(clock: impl Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let first = ("key-1".to_owned(), SigningKey::es256());
        let shared = Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            keys: Mutex::new(Keys { published: vec![first.clone()], signs: first, next: 2 }),
            answer: Mutex::new(KeySetAnswer::Keys),
            requests: AtomicUsize::new(0),
        });
        let server = tokio::spawn(server::serve(listener, Arc::clone(&shared)));
        Self { shared, clock: Arc::new(clock), _server: Arc::new(Server(server.abort_handle())) }
    }

    /// Its name, which tokens have as `iss`: a URL.
    pub fn issuer(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// The audience of its tokens: `test`.
    pub fn audience(&self) -> &'static str {
        "test"
    }

    /// The URL of its key set.
    pub fn jwks_url(&self) -> String {
        format!("http://{}/.well-known/jwks.json", self.shared.address)
    }

    /// The published keys, as a key set (RFC 7517 section 5).
    pub fn jwks(&self) -> String {
        self.shared.jwks()
    }

    /// A token with these claims. `iss`, `aud`, `iat` and `exp` are added. A claim that is given replaces them, and `null` removes one.
    pub fn mint(&self, claims: impl Into<Value>) -> String {
        self.mint_with_header(json!({}), claims)
    }

    /// A token with these members in its header, and these claims. `alg`, `kid` and `typ` are added to the header. A member that is
    /// given replaces them, and `null` removes one. It is signed by the current key, whatever the header says.
    pub fn mint_with_header(&self, header: impl Into<Value>, claims: impl Into<Value>) -> String {
        let now = self.clock.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (kid, key) = self.shared.keys().signs.clone();
        let header = merged(json!({"alg": key.algorithm(), "kid": kid, "typ": "JWT"}), header.into());
        let exp = now.saturating_add(3_600);
        let defaults = json!({"iss": self.issuer(), "aud": self.audience(), "iat": now, "exp": exp});
        let message = message(&header, &merged(defaults, claims.into()));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// The value of an `Authorization` header with a token: `Bearer <token>`.
    ///
    /// # Panics
    /// If the text cannot be in a header.
    pub fn bearer(token: &str) -> HeaderValue {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        value.set_sensitive(true);
        value
    }

    /// Publishes a new ES256 key, without signing by it yet. Returns its `kid`.
    pub fn publish_key(&self) -> String {
        self.publish(SigningKey::es256())
    }

    /// Publishes a new Ed25519 key, without signing by it yet. Returns its `kid`.
    pub fn publish_ed25519_key(&self) -> String {
        self.publish(SigningKey::ed25519())
    }

    fn publish(&self, key: SigningKey) -> String {
        let mut keys = self.shared.keys();
        let kid = format!("key-{}", keys.next);
        keys.next += 1;
        keys.published.push((kid.clone(), key));
        kid
    }

    /// Signs tokens by this published key from now on.
    ///
    /// # Panics
    /// If no published key has this `kid`.
    pub fn sign_with(&self, kid: &str) {
        let mut keys = self.shared.keys();
        let key = keys.published.iter().find(|(other, _)| other == kid).cloned();
        keys.signs = key.unwrap();
    }

    /// Removes this key from the key set. If it is the current one, tokens are still signed by it.
    pub fn withdraw_key(&self, kid: &str) {
        self.shared.keys().published.retain(|(other, _)| other != kid);
    }

    /// Publishes a new ES256 key and signs by it at once. The old keys stay published. Returns the new `kid`.
    pub fn rotate(&self) -> String {
        let kid = self.publish_key();
        self.sign_with(&kid);
        kid
    }

    /// How requests for the key set are answered from now on. Requests that hang already go on doing so.
    pub fn answer_with(&self, answer: KeySetAnswer) {
        *self.shared.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// How many requests for the key set have arrived.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

/// A token that is signed with HS256 and this secret, with exactly this header and these claims.
///
/// ```
/// use serde_json::json;
/// use tollgate_testing::hs256_token;
///
/// let header = json!({"alg": "HS256", "typ": "JWT"});
/// let token = hs256_token(b"a secret of 32 bytes for a test..", &header, &json!({"sub": "user_1"}));
/// assert!(token.starts_with("eyJ"));
/// ```
///
/// # Panics
/// Never: HMAC takes keys of any length.
pub fn hs256_token(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(&message);
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// What is signed (RFC 7515 section 5.1).
fn message(header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{header}.{claims}")
}

fn merged(defaults: Value, own: Value) -> Value {
    let (Value::Object(mut members), Value::Object(own)) = (defaults, own) else {
        panic!("the header and the claims of a token are JSON objects")
    };
    members.extend(own);
    Value::Object(members.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>())
}

impl Shared {
    fn jwks(&self) -> String {
        let keys = self.keys();
        let keys =
            keys.published.iter().map(|(kid, key)| merged(key.jwk(), json!({"kid": kid, "use": "sig"})));
        json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for TestAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestAuthority").field("address", &self.shared.address).finish_non_exhaustive()
    }
}
