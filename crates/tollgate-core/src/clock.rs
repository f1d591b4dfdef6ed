//! The backend trait that knows the time.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// Knows the current time.
///
/// The layers read a clock once for each request, share that instant for as long as each calls the next one directly, and read
/// it again after a wait. Tests and demonstrations use a [`ManualClock`], so that they never sleep until a window passes.
pub trait Clock: Send + Sync + 'static {
    /// The current time. It may step backwards, as the clocks of machines do.
    fn now(&self) -> SystemTime;
}

/// The machine's clock: the default everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that shows one instant until it is set to another. Clones share their state.
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

    /// Sets the clock to `instant`, which may be earlier or later.
    pub fn set(&self, instant: SystemTime) {
        self.update(|_| Some(instant));
    }

    /// Moves the clock forwards. A step past the last representable instant is ignored.
    pub fn advance(&self, step: Duration) {
        self.update(|now| now.checked_add(step));
    }

    /// Moves the clock backwards, as a machine's clock may. A step before the first representable instant is ignored.
    pub fn rewind(&self, step: Duration) {
        self.update(|now| now.checked_sub(step));
    }

    fn update(&self, step: impl FnOnce(SystemTime) -> Option<SystemTime>) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(moved) = step(*now) {
            *now = moved;
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
