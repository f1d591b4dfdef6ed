//! What is kept for one subject under one policy.

use std::{num::NonZeroU16, time::Duration};

use smallvec::SmallVec;
use tollgate_core::{Counter, Window, WindowLimit, WindowState};

/// How many windows a subject has in the table. Hardly any quota names more.
pub(super) const WINDOWS: usize = 3;

/// A subject as nearly all are: few windows, and counts and times that 32 bits hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    // Which windows these are.
    shape: ShapeNumber,
    counters: [Narrow; WINDOWS],
}

/// A counter in half as many bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Narrow {
    ends_at: u32,
    used: u32,
}

impl Narrow {
    #[inline]
    fn new(counter: Counter) -> Option<Self> {
        let (ends_at, used) = (u32::try_from(counter.ends_at).ok()?, u32::try_from(counter.used).ok()?);
        Some(Self { ends_at, used })
    }

    #[inline]
    fn counter(self) -> Counter {
        Counter { ends_at: self.ends_at.into(), used: self.used.into() }
    }
}

impl Subject {
    /// `None` if these are too many windows, or too large numbers.
    pub(super) fn new(shapes: &mut Shapes, windows: &[(Window, Counter)]) -> Option<Self> {
        let mut shape = Shape::default();
        let mut counters = [Narrow::default(); WINDOWS];
        for (at, (window, counter)) in windows.iter().enumerate() {
            *shape.0.get_mut(at)? = window.seconds();
            *counters.get_mut(at)? = Narrow::new(*counter)?;
        }
        Some(Self { shape: shapes.number_of(shape)?, counters })
    }

    pub(super) fn shape(&self) -> ShapeNumber {
        self.shape
    }

    /// Weighs a request against a quota, counts it if there is room, and tells where the windows stood before, in the quota's
    /// order. `None`, and nothing is done, if a window has no place or a number is too large.
    #[inline]
    pub(super) fn take(
        &mut self,
        shape: &Shape,
        limits: &[WindowLimit],
        cost: u64,
        second: u64,
    ) -> Option<[Counter; WINDOWS]> {
        let mut before = [Counter::default(); WINDOWS];
        let mut after = self.counters;
        let mut has_room = true;
        for (at, limit) in limits.iter().enumerate() {
            let own = after.get_mut(shape.place_of(limit.window, at)?)?;
            let counter = own.counter().at(limit.window, second);
            *before.get_mut(at)? = counter;
            match counter.taking(cost, limit.limit) {
                Some(counter) => *own = Narrow::new(counter)?,
                None => has_room = false,
            }
        }
        if has_room && cost > 0 {
            self.counters = after;
        }
        Some(before)
    }

    /// Takes over what was decided. `None`, and perhaps a part of it only, if a window has no place or a number is too large.
    pub(super) fn record(&mut self, shape: &Shape, states: &[WindowState]) -> Option<()> {
        for (at, state) in states.iter().enumerate() {
            *self.counters.get_mut(shape.place_of(state.window, at)?)? = Narrow::new(state.counter)?;
        }
        Some(())
    }

    pub(super) fn windows(&self, shape: &Shape) -> Windows {
        let windows = shape.0.iter().zip(&self.counters).filter(|(seconds, _)| **seconds > 0);
        let window = |seconds: u32| Window::lasting(Duration::from_secs(seconds.into()));
        windows.map(|(seconds, own)| (window(*seconds), own.counter())).collect()
    }

    /// Whether all its windows have passed.
    #[inline]
    pub(super) fn is_idle(&self, second: u64) -> bool {
        self.counters.iter().all(|own| u64::from(own.ends_at) <= second)
    }
}

/// The seconds of each window; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape([u32; WINDOWS]);

impl Shape {
    /// Where a window is, which is best looked for where it is in the quota.
    #[inline]
    fn place_of(&self, window: Window, expected: usize) -> Option<usize> {
        if self.0.get(expected) == Some(&window.seconds()) {
            return Some(expected);
        }
        self.0.iter().position(|seconds| *seconds == window.seconds())
    }
}

/// Stands for a shape.
pub(super) type ShapeNumber = NonZeroU16;

/// The shapes there have been: one for each set of windows that a quota names, which are few.
#[derive(Default)]
pub(super) struct Shapes(Vec<Shape>);

/// Whoever gives each subject windows of its own finds the rest of them among the wide ones.
const MOST_SHAPES: usize = 256;

impl Shapes {
    #[inline]
    pub(super) fn get(&self, number: ShapeNumber) -> Option<&Shape> {
        self.0.get(usize::from(number.get()) - 1)
    }

    fn number_of(&mut self, shape: Shape) -> Option<ShapeNumber> {
        let known = self.0.iter().position(|known| *known == shape);
        let index = known.or_else(|| {
            (self.0.len() < MOST_SHAPES).then(|| {
                self.0.push(shape);
                self.0.len() - 1
            })
        })?;
        NonZeroU16::new(u16::try_from(index + 1).ok()?)
    }
}

/// Windows and where they stand.
pub(super) type Windows = SmallVec<[(Window, Counter); WINDOWS + 1]>;

/// Takes over what was decided. Windows that the quota no longer names are dropped when they have passed.
pub(super) fn merge(windows: &mut Windows, states: &[WindowState], second: u64) {
    for state in states {
        if let Some((_, own)) = windows.iter_mut().find(|(window, _)| *window == state.window) {
            *own = state.counter;
        } else {
            windows.retain(|(_, own)| !has_passed(*own, second));
            windows.push((state.window, state.counter));
        }
    }
}

/// A counter from the future, left by a clock that was set back, has not passed.
pub(super) fn has_passed(counter: Counter, second: u64) -> bool {
    counter.ends_at <= second
}
