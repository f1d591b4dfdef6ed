//! The guide `docs/guides/bounds.md` has the bounds of the code.

use tollgate::bounds::*;

const GUIDE: &str = include_str!("../../../docs/guides/bounds.md");

macro_rules! values {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), value($name))),*] };
}

trait Number {
    fn number(self) -> u64;
}

impl Number for usize {
    fn number(self) -> u64 {
        self as u64
    }
}

impl Number for u32 {
    fn number(self) -> u64 {
        self.into()
    }
}

impl Number for u64 {
    fn number(self) -> u64 {
        self
    }
}

impl Number for std::time::Duration {
    fn number(self) -> u64 {
        self.as_secs()
    }
}

fn value(bound: impl Number) -> u64 {
    bound.number()
}

#[test]
fn the_guide_has_the_bounds_of_the_code() {
    let bounds = values![
        MAX_ID_BYTES,
        MAX_NAME_CHARS,
        MAX_DISPLAY_PREFIX_BYTES,
        MAX_TENANT_BYTES,
        MAX_SCOPE_BYTES,
        MAX_SCOPES,
        MAX_SCOPES_BYTES,
        MAX_TIER_BYTES,
        MAX_ROLE_BYTES,
        MAX_QUOTAS,
        MAX_WINDOWS,
        MAX_POLICY_BYTES,
        MAX_NETWORKS,
        MAX_METADATA_BYTES,
        MAX_ACTOR_CHARS,
        MAX_DETAIL_BYTES,
        MAX_OVERLAP,
        END_OF_CALENDAR_SECONDS,
        MAX_CREDITS,
        MAX_GRANTS,
        MAX_GRANT_ID_BYTES,
        MAX_NOTE_CHARS,
        MAX_OPEN_RESERVATIONS,
        MAX_RESERVATION_TIME,
        MAX_IDEMPOTENCY_KEY_BYTES,
        SETTLEMENT_KEPT,
        MAX_PAGE_ITEMS,
        MAX_PAGE_BYTES,
    ];
    for (name, value) in bounds {
        let row = GUIDE.lines().find(|row| row.ends_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("the guide has no row for {name}"));
        let mut numbers =
            row.split(|letter: char| !letter.is_ascii_digit()).filter(|number| !number.is_empty());
        assert_eq!(numbers.next(), Some(&*value.to_string()), "{row}");
    }
    let code = include_str!("../../../crates/tollgate-core/src/bounds.rs");
    let constants = code.lines().filter(|line| line.starts_with("pub const ")).count();
    assert_eq!(constants, bounds.len(), "a constant is missing here");
}
