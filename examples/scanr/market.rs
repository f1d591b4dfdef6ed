//! Sample data.

use jiff::{
    Timestamp,
    civil::{Time, Weekday, time},
    tz::{Offset, offset},
};
use serde_json::{Value, json};

/// Whether the market is open at `now`.
pub(crate) fn status(now: Timestamp) -> Value {
    let status = if is_open(now) { "open" } else { "closed" };
    json!({ "market": "US", "status": status, "now": now.to_string() })
}

// Monday to Friday in New York's winter time (UTC-5). Ignores holidays and daylight saving time.
const NEW_YORK: Offset = offset(-5);
const OPENS: Time = time(9, 30, 0, 0);
const CLOSES: Time = time(16, 0, 0, 0);

fn is_open(now: Timestamp) -> bool {
    let now = NEW_YORK.to_datetime(now);
    let is_weekend = matches!(now.weekday(), Weekday::Saturday | Weekday::Sunday);
    !is_weekend && (OPENS..CLOSES).contains(&now.time())
}

/// The same values for every symbol.
pub(crate) fn technicals(symbol: &str) -> Value {
    json!({ "symbol": symbol, "interval": "1d", "rsi_14": "61.8", "sma_50": "221.40", "sma_200": "204.75" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_market_is_open_from_the_first_second_to_the_last_on_weekdays() {
        for (now, expected) in [
            ("2026-03-02T14:29:59Z", false), // a Monday
            ("2026-03-02T14:30:00Z", true),
            ("2026-03-02T20:59:59Z", true),
            ("2026-03-02T21:00:00Z", false),
            ("2026-03-06T15:00:00Z", true), // Friday
            ("2026-03-07T15:00:00Z", false),
            ("2026-03-08T15:00:00Z", false),
        ] {
            assert_eq!(is_open(now.parse().unwrap()), expected, "{now}");
        }
    }
}
