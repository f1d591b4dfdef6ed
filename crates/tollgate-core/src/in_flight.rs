//! Requests in flight: the places that they take.
//!
//! A request takes a [`Place`] before it is handled, and holds it until its response has ended. [`Places`] counts the places of each
//! subject, so that it has at most as many requests in flight as its limit says.

mod place;

use std::{sync::Arc, time::SystemTime};

use crate::{answer::Answer, denial::Unavailable};

pub use place::Place;

/// A request for a place.
///
/// The name and the subject identify what is counted. The limit does not: when it changes, the count stays.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PlaceRequest<'r> {
    /// The name of the limit. Places under different names are counted apart.
    pub name: &'r str,
    /// Whose places are counted: a key's identifier, a tenant, an address.
    pub subject: &'r str,
    /// The group of the subject, usually a tenant. A distributed backend keeps all that it counts for a group in one location. A
    /// subject always has the same group: in another group it may be another subject.
    pub group: &'r str,
    /// How many places the subject may have taken, this one included. 0: none.
    pub limit: u32,
    /// The request's instant. A backend with a clock of its own may use that instead.
    pub now: SystemTime,
}

impl<'r> PlaceRequest<'r> {
    /// A request at `now` for one of the `limit` places that `subject`, of `group`, has under the name `name`.
    #[inline]
    pub fn new(name: &'r str, subject: &'r str, group: &'r str, limit: u32, now: SystemTime) -> Self {
        Self { name, subject, group, limit, now }
    }
}

/// Counts the places that requests in flight have taken.
///
/// # What a backend guarantees
///
/// - A request gets a place only if fewer places than its [limit](PlaceRequest::limit) are taken, also if many requests ask at the same
///   time. If the limit becomes lower, places that are held stay taken.
/// - A place stays taken for as long as it is held, however long that is.
/// - A place that is freed or dropped can be taken again: at once in one process, soon across processes.
/// - No place is lost. If the answer is dropped, or is [`Unavailable`], a place that was taken all the same is freed. It does not matter
///   how far the backend had come, or whether the answer was ever polled.
///
/// A backend that counts across processes cannot hold all of this if a process, or its connection, is lost. It lets a place expire
/// that is not renewed, and renews those that its process holds. Its documentation says after what time
///
/// - the places of a process that has died are free,
/// - a process that cannot renew its places has lost them to others, so that a subject may exceed its limit.
///
/// Tollgate does not limit how long a request waits for its answer: give remote calls a deadline.
///
/// # Examples
///
/// A backend with one place for each name, in this process:
///
/// ```
/// use std::{collections::HashSet, sync::{Arc, Mutex, PoisonError}, time::SystemTime};
///
/// use tollgate_core::{
///     answer::Answer,
///     denial::Unavailable,
///     in_flight::{Place, PlaceRequest, Places},
/// };
///
/// #[derive(Default)]
/// struct OneEach(Arc<Mutex<HashSet<String>>>);
///
/// impl Places for OneEach {
///     fn take(&self, request: &PlaceRequest<'_>) -> Answer<Result<Option<Place>, Unavailable>> {
///         let (taken, name) = (Arc::clone(&self.0), request.name.to_owned());
///         let is_new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
///         let place = is_new.then(|| {
///             Place::new(move || {
///                 taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
///             })
///         });
///         Answer::Now(Ok(place))
///     }
/// }
///
/// # async fn example() -> Result<(), Unavailable> {
/// let places = OneEach::default();
/// let request = PlaceRequest::new("exports", "key_1", "acme", 1, SystemTime::UNIX_EPOCH);
/// let first = places.take(&request).await?;
/// assert!(first.is_some() && places.take(&request).await?.is_none());
/// drop(first);
/// assert!(places.take(&request).await?.is_some());
/// # Ok(())
/// # }
/// # let mut example = std::pin::pin!(example());
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # assert!(matches!(example.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(()))));
/// ```
pub trait Places: Send + Sync + 'static {
    /// Takes a place; `None` if the subject has taken as many as it may.
    ///
    /// # Errors
    /// [`Unavailable`] if the places cannot be counted.
    fn take(&self, request: &PlaceRequest<'_>) -> Answer<Result<Option<Place>, Unavailable>>;
}

impl<P: Places + ?Sized> Places for Arc<P> {
    fn take(&self, request: &PlaceRequest<'_>) -> Answer<Result<Option<Place>, Unavailable>> {
        (**self).take(request)
    }
}
