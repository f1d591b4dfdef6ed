//! The state of one subject under one policy.

use std::num::NonZeroU16;

use smallvec::SmallVec;
use tollgate_core::limit::{
    Algorithm, Counter, FixedWindow, SlidingWindow, TokenBucket, Window, WindowLimit,
};

/// The number of slots of a subject in the table. An aligned window takes one slot, a sliding window or a token bucket takes two. Few
/// quotas need more.
pub(super) const SLOTS: usize = 3;

/// A subject that fits into the table: few windows, with counts and times that fit 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    // The content of the slots.
    shape: ShapeNumber,
    slots: [Slot; SLOTS],
}

/// A counter, or half of one, in 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    // The second from which the counter is not needed, or an earlier one; 0 for an empty slot.
    idle_from: u32,
    number: u32,
}

impl Slot {
    #[inline]
    fn new(idle_from: u64, number: u64) -> Option<Self> {
        Some(Self { idle_from: u32::try_from(idle_from).ok()?, number: u32::try_from(number).ok()? })
    }

    #[inline]
    fn fixed_window(self) -> FixedWindow {
        FixedWindow { ends_at: self.idle_from.into(), used: self.number.into() }
    }
}

impl Subject {
    /// `None` if there are too many windows, or the numbers are too large.
    pub(super) fn new(shapes: &mut Shapes, windows: &Windows) -> Option<Self> {
        let mut shape = Shape::default();
        let mut slots = [Slot::default(); SLOTS];
        let mut places = shape.0.iter_mut().zip(&mut slots);
        for (window, counter) in windows {
            let idle_from = idle_from(*window, *counter);
            let mut put = |content: Content, second, number| {
                let (place, slot) = places.next()?;
                *place = Some(Content { window: *window, ..content });
                *slot = Slot::new(second, number)?;
                Some(())
            };
            match *counter {
                Counter::FixedWindow(FixedWindow { used, .. }) => {
                    put(Content::FIXED_WINDOW, idle_from, used)?;
                }
                Counter::SlidingWindow(SlidingWindow { used, used_before, .. }) => {
                    put(Content::SLIDING_WINDOW, idle_from, used)?;
                    put(Content::SECOND_HALF, idle_from, used_before)?;
                }
                Counter::TokenBucket(TokenBucket { full_at, as_of, interval }) => {
                    put(
                        Content { interval, ..Content::TOKEN_BUCKET },
                        idle_from,
                        full_at % NANOS_PER_SECOND,
                    )?;
                    put(Content::SECOND_HALF, as_of / NANOS_PER_SECOND, as_of % NANOS_PER_SECOND)?;
                }
                _ => return None,
            }
        }
        Some(Self { shape: shapes.number_of(shape)?, slots })
    }

    pub(super) fn shape(&self) -> ShapeNumber {
        self.shape
    }

    /// Counts a request that fits all windows. Returns the windows before that, in the quota's order. `None`, without any change,
    /// if one of them is not an aligned window with a slot, or a number is too large.
    #[expect(
        clippy::inline_always,
        reason = "every usual request runs through here, and the call alone would cost a tenth of the time"
    )]
    #[inline(always)]
    pub(super) fn acquire(
        &mut self,
        shape: &Shape,
        limits: &[WindowLimit],
        (required, cost): (u64, u64),
        second: u64,
    ) -> Option<[FixedWindow; SLOTS]> {
        let mut before = [FixedWindow::default(); SLOTS];
        let mut after = self.slots;
        let mut has_room = true;
        for (at, limit) in limits.iter().enumerate() {
            let slot = after.get_mut(shape.fixed_window(limit, at)?)?;
            let counter = slot.fixed_window().at(limit.window, second);
            *before.get_mut(at)? = counter;
            has_room &= counter.has_room(required, limit.limit);
            let counter = counter.counting(cost);
            *slot = Slot::new(counter.ends_at, counter.used)?;
        }
        if has_room && cost > 0 {
            self.slots = after;
        }
        Some(before)
    }

    pub(super) fn windows(&self, shape: &Shape) -> Windows {
        let mut windows = Windows::new();
        let mut slots = shape.0.iter().flatten().zip(&self.slots);
        while let Some((content, slot)) = slots.next() {
            let mut second_half = || slots.next().map(|(_, slot)| *slot).unwrap_or_default();
            let counter = match content.kind {
                Kind::FixedWindow => Counter::FixedWindow(slot.fixed_window()),
                Kind::SlidingWindow => Counter::SlidingWindow(SlidingWindow {
                    // The next window ends at `idle_from`.
                    ends_at: content.window.start_of(u64::from(slot.idle_from).saturating_sub(1)),
                    used: slot.number.into(),
                    used_before: second_half().number.into(),
                }),
                Kind::TokenBucket => {
                    let (last, as_of) = (u64::from(slot.idle_from).saturating_sub(1), second_half());
                    Counter::TokenBucket(TokenBucket {
                        full_at: last * NANOS_PER_SECOND + u64::from(slot.number),
                        as_of: u64::from(as_of.idle_from) * NANOS_PER_SECOND + u64::from(as_of.number),
                        interval: content.interval,
                    })
                }
                // Read together with the first half.
                Kind::SecondHalf => continue,
            };
            windows.push((content.window, counter));
        }
        windows
    }

    /// Whether all its windows have passed.
    #[inline]
    pub(super) fn is_idle(&self, second: u64) -> bool {
        self.slots.iter().all(|slot| u64::from(slot.idle_from) <= second)
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The content of each slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape([Option<Content>; SLOTS]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    kind: Kind,
    window: Window,
    // Of a token bucket: the nanoseconds between two tokens.
    interval: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    FixedWindow,
    SlidingWindow,
    TokenBucket,
    /// The second half of the previous slot's counter.
    SecondHalf,
}

impl Content {
    const FIXED_WINDOW: Self = Self { kind: Kind::FixedWindow, window: Window::SECOND, interval: 0 };
    const SLIDING_WINDOW: Self = Self { kind: Kind::SlidingWindow, ..Self::FIXED_WINDOW };
    const TOKEN_BUCKET: Self = Self { kind: Kind::TokenBucket, ..Self::FIXED_WINDOW };
    const SECOND_HALF: Self = Self { kind: Kind::SecondHalf, ..Self::FIXED_WINDOW };

    #[inline]
    fn is_fixed_window(&self, window: Window) -> bool {
        self.kind == Kind::FixedWindow && self.window == window
    }
}

impl Shape {
    /// The slot of the counter for this limit, usually at the limit's position in the quota. `None` if the limit is not an aligned
    /// window.
    #[inline]
    fn fixed_window(&self, limit: &WindowLimit, expected: usize) -> Option<usize> {
        if limit.algorithm != Algorithm::FixedWindow {
            return None;
        }
        let is_it =
            |content: &Option<Content>| content.is_some_and(|content| content.is_fixed_window(limit.window));
        if self.0.get(expected).is_some_and(is_it) {
            return Some(expected);
        }
        self.0.iter().position(is_it)
    }
}

/// Identifies a shape.
pub(super) type ShapeNumber = NonZeroU16;

/// All shapes so far: one for each set of windows that a quota names. There are few.
#[derive(Default)]
pub(super) struct Shapes(Vec<Shape>);

/// If there are more shapes, further subjects are stored as large ones.
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

/// Windows with their counters.
pub(super) type Windows = SmallVec<[(Window, Counter); SLOTS]>;

/// The counter of a limit.
pub(super) fn counter_of(windows: &Windows, limit: &WindowLimit) -> Counter {
    let is_its = |(window, counter): &&(Window, Counter)| {
        *window == limit.window && counter.counts_by(limit.algorithm)
    };
    windows.iter().find(is_its).map_or_else(|| Counter::new(limit.algorithm), |(_, counter)| *counter)
}

/// Updates the windows with what was counted. Drops passed windows that the quota no longer names.
pub(super) fn merge(windows: &mut Windows, counted: &Windows, second: u64) {
    for (window, counter) in counted {
        let is_same = |(own, other): &&mut (Window, Counter)| {
            own == window && std::mem::discriminant(other) == std::mem::discriminant(counter)
        };
        if let Some((_, own)) = windows.iter_mut().find(is_same) {
            *own = *counter;
        } else {
            windows.retain(|(window, counter)| idle_from(*window, *counter) > second);
            windows.push((*window, *counter));
        }
    }
}

/// The second from which a counter is not needed. A counter from the future, after the clock was set back, is kept.
pub(super) fn idle_from(window: Window, counter: Counter) -> u64 {
    match counter {
        Counter::FixedWindow(counter) => counter.ends_at,
        Counter::SlidingWindow(counter) => window.end_after(counter.ends_at),
        Counter::TokenBucket(bucket) => bucket.full_at / NANOS_PER_SECOND + 1,
        _ => u64::MAX,
    }
}
