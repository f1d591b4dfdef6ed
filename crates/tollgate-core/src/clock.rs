//! Where the present moment comes from.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// Tells the present moment.
///
/// The layers read a clock once for each request, share that instant for as long as each calls the next one directly, and read
/// it again after a wait. Tests
/// and demonstrations pass a [`ManualClock`], so that nothing ever sleeps to see a window turn.
pub trait Clock: Send + Sync + 'static {
    /// The present moment. It may step backwards, as machines' clocks do.
    fn now(&self) -> SystemTime;
}

/// The machine's own clock: the default everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that stands still until it is told to move. Clones share the same hands.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tollgate_core::clock::{Clock, ManualClock};
///
/// let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(59));
/// let same = clock.clone();
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(same.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(60));
/// ```
#[derive(Clone)]
pub struct ManualClock(Arc<Mutex<SystemTime>>);

impl ManualClock {
    /// A clock that shows `instant`.
    pub fn at(instant: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(instant)))
    }

    /// Moves the hands to `instant`, forwards or backwards.
    pub fn set(&self, instant: SystemTime) {
        self.turn(|_| Some(instant));
    }

    /// Moves the hands forwards; a step past the last representable instant is not taken.
    pub fn advance(&self, step: Duration) {
        self.turn(|now| now.checked_add(step));
    }

    /// Moves the hands backwards, as a machine's clock may; a step before the first representable instant is not taken.
    pub fn rewind(&self, step: Duration) {
        self.turn(|now| now.checked_sub(step));
    }

    fn turn(&self, step: impl FnOnce(SystemTime) -> Option<SystemTime>) {
        let mut hands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(moved) = step(*hands) {
            *hands = moved;
        }
    }
}

impl Default for ManualClock {
    /// A clock that shows the Unix epoch.
    fn default() -> Self {
        Self::at(SystemTime::UNIX_EPOCH)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> SystemTime {
        (**self).now()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}
