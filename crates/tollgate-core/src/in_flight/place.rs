//! The place of a request in flight.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A place that a request has taken. It is free when it is [freed](Self::free), or when its last clone is dropped, whichever is
/// first: clones are handles of the same place.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
/// use tollgate_core::in_flight::Place;
///
/// let taken = Arc::new(AtomicU32::new(1));
/// let counted = Arc::clone(&taken);
/// let place = Place::new(move || {
///     counted.fetch_sub(1, Ordering::AcqRel);
/// });
/// place.clone().free();
/// drop(place); // was freed before
/// assert_eq!(taken.load(Ordering::Acquire), 0);
/// ```
#[derive(Clone)]
pub struct Place(Arc<Taken<dyn Fn() + Send + Sync>>);

/// What frees a place, and whether it has done so. One allocation holds both.
struct Taken<F: Fn() + ?Sized> {
    is_free: AtomicBool,
    free: F,
}

impl Place {
    /// A place that `free` gives back. It is called once, wherever a response ends or is dropped: perhaps in the middle of a panic, or
    /// on a thread that belongs to no runtime. It must not block, and it must not panic.
    pub fn new(free: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Taken { is_free: AtomicBool::new(false), free }))
    }

    /// Frees the place. Does nothing if it was freed before.
    pub fn free(&self) {
        if !self.0.is_free.swap(true, Ordering::AcqRel) {
            (self.0.free)();
        }
    }
}

impl<F: Fn() + ?Sized> Drop for Taken<F> {
    fn drop(&mut self) {
        if !*self.is_free.get_mut() {
            (self.free)();
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("is_free", &self.0.is_free.load(Ordering::Acquire))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU32, thread};

    use super::*;

    /// A place, and how often it was given back.
    fn place() -> (Place, Arc<AtomicU32>) {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let place = Place::new(move || {
            counted.fetch_add(1, Ordering::AcqRel);
        });
        (place, calls)
    }

    #[test]
    fn is_given_back_when_the_last_handle_is_dropped() {
        let (place, calls) = place();
        let clone = place.clone();
        drop(place);
        assert_eq!(calls.load(Ordering::Acquire), 0);
        drop(clone);
        assert_eq!(calls.load(Ordering::Acquire), 1);
    }

    #[test]
    fn is_given_back_once_by_all_handles() {
        let (place, calls) = place();
        thread::scope(|scope| {
            for _ in 0..4 {
                let clone = place.clone();
                scope.spawn(move || clone.free());
            }
        });
        place.free();
        drop(place);
        assert_eq!(calls.load(Ordering::Acquire), 1);
    }
}
