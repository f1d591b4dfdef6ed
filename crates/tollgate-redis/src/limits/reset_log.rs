//! Resets, and the stream in which they are recorded.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Cmd, Value};
use tollgate_core::manage::Actor;

use super::{CounterState, LimitQuery, Records, elements, text};
use crate::limiter::key_name::KeyName;

/// A reset of counters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitReset {
    /// When, by the clock of the server.
    pub at: SystemTime,
    /// The name of who has made it.
    pub actor: Box<str>,
    /// What was to be reset.
    pub query: LimitQuery,
    /// How many subjects were reset, each under one policy.
    pub subjects: u64,
    /// Where the counters stood: those of the first 100 subjects in the order of their keys.
    pub before: Vec<CounterState>,
}

/// How many resets are recorded.
const MOST_RESETS: u64 = 1_000;

/// How many subjects of a reset are recorded.
const MOST_SUBJECTS: usize = 100;

/// 90 days in seconds.
const KEPT: u64 = 90 * 24 * 60 * 60;

// A stream alone would not expire.
const APPEND: &str = "\
local id = redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[1], '*', unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return id";

impl LimitReset {
    pub(super) fn new(query: &LimitQuery, actor: &Actor, records: &Records, at: SystemTime) -> Self {
        let states =
            |(name, record): &(KeyName, String)| CounterState::read(name, record, at).collect::<Vec<_>>();
        Self {
            at,
            actor: actor.name().into(),
            query: query.clone(),
            subjects: records.len() as u64,
            before: records.values().take(MOST_SUBJECTS).flat_map(states).collect(),
        }
    }

    /// Records it: in fields that can be read with `XRANGE`. Those of subjects are their keys and their records.
    pub(super) fn to_command(&self, prefix: &str, records: &Records) -> Cmd {
        let mut append = redis::cmd("EVAL");
        append.arg(APPEND).arg(1).arg(stream(prefix)).arg(MOST_RESETS).arg(KEPT);
        append.arg("actor").arg(&*self.actor).arg("subjects").arg(self.subjects);
        let LimitQuery { group, policy, subject } = &self.query;
        for (field, value) in [("group", group), ("policy", policy), ("subject", subject)] {
            if let Some(value) = value {
                append.arg(field).arg(&**value);
            }
        }
        for (key, (_, record)) in records.iter().take(MOST_SUBJECTS) {
            append.arg(key).arg(record);
        }
        append
    }

    /// Lists what was recorded, the latest first.
    pub(super) fn list_command(prefix: &str) -> Cmd {
        let mut list = redis::cmd("XREVRANGE");
        list.arg(stream(prefix)).arg("+").arg("-");
        list
    }

    /// Reads an entry of the list. `None` if another program has written it.
    pub(super) fn read(prefix: &str, entry: &Value) -> Option<Self> {
        let [id, fields] = elements(entry)? else { return None };
        let (millis, _) = text(id)?.split_once('-')?;
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(millis.parse().ok()?))?;
        let mut reset =
            Self { at, actor: "".into(), query: LimitQuery::default(), subjects: 0, before: Vec::new() };
        for field in elements(fields)?.chunks_exact(2) {
            let [name, value] = field else { return None };
            let (name, value) = (text(name)?, text(value)?);
            match name {
                "actor" => reset.actor = value.into(),
                "subjects" => reset.subjects = value.parse().ok()?,
                "group" => reset.query.group = Some(value.into()),
                "policy" => reset.query.policy = Some(value.into()),
                "subject" => reset.query.subject = Some(value.into()),
                key => {
                    if let Some(name) = KeyName::read(prefix, key) {
                        reset.before.extend(CounterState::read(&name, value, at));
                    }
                }
            }
        }
        Some(reset)
    }
}

/// The key of the stream. Unlike those of records, it has no hash tag.
fn stream(prefix: &str) -> String {
    format!("{prefix}:resets")
}
