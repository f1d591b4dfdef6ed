//! A flood of failed attempts, from more addresses than the limiter can count.

use std::net::Ipv4Addr;

use http::StatusCode;
use tests::suite::{Inner, Stack, at, erase, send};
use tollgate::{PerWindow as _, Tollgate, clock::ManualClock, limit::MemoryLimiter};
use tower::Layer as _;

use super::{Verifier, attempts, with_key};

/// Counts up to 100 addresses, each of which may fail once an hour.
fn small_stack() -> Stack {
    let tollgate = Tollgate::builder()
        .attempt_limit(attempts(1.per_hour()).with_limiter(MemoryLimiter::with_capacity(100)))
        .verify(Verifier::new())
        .clock(ManualClock::at(at(0)));
    erase(tollgate.build().unwrap().layer(Inner::new()))
}

/// How many of these addresses are answered with this status.
async fn answered(
    stack: &mut Stack,
    addresses: impl IntoIterator<Item = u32>,
    key: &str,
    status: StatusCode,
) -> usize {
    let mut answered = 0;
    for address in addresses {
        let reply = send(stack, with_key(&Ipv4Addr::from(address).to_string(), key)).await;
        answered += usize::from(reply.status() == status);
    }
    answered
}

/// The attacker failed once from each of very many addresses, which used up the counters that new addresses share. Each address that
/// was not counted yet was then refused, even with a good key: such an address never fails, so it is never counted.
#[tokio::test]
async fn a_flood_from_many_addresses_refuses_no_fresh_address_with_a_good_key() {
    let mut stack = small_stack();
    answered(&mut stack, 0..20_000, "guess", StatusCode::UNAUTHORIZED).await;
    let fresh = 1_000_000..1_001_000;
    for _ in 0..3 {
        assert_eq!(answered(&mut stack, fresh.clone(), "good", StatusCode::OK).await, 1_000);
    }
}

/// The flood must not switch the limit off for addresses that fail.
#[tokio::test]
async fn a_new_address_that_fails_is_refused_while_the_limiter_is_full() {
    let mut stack = small_stack();
    answered(&mut stack, 0..20_000, "guess", StatusCode::UNAUTHORIZED).await;
    for attacker in 2_000_000..2_000_050 {
        let attempts = std::iter::repeat_n(attacker, 20);
        assert!(answered(&mut stack, attempts, "guess", StatusCode::UNAUTHORIZED).await <= 1);
    }
}
