//! The new subjects for which shared counters were charged.

use super::fingerprint::Fingerprint;

/// Remembers which new subjects were charged last, while the limiter is full. It decides which of them a shared counter may
/// refuse before they are charged again.
///
/// Its size is fixed, so that a flood of new subjects cannot make it grow. A newer subject replaces an older one with the same place,
/// which then counts as never charged. A set that never forgets, such as a Bloom filter, would take each subject for a charged one
/// after a long flood.
#[derive(Default)]
pub(super) struct ChargedSubjects {
    // Empty until a subject is charged.
    places: Box<[Fingerprint]>,
}

/// The number of subjects that are remembered in each shard.
const PLACES: u64 = 1_024;

impl ChargedSubjects {
    /// Remembers that a subject was charged.
    pub(super) fn remember(&mut self, subject: Fingerprint) {
        if self.places.is_empty() {
            self.places = (0..PLACES).map(|_| Fingerprint::ZERO).collect();
        }
        if let Some(place) = self.places.get_mut(place_of(subject)) {
            *place = subject;
        }
    }

    /// Whether a subject was charged, and no newer one has replaced it.
    pub(super) fn contains(&self, subject: Fingerprint) -> bool {
        self.places.get(place_of(subject)) == Some(&subject)
    }

    /// Forgets all subjects, and frees the memory.
    pub(super) fn clear(&mut self) {
        self.places = Box::default();
    }
}

fn place_of(subject: Fingerprint) -> usize {
    // Less than 1,024.
    usize::try_from(subject.place() % PLACES).unwrap_or_default()
}
