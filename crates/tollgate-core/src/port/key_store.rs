//! The port that keeps keys.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;

use crate::{Answer, Digest, Principal, Unavailable};

/// Keeps keys by their digests: a table in memory, in a database, or one of the application's own.
pub trait KeyStore: Send + Sync + 'static {
    /// The record of the key with one of these digests; `None` if there is none. Several digests are one key under
    /// several peppers, current first.
    ///
    /// # Errors
    /// [`Unavailable`] if the store cannot be reached: the key is then refused, never let through.
    fn find(&self, digests: &[Digest]) -> Answer<Result<Option<KeyRecord>, Unavailable>>;

    /// News of what changed from now on, for caches to obey.
    fn changes(&self) -> Changes;
}

impl<S: KeyStore + ?Sized> KeyStore for Arc<S> {
    fn find(&self, digests: &[Digest]) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        (**self).find(digests)
    }

    fn changes(&self) -> Changes {
        (**self).changes()
    }
}

/// What a store knows about one key. Small, so that it is handed out by value: only the principal is shared.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    principal: Arc<Principal>,
    status: KeyStatus,
    generation: u64,
}

impl KeyRecord {
    /// A record. `generation` rises with every change to the key, so that an older record never replaces a newer one.
    pub fn new(principal: Arc<Principal>, status: KeyStatus, generation: u64) -> Self {
        Self { principal, status, generation }
    }

    /// Whom the key proves.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// [`principal`](Self::principal), taken out of a record that is not needed any more.
    pub fn into_principal(self) -> Arc<Principal> {
        self.principal
    }

    /// Whether the key may be used.
    pub fn status(&self) -> KeyStatus {
        self.status
    }

    /// Which state of the key this is: higher is newer.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// Whether a key may be used. Its expiry is the principal's, and is not repeated here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyStatus {
    /// It may.
    Active,
    /// It was revoked; the record is kept.
    Revoked,
    /// Its tenant is suspended.
    TenantSuspended,
}

/// What changed in a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// The key with this identifier: forget what is known of it.
    Key(Box<str>),
    /// All keys of this tenant.
    Tenant(Box<str>),
    /// News may have been lost: forget everything.
    Lost,
}

/// A feed of [`Change`]s: a stream that ends only with its store.
pub struct Changes(Pin<Box<dyn Stream<Item = Change> + Send>>);

impl Changes {
    /// The feed that `stream` delivers.
    pub fn new(stream: impl Stream<Item = Change> + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl Stream for Changes {
    type Item = Change;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Change>> {
        self.0.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes(..)")
    }
}
