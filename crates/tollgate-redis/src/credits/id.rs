//! Identifiers of what is lent and charged.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use tollgate_core::{credits::ReservationId, key::Digest};

/// With these bits ends the identifier of a reservation of a loan. A random identifier of the ledger ends with them once in 16 million: such
/// a reservation is settled with one more trip to Redis.
const MARK: u128 = 0x6c_65_6e;
const MARK_BITS: u32 = 24;

/// Makes the identifiers of this process.
#[derive(Debug)]
pub(super) struct Ids {
    hasher: RandomState,
    next: AtomicU64,
    /// The name of this process in Redis.
    pub(super) process: String,
}

impl Ids {
    pub(super) fn new() -> Self {
        let hasher = RandomState::new();
        let process = format!("{:016x}", hasher.hash_one(std::process::id()));
        Self { hasher, next: AtomicU64::new(0), process }
    }

    /// An identifier for a reservation of this loan: its tag, 64 random bits, and the mark.
    pub(super) fn of_loan(&self, tag: &str) -> ReservationId {
        let tag = u128::from_str_radix(tag, 16).unwrap_or_default();
        let random = self.hasher.hash_one(self.next.fetch_add(1, Ordering::Relaxed));
        ReservationId::from_number((tag << 88) | (u128::from(random) << MARK_BITS) | MARK)
    }
}

/// Whether a reservation with this identifier can be one of a loan.
pub(super) fn is_lent(id: ReservationId) -> bool {
    id.number() & ((1 << MARK_BITS) - 1) == MARK
}

/// The 32 digits of an identifier.
pub(super) fn digits(id: ReservationId) -> String {
    format!("{:032x}", id.number())
}

/// The tag of the loan that a reservation is of: the first 10 digits of the identifier of the reservation.
pub(super) fn tag(id: ReservationId) -> String {
    format!("{:010x}", id.number() >> 88)
}

/// The tag of a loan: of a digest, since a ledger may number its reservations.
pub(super) fn tag_of_loan(loan: ReservationId) -> String {
    tag(first_bits(&Digest::of(digits(loan))))
}

pub(super) fn read(digits: &str) -> Option<ReservationId> {
    format!("res_{digits}").parse().ok()
}

/// The identifier by which the ledger charges what a process has charged on a loan beyond what is `in_ledger`, once.
pub(super) fn of_charge(loan: ReservationId, process: &str, in_ledger: u64) -> ReservationId {
    first_bits(&Digest::of(format!("{loan} {process} {in_ledger}")))
}

fn first_bits(digest: &Digest) -> ReservationId {
    let first = digest.as_bytes().first_chunk::<16>().copied().unwrap_or_default();
    ReservationId::from_number(u128::from_be_bytes(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_of_a_loan_begins_with_its_tag() {
        let loan = ReservationId::random().unwrap();
        let ids = Ids::new();
        let [one, two] = [ids.of_loan(&tag_of_loan(loan)), ids.of_loan(&tag_of_loan(loan))];
        assert_ne!(one, two);
        assert_eq!((tag(one), tag_of_loan(loan).len()), (tag_of_loan(loan), 10));
        assert!(is_lent(one) && is_lent(two) && !is_lent(ReservationId::from_number(7)));
        assert_eq!(read(&digits(one)), Some(one));
    }

    #[test]
    fn loans_that_are_numbered_have_different_tags() {
        let tags: std::collections::HashSet<_> =
            (0..1_000).map(|number| tag_of_loan(ReservationId::from_number(number))).collect();
        assert_eq!(tags.len(), 1_000);
    }

    #[test]
    fn the_charges_of_a_process_on_a_loan_have_an_identifier() {
        let loan = ReservationId::from_number(1);
        assert_eq!(of_charge(loan, "a", 0), of_charge(loan, "a", 0));
        assert_ne!(of_charge(loan, "a", 0), of_charge(loan, "a", 7));
        assert_ne!(of_charge(loan, "a", 0), of_charge(loan, "b", 0));
        assert_ne!(of_charge(loan, "a", 0), of_charge(ReservationId::from_number(2), "a", 0));
    }
}
