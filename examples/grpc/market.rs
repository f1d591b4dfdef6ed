//! Sample data.

#[derive(Debug)]
pub(crate) struct Instrument {
    pub(crate) symbol: &'static str,
    // In cents, because floating-point numbers cannot hold prices exactly.
    last: u64,
    is_above_the_high: bool,
}

static INSTRUMENTS: [Instrument; 4] = [
    Instrument { symbol: DEFAULT_SYMBOL, last: 22_741, is_above_the_high: true },
    Instrument { symbol: "MSFT", last: 42_803, is_above_the_high: false },
    Instrument { symbol: "NVDA", last: 13_592, is_above_the_high: true },
    Instrument { symbol: "TSLA", last: 24_910, is_above_the_high: false },
];

pub(crate) const NO_SUCH_SYMBOL: &str = "There is no such symbol.";

const DEFAULT_SYMBOL: &str = "AAPL";

/// The instrument with this symbol. An empty symbol is the default one.
pub(crate) fn find(symbol: &str) -> Option<&'static Instrument> {
    let symbol = if symbol.is_empty() { DEFAULT_SYMBOL } else { symbol };
    INSTRUMENTS.iter().find(|instrument| instrument.symbol == symbol)
}

impl Instrument {
    /// The price in dollars.
    pub(crate) fn price(&self) -> String {
        self.price_after(0)
    }

    /// The price in dollars after a number of seconds.
    pub(crate) fn price_after(&self, seconds: u64) -> String {
        let cents = self.last + seconds % 10;
        format!("{}.{:02}", cents / 100, cents % 100)
    }

    pub(crate) fn alert(&self) -> String {
        let place = if self.is_above_the_high { "above" } else { "below" };
        format!("{} is {place} its high.", self.symbol)
    }
}
