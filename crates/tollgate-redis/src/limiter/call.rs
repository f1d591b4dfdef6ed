//! A call of the script: its arguments and its reply.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Cmd, Script, Value};
use smallvec::SmallVec;
use tollgate_core::{
    denial::Unavailable,
    limit::{Algorithm, Counter, FixedWindow, SlidingWindow, TokenBucket, Window, WindowLimit},
};

use super::charges::{Charges, OwnCharge};
use crate::Redis;

const SOURCE: &str = include_str!("decide.lua");
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The script that decides, and whose clock it uses.
#[derive(Debug)]
pub(crate) struct DecideScript {
    script: Script,
    pub(crate) clock: ClockOf,
}

/// Whose clock decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockOf {
    Redis,
    Request,
}

/// What to lend to this process, and what it gives back, in one call.
#[derive(Debug, Default)]
pub(crate) struct Exchange<'c> {
    /// How many units to lend beyond the cost, at most.
    pub(crate) wanted: u64,
    /// Units that were lent before and are not used, with the counters that have counted them, one for each limit.
    pub(crate) returned: Option<(u64, &'c [Counter])>,
}

/// What the script has decided.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) is_allowed: bool,
    /// How many units are lent beyond the cost.
    pub(crate) lent: u64,
    /// The instant of the decision.
    pub(crate) at: SystemTime,
    /// For each limit, the counter before the request.
    pub(crate) counters: SmallVec<[Counter; 4]>,
}

impl DecideScript {
    pub(crate) fn new() -> Self {
        Self { script: Script::new(SOURCE), clock: ClockOf::Redis }
    }

    /// Calls the script.
    ///
    /// # Errors
    /// If Redis does not answer within the deadline.
    pub(crate) async fn call(
        &self,
        redis: &Redis,
        charges: &Charges,
        exchange: Exchange<'_>,
    ) -> Result<Reply, Unavailable> {
        let mut arguments = Arguments(SmallVec::new());
        arguments.write(charges, self.clock, &exchange);
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(charges.all.len());
            for charge in &charges.all {
                command.arg(&charge.key);
            }
            for argument in &arguments.0 {
                argument.write_to(&mut command);
            }
            command
        };
        let reply = redis.run(&self.script, SOURCE, command).await?;
        read_reply(&reply, charges).ok_or_else(|| Unavailable::new("the reply of Redis cannot be read"))
    }
}

enum Argument {
    Number(u64),
    Text(&'static str),
    Identifier(String),
}

impl Argument {
    fn write_to(&self, command: &mut Cmd) {
        match self {
            Self::Number(number) => command.arg(*number),
            Self::Text(text) => command.arg(*text),
            Self::Identifier(id) => command.arg(id),
        };
    }
}

struct Arguments(SmallVec<[Argument; 16]>);

impl Arguments {
    fn write(&mut self, charges: &Charges, clock: ClockOf, exchange: &Exchange<'_>) {
        let now = charges.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        match clock {
            ClockOf::Redis => self.text("own"),
            ClockOf::Request => {
                self.text("given");
                self.number(now.as_secs());
                self.number(now.subsec_nanos().into());
            }
        }
        self.number(exchange.wanted);
        let mut counted = exchange.returned.map(|(_, counters)| counters).unwrap_or_default().iter();
        for charge in &charges.all {
            self.write_returned(charge, exchange, &mut counted);
            self.number(charge.required);
            self.number(charge.cost);
            self.length(charge.quota.limits().len());
            for limit in charge.quota.limits() {
                self.write_limit(charge, limit, now.as_secs());
            }
        }
    }

    fn write_returned<'c>(
        &mut self,
        charge: &OwnCharge,
        exchange: &Exchange<'_>,
        counted: &mut impl Iterator<Item = &'c Counter>,
    ) {
        let Some((units, _)) = exchange.returned.filter(|(units, _)| *units > 0) else {
            return self.number(0);
        };
        self.length(charge.quota.limits().len());
        for (limit, counter) in charge.quota.limits().iter().zip(counted) {
            self.id(limit);
            self.text(name_of(limit.algorithm));
            match counter {
                Counter::FixedWindow(FixedWindow { ends_at, .. })
                | Counter::SlidingWindow(SlidingWindow { ends_at, .. }) => {
                    self.number(*ends_at);
                    self.number(limit.window.end_after(*ends_at));
                    self.number(units);
                }
                _ => self.pair(nanos_of_tokens(limit, units)),
            }
        }
    }

    fn write_limit(&mut self, charge: &OwnCharge, limit: &WindowLimit, second: u64) {
        self.id(limit);
        self.text(name_of(limit.algorithm));
        self.number(limit.capacity());
        if let Algorithm::TokenBucket { .. } = limit.algorithm {
            let spare = limit.capacity().checked_sub(charge.required);
            self.pair(interval(limit));
            self.number(spare.is_some().into());
            self.pair(nanos_of_tokens(limit, spare.unwrap_or_default()));
            self.pair(nanos_of_tokens(limit, charge.cost));
        } else {
            self.window(limit.window, second);
        }
    }

    /// The length of a window, or the starts of six months, of which the second one contains `second`.
    fn window(&mut self, window: Window, second: u64) {
        if window.first_day().is_none() {
            self.number(1);
            return self.number(window.seconds().into());
        }
        let start = window.start_of(second);
        let mut starts = [window.start_of(start.saturating_sub(1)), start, 0, 0, 0, 0];
        let mut last = start;
        for next in starts.iter_mut().skip(2) {
            last = window.end_after(last);
            *next = last;
        }
        self.length(starts.len());
        for start in starts {
            self.number(start);
        }
    }

    /// What identifies a counter within its record: `60f` is a fixed window of 60 seconds, `m17s` a sliding month from the 17th.
    fn id(&mut self, limit: &WindowLimit) {
        let algorithm = name_of(limit.algorithm).get(..1).unwrap_or_default();
        let id = match limit.window.first_day() {
            Some(day) => format!("m{day}{algorithm}"),
            None => format!("{}{algorithm}", limit.window.seconds()),
        };
        self.0.push(Argument::Identifier(id));
    }

    /// An instant or a length in nanoseconds, as seconds and the rest: numbers of the script are exact up to 2^53.
    fn pair(&mut self, nanos: u64) {
        self.number(nanos / NANOS_PER_SECOND);
        self.number(nanos % NANOS_PER_SECOND);
    }

    fn number(&mut self, number: u64) {
        self.0.push(Argument::Number(number));
    }

    fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    fn text(&mut self, text: &'static str) {
        self.0.push(Argument::Text(text));
    }
}

fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::FixedWindow => "fixed",
        Algorithm::SlidingWindow => "sliding",
        _ => "bucket",
    }
}

fn bucket_without(limit: &WindowLimit, tokens: u64) -> TokenBucket {
    match Counter::new(limit.algorithm).counting(limit, tokens) {
        Counter::TokenBucket(bucket) => bucket,
        _ => TokenBucket::default(),
    }
}

/// The time in which a bucket gets this many tokens.
fn nanos_of_tokens(limit: &WindowLimit, tokens: u64) -> u64 {
    bucket_without(limit, tokens).full_at
}

fn interval(limit: &WindowLimit) -> u64 {
    bucket_without(limit, 0).interval
}

/// `None` if the reply has another form.
fn read_reply(reply: &Value, charges: &Charges) -> Option<Reply> {
    let Value::Array(values) = reply else { return None };
    let mut numbers = values.iter().map(|value| match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    });
    let mut next = || numbers.next().flatten();
    let is_allowed = next()? == 1;
    let lent = next()?;
    let at = UNIX_EPOCH.checked_add(Duration::from_nanos(nanos_of_pair(next()?, next()?)))?;
    let mut counters = SmallVec::new();
    for (_, limit) in charges.limits() {
        counters.push(match limit.algorithm {
            Algorithm::FixedWindow => Counter::FixedWindow(FixedWindow { ends_at: next()?, used: next()? }),
            Algorithm::SlidingWindow => Counter::SlidingWindow(SlidingWindow {
                ends_at: next()?,
                used: next()?,
                used_before: next()?,
            }),
            _ => Counter::TokenBucket(TokenBucket {
                full_at: nanos_of_pair(next()?, next()?),
                as_of: nanos_of_pair(next()?, next()?),
                interval: nanos_of_pair(next()?, next()?),
            }),
        });
    }
    Some(Reply { is_allowed, lent, at, counters })
}

/// The nanoseconds of a pair: see `Arguments::pair`.
pub(crate) fn nanos_of_pair(seconds: u64, nanos: u64) -> u64 {
    seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(nanos)
}
