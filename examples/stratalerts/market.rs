//! Sample data.

use serde_json::{Value, json};

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instrument {
    pub(crate) symbol: &'static str,
    name: &'static str,
    // In cents, because floating-point numbers cannot hold prices exactly.
    last: u32,
    is_above_the_high: bool,
}

pub(crate) static INSTRUMENTS: [Instrument; 4] = [
    Instrument { symbol: "AAPL", name: "Apple Inc.", last: 22_741, is_above_the_high: true },
    Instrument { symbol: "MSFT", name: "Microsoft Corporation", last: 42_803, is_above_the_high: false },
    Instrument { symbol: "NVDA", name: "NVIDIA Corporation", last: 13_592, is_above_the_high: true },
    Instrument { symbol: "TSLA", name: "Tesla, Inc.", last: 24_910, is_above_the_high: false },
];

pub(crate) fn find(symbol: &str) -> Option<&'static Instrument> {
    INSTRUMENTS.iter().find(|instrument| instrument.symbol == symbol)
}

impl Instrument {
    pub(crate) fn describe(&self) -> Value {
        json!({ "symbol": self.symbol, "name": self.name, "exchange": "NASDAQ", "currency": "USD" })
    }

    pub(crate) fn quote(&self) -> Value {
        json!({ "symbol": self.symbol, "last": price(self.last) })
    }

    pub(crate) fn candles(&self) -> Value {
        let candle = |day: &str, open: u32, close: u32| {
            json!({
                "date": day,
                "open": price(open),
                "high": price(open.max(close) + 50),
                "low": price(open.min(close) - 50),
                "close": price(close),
            })
        };
        let candles = [
            candle("2026-03-02", self.last - 200, self.last - 75),
            candle("2026-03-03", self.last - 75, self.last),
        ];
        json!({ "symbol": self.symbol, "interval": "1d", "candles": candles })
    }

    pub(crate) fn state(&self) -> Value {
        let state = if self.is_above_the_high { "two_up" } else { "inside" };
        json!({ "symbol": self.symbol, "interval": "1d", "state": state })
    }

    pub(crate) fn alert_in_force(&self) -> Value {
        json!({ "symbol": self.symbol, "is_in_force": self.is_above_the_high })
    }

    pub(crate) fn simultaneous_break(&self) -> Value {
        let intervals: &[&str] = if self.is_above_the_high { &["1h", "1d"] } else { &[] };
        json!({ "symbol": self.symbol, "intervals": intervals })
    }
}

pub(crate) fn status() -> Value {
    json!({ "market": "US", "status": "open" })
}

pub(crate) fn instruments() -> Value {
    json!({ "instruments": all(Instrument::describe) })
}

pub(crate) fn latest_prices() -> Value {
    json!({ "prices": all(Instrument::quote) })
}

pub(crate) fn setups() -> Value {
    json!({ "setups": all(Instrument::state) })
}

pub(crate) fn alerts_in_force() -> Value {
    json!({ "alerts": all(Instrument::alert_in_force) })
}

pub(crate) fn simultaneous_breaks() -> Value {
    json!({ "alerts": all(Instrument::simultaneous_break) })
}

fn all(view: fn(&Instrument) -> Value) -> Vec<Value> {
    INSTRUMENTS.iter().map(view).collect()
}

fn price(cents: u32) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
