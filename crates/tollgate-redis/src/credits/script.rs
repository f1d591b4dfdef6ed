//! The calls of the script `loans.lua`, and their replies.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redis::{Cmd, Script, Value};
use tollgate_core::{
    bounds::MAX_OPEN_RESERVATIONS,
    credits::{Excess, ReservationId, SettleAction},
};

use super::{
    book::Loan,
    id::{self, digits, tag, tag_of_loan},
};
use crate::{Redis, limiter::key_name::HashTag, redis_connection::SendError};

const SOURCE: &str = include_str!("loans.lua");

/// How many reservations one loan is lent to, at most: what bounds its record.
const MOST_RESERVATIONS: u32 = 100_000;

/// How long an account is kept in Redis after its last loan was opened, so that what was charged is not lost with all processes.
const ACCOUNT_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the settlements of a loan are remembered after it was closed.
const RECORD_KEPT: Duration = Duration::from_secs(10 * 60);

/// For how long a process has the task to close a loan. Then another one may take it over.
const CLOSING_TIME: Duration = Duration::from_secs(10);

/// The largest number that is exact in the script.
const MOST: u64 = 1 << 53;

pub(super) struct LoanScript {
    script: Script,
    redis: Redis,
}

/// What has become of an attempt to reserve.
#[derive(Debug)]
pub(super) enum Reserving {
    /// What the loan can still lend, and what the ledger had left when the loan was taken.
    Held {
        left: u64,
        available: u64,
    },
    /// Another loan lends, or none.
    Other(Option<ReservationId>),
    /// The loan lends no more, or too little.
    Used,
    TooManyOpen,
}

/// What has become of a settlement.
#[derive(Debug)]
pub(super) enum Settling {
    Settled(Settled),
    Released,
    Forgotten,
    /// Redis does not have the reservation.
    Unknown,
}

/// A commit, as the first call of it has decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    /// What was charged on the loan.
    pub(super) charged: u64,
    /// What is left to be charged in full, and what is left to be charged as `excess` says.
    pub(super) promised: u64,
    pub(super) beyond: u64,
    pub(super) actual: u64,
    pub(super) excess: Excess,
}

/// The loans of an account.
#[derive(Debug)]
pub(super) struct Lent {
    /// What they can lend, without those that are being closed.
    pub(super) left: u64,
    /// What was charged on them, and is not charged in the ledger, without those that are being closed.
    pub(super) charged: u64,
    /// How many are being closed.
    pub(super) closing: u64,
    /// Their tags, and 1 for each one that can be closed.
    loans: Vec<(String, u64)>,
}

impl Lent {
    /// The tags of the loans that can be closed.
    pub(super) fn to_close(&self) -> impl Iterator<Item = &str> {
        self.loans.iter().filter(|(_, is_to_close)| *is_to_close == 1).map(|(tag, _)| &**tag)
    }

    /// Whether these are the same loans as before, and none was being closed: then the ledger has not changed because of them.
    pub(super) fn is_as(&self, before: &Self) -> bool {
        let has = |tag: &str| self.loans.iter().any(|(own, _)| own == tag);
        let are_same = self.loans.len() == before.loans.len() && before.loans.iter().all(|(tag, _)| has(tag));
        are_same && self.closing == 0 && before.closing == 0
    }
}

/// A loan that lends no more.
#[derive(Debug)]
pub(super) struct Recalled {
    pub(super) loan: ReservationId,
    /// What it still has to hold in the ledger, and what is to return.
    pub(super) holds: u64,
    pub(super) returns: u64,
}

/// What has become of an attempt to close a loan.
#[derive(Debug)]
pub(super) enum Closing {
    /// The ledger is to charge what each process has charged. Then the loan is [closed](LoanScript::closed).
    Begun(ReservationId, Vec<(String, u64)>),
    /// It is closed, and each process has charged this.
    Done(Vec<(String, u64)>),
    /// It lends, it has open reservations, or another process closes it.
    Open,
    /// Redis does not have it: it was closed long ago, or Redis has lost its data.
    Unknown,
}

impl LoanScript {
    pub(super) fn new(redis: Redis) -> Self {
        Self { script: Script::new(SOURCE), redis }
    }

    pub(super) fn redis(&self) -> &Redis {
        &self.redis
    }

    pub(super) async fn reserve(
        &self,
        account: &str,
        id: ReservationId,
        amount: u64,
        expires_at: SystemTime,
        now: SystemTime,
    ) -> Result<Reserving, SendError> {
        let arguments = [
            digits(id),
            amount.to_string(),
            millis_up(expires_at).to_string(),
            MAX_OPEN_RESERVATIONS.to_string(),
            MOST_RESERVATIONS.to_string(),
        ];
        let reply = self.call(account, &tag(id), "reserve", now, &arguments).await?;
        let reserving = match reply.word() {
            "held" => reply
                .number(1)
                .zip(reply.number(2))
                .map(|(left, available)| Reserving::Held { left, available }),
            "other" => Some(Reserving::Other(reply.text(1).and_then(id::read))),
            "used" => Some(Reserving::Used),
            "many" => Some(Reserving::TooManyOpen),
            _ => None,
        };
        reserving.ok_or(SendError::Unreadable)
    }

    pub(super) async fn settle(
        &self,
        account: &str,
        id: ReservationId,
        action: SettleAction,
        process: &str,
        now: SystemTime,
    ) -> Result<Settling, SendError> {
        let (word, actual, excess) = match action {
            SettleAction::Commit { actual, excess } => ("commit", actual.min(MOST), excess),
            _ => ("release", 0, Excess::Cap),
        };
        let arguments = [
            digits(id),
            word.to_owned(),
            actual.to_string(),
            u8::from(excess != Excess::Cap).to_string(),
            text_of(excess),
            process.to_owned(),
        ];
        let reply = self.call(account, &tag(id), "settle", now, &arguments).await?;
        match reply.word() {
            "settled" => reply.settled().map(Settling::Settled).ok_or(SendError::Unreadable),
            "released" => Ok(Settling::Released),
            "forgotten" => Ok(Settling::Forgotten),
            "unknown" => Ok(Settling::Unknown),
            _ => Err(SendError::Unreadable),
        }
    }

    /// Opens a loan that was taken from the ledger, in place of `seen`. Returns another one, if it lends.
    pub(super) async fn open(
        &self,
        account: &str,
        loan: Loan,
        seen: Option<ReservationId>,
        now: SystemTime,
    ) -> Result<Option<ReservationId>, SendError> {
        let arguments = [
            tag_of_loan(loan.id),
            digits(loan.id),
            loan.amount.to_string(),
            loan.until.to_string(),
            ACCOUNT_KEPT.as_millis().to_string(),
            seen.map(tag_of_loan).unwrap_or_default(),
            loan.available.to_string(),
        ];
        let reply = self.call(account, &tag_of_loan(loan.id), "open", now, &arguments).await?;
        match reply.word() {
            "opened" => Ok(None),
            "other" => reply.text(1).and_then(id::read).map(Some).ok_or(SendError::Unreadable),
            _ => Err(SendError::Unreadable),
        }
    }

    pub(super) async fn close(
        &self,
        account: &str,
        tag: &str,
        now: SystemTime,
    ) -> Result<Closing, SendError> {
        let arguments = [tag.to_owned(), CLOSING_TIME.as_millis().to_string()];
        let reply = self.call(account, tag, "close", now, &arguments).await?;
        let closing = match reply.word() {
            "closing" => reply.text(1).and_then(id::read).map(|id| Closing::Begun(id, reply.pairs(2))),
            "closed" => Some(Closing::Done(reply.pairs(1))),
            "open" => Some(Closing::Open),
            "unknown" => Some(Closing::Unknown),
            _ => None,
        };
        closing.ok_or(SendError::Unreadable)
    }

    /// The ledger has settled a loan, and charged this for each process.
    pub(super) async fn closed(
        &self,
        account: &str,
        tag: &str,
        charged: &[(String, u64)],
        now: SystemTime,
    ) -> Result<(), SendError> {
        let pairs: Vec<_> = charged.iter().map(|(process, charged)| format!("{process} {charged}")).collect();
        let arguments = [tag.to_owned(), RECORD_KEPT.as_millis().to_string(), pairs.join(" ")];
        self.call(account, tag, "closed", now, &arguments).await.map(drop)
    }

    pub(super) async fn look(&self, account: &str, now: SystemTime) -> Result<Lent, SendError> {
        let reply = self.call(account, "", "look", now, &[]).await?;
        reply.lent().ok_or(SendError::Unreadable)
    }

    /// Keeps all loans of an account from lending, if they have at least so much left, or `in_any_case`. Returns what they had left, and what
    /// to do about each of these loans.
    pub(super) async fn recall(
        &self,
        account: &str,
        least: u64,
        in_any_case: bool,
        now: SystemTime,
    ) -> Result<(u64, Vec<Recalled>), SendError> {
        let arguments = [least.min(MOST).to_string(), u8::from(in_any_case).to_string()];
        let reply = self.call(account, "", "recall", now, &arguments).await?;
        let recalled = |at| {
            let loan = id::read(reply.text(at)?)?;
            Some(Recalled { loan, holds: reply.number(at + 1)?, returns: reply.number(at + 2)? })
        };
        let loans = (2..reply.0.len()).step_by(3).filter_map(recalled).collect();
        Ok((reply.number(1).ok_or(SendError::Unreadable)?, loans))
    }

    /// The ledger has taken so much of a loan back.
    pub(super) async fn returned(
        &self,
        account: &str,
        loan: ReservationId,
        amount: u64,
        now: SystemTime,
    ) -> Result<(), SendError> {
        let tag = tag_of_loan(loan);
        self.call(account, &tag, "returned", now, &[tag.clone(), amount.to_string()]).await.map(drop)
    }

    /// Lists a loan, so that any process can close it at this instant.
    pub(super) async fn list(&self, account: &str, loan: Loan) -> Result<(), SendError> {
        let key = self.list_key();
        let mut command = redis::cmd("ZADD");
        command.arg(&key).arg(loan.until).arg(format!("{}:{account}", tag_of_loan(loan.id)));
        self.redis.send(&command).await?;
        let mut command = redis::cmd("PEXPIRE");
        command.arg(&key).arg(u64::try_from(ACCOUNT_KEPT.as_millis()).unwrap_or(u64::MAX));
        self.redis.send(&command).await.map(drop)
    }

    /// The loans that are to be closed, by tag and account.
    pub(super) async fn listed(&self, now: SystemTime) -> Result<Vec<(String, String)>, SendError> {
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(self.list_key()).arg("-inf").arg(millis(now)).arg("LIMIT").arg(0).arg(1_000);
        let reply = Reply::read(self.redis.send(&command).await?);
        let loans = reply.0.iter().filter_map(|member| member.split_once(':'));
        Ok(loans.map(|(tag, account)| (tag.to_owned(), account.to_owned())).collect())
    }

    pub(super) async fn unlist(&self, account: &str, tag: &str) -> Result<(), SendError> {
        let mut command = redis::cmd("ZREM");
        command.arg(self.list_key()).arg(format!("{tag}:{account}"));
        self.redis.send(&command).await.map(drop)
    }

    fn list_key(&self) -> String {
        format!("{}:credits", self.redis.settings().prefix)
    }

    async fn call(
        &self,
        account: &str,
        tag: &str,
        name: &str,
        now: SystemTime,
        arguments: &[String],
    ) -> Result<Reply, SendError> {
        let key = key_name(&self.redis.settings().prefix, account);
        let command = |eval: &str, script: &str| {
            let mut command: Cmd = redis::cmd(eval);
            command.arg(script).arg(3).arg(&key).arg(format!("{key}:open")).arg(format!("{key}:{tag}"));
            command.arg(name).arg(millis(now)).arg(arguments);
            command
        };
        Ok(Reply::read(self.redis.run(&self.script, SOURCE, command).await?))
    }
}

/// The texts and numbers of a reply.
struct Reply(Vec<String>);

impl Reply {
    fn read(value: Value) -> Self {
        let Value::Array(values) = value else { return Self(Vec::new()) };
        let text = |value: Value| match value {
            Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Value::SimpleString(text) => text,
            Value::Int(number) => number.to_string(),
            _ => String::new(),
        };
        Self(values.into_iter().map(text).collect())
    }

    fn word(&self) -> &str {
        self.text(0).unwrap_or_default()
    }

    fn text(&self, at: usize) -> Option<&str> {
        self.0.get(at).map(String::as_str)
    }

    fn number(&self, at: usize) -> Option<u64> {
        self.text(at)?.parse().ok()
    }

    fn pairs(&self, from: usize) -> Vec<(String, u64)> {
        let words = self.0.get(from..).unwrap_or_default();
        words
            .chunks_exact(2)
            .filter_map(|pair| Some((pair.first()?.clone(), pair.get(1)?.parse().ok()?)))
            .collect()
    }

    fn lent(&self) -> Option<Lent> {
        Some(Lent {
            left: self.number(1)?,
            charged: self.number(2)?,
            closing: self.number(3)?,
            loans: self.pairs(4),
        })
    }

    fn settled(&self) -> Option<Settled> {
        Some(Settled {
            charged: self.number(2)?,
            promised: self.number(3)?,
            beyond: self.number(4)?,
            actual: self.number(5)?,
            excess: read_excess(self.text(6)?)?,
        })
    }
}

fn text_of(excess: Excess) -> String {
    match excess {
        Excess::TakeAvailable => "take".to_owned(),
        Excess::Owe(most) => format!("owe:{most}"),
        _ => "cap".to_owned(),
    }
}

fn read_excess(text: &str) -> Option<Excess> {
    match text {
        "cap" => Some(Excess::Cap),
        "take" => Some(Excess::TakeAvailable),
        _ => text.strip_prefix("owe:")?.parse().ok().map(Excess::Owe),
    }
}

/// The key of an account: `tollgate:credits:{acme}`.
fn key_name(prefix: &str, account: &str) -> String {
    format!("{prefix}:credits:{}", HashTag(account))
}

/// Milliseconds since 1970.
pub(super) fn millis(instant: SystemTime) -> u64 {
    let since = instant.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(MOST).min(MOST)
}

/// The same, rounded up: nothing expires too early.
fn millis_up(instant: SystemTime) -> u64 {
    millis(instant.checked_add(Duration::from_nanos(999_999)).unwrap_or(instant))
}

impl fmt::Debug for LoanScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoanScript").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_name_that_can_be_read() {
        assert_eq!(key_name("tollgate", "acme"), "tollgate:credits:{acme}");
        assert_eq!(key_name("shop", ""), "shop:credits:{%}");
        assert_eq!(key_name("shop", "a:{b}"), "shop:credits:{a%3A%7Bb%7D}");
    }

    #[test]
    fn an_excess_is_read_as_it_is_written() {
        for excess in [Excess::Cap, Excess::TakeAvailable, Excess::Owe(0), Excess::Owe(u64::MAX)] {
            assert_eq!(read_excess(&text_of(excess)), Some(excess));
        }
        assert_eq!(read_excess("owe"), None);
    }
}
