//! `limits show`, `limits reset` and `limits resets`.

use serde_json::json;
use tollgate::denial::Unavailable;
use tollgate_redis::{LimitQuery, Redis, RedisLimits, RedisSettings};

use super::actor;
use crate::{
    arguments::{
        Global,
        limits::{Limits, Server, Which},
    },
    failure::{Exit, Failure},
    input,
    output::{
        self, describe,
        table::{self, Stream},
    },
    store::show_waiting,
};

pub(super) async fn run(command: &Limits, global: &Global) -> Result<Exit, Failure> {
    match command {
        Limits::Show { server, which } => show(&query(which), server, global).await,
        Limits::Reset { server, which, yes } => reset(&query(which), *yes, server, global).await,
        Limits::Resets { server } => resets(server, global).await,
    }
}

async fn show(query: &LimitQuery, server: &Server, global: &Global) -> Result<Exit, Failure> {
    let limits = open(server, global).await?;
    let counters = show_waiting("Reading", limits.show(query)).await.map_err(|error| unavailable(&error))?;
    if global.json {
        let items: Vec<_> = counters.iter().map(describe::counter).collect();
        output::json(&json!({ "items": items }))?;
    } else if counters.is_empty() {
        output::note("No counters found: nothing is used.");
    } else {
        output::result(&table::counters(&counters, Stream::Out))?;
    }
    Ok(Exit::Done)
}

async fn reset(query: &LimitQuery, yes: bool, server: &Server, global: &Global) -> Result<Exit, Failure> {
    if !yes {
        let question = format!("Reset the counters of {}?", in_words(query));
        // Before Redis is opened, so that no connection is idle while the user types.
        if !input::confirm(&question).await? {
            output::note("Nothing was reset.");
            return Ok(Exit::No);
        }
    }
    let limits = open(server, global).await?;
    let actor = actor(global);
    let reset =
        show_waiting("Resetting", limits.reset(query, &actor)).await.map_err(|error| unavailable(&error))?;
    if global.json {
        output::json(&describe::limit_reset(&reset))?;
    } else if reset.subjects == 0 {
        output::note("No counters found: nothing was reset.");
    } else {
        let subjects = match reset.subjects {
            1 => "one subject".to_owned(),
            many => format!("{many} subjects"),
        };
        let mut message = format!("The counters of {subjects} were reset.");
        if !reset.before.is_empty() {
            message = format!("{message} They stood at:\n\n{}", table::counters(&reset.before, Stream::Out));
        }
        output::result(&message)?;
        output::note("Services can refuse for up to one second more.");
    }
    Ok(Exit::Done)
}

async fn resets(server: &Server, global: &Global) -> Result<Exit, Failure> {
    let limits = open(server, global).await?;
    let resets = show_waiting("Reading", limits.resets()).await.map_err(|error| unavailable(&error))?;
    if global.json {
        let items: Vec<_> = resets.iter().map(describe::limit_reset).collect();
        output::json(&json!({ "items": items }))?;
    } else if resets.is_empty() {
        output::note("No resets found.");
    } else {
        output::result(&table::resets(&resets, Stream::Out))?;
    }
    Ok(Exit::Done)
}

fn query(which: &Which) -> LimitQuery {
    let mut query = LimitQuery::default();
    query.group = which.tenant.as_deref().map(Into::into);
    query.subject = which.subject.as_deref().map(Into::into);
    query.policy = which.policy.as_deref().map(Into::into);
    query
}

/// Which counters, for a question.
fn in_words(query: &LimitQuery) -> String {
    let mut words = match (&query.subject, &query.group) {
        (Some(subject), Some(group)) => {
            format!("{}, of {},", output::visible(subject), output::visible(group))
        }
        (Some(one), None) => output::visible(one),
        (None, group) => {
            format!("{} and all its keys", output::visible(group.as_deref().unwrap_or_default()))
        }
    };
    if let Some(policy) = &query.policy {
        words = format!("{words} under the policy {}", output::visible(policy));
    }
    words.trim_end_matches(',').to_owned()
}

async fn open(server: &Server, global: &Global) -> Result<RedisLimits, Failure> {
    let url = server.redis.as_deref().filter(|url| !url.is_empty()).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            "no URL of Redis: set TOLLGATE_REDIS_URL or --redis to redis://user:password@host:6379",
        )
    })?;
    let settings = if server.cluster { RedisSettings::cluster([url]) } else { RedisSettings::new(url) };
    let settings = settings.with_prefix(&*server.prefix).with_deadline(global.timeout);
    let connecting = tokio::time::timeout(global.timeout, Redis::connect(settings));
    match show_waiting("Connecting", connecting).await {
        Ok(Ok(redis)) => Ok(RedisLimits::new(redis)),
        Ok(Err(error)) => Err(Failure::new(Exit::Database, error.to_string())),
        Err(_) => Err(Failure::new(
            Exit::Database,
            format!("the Redis server does not answer within {:?}", global.timeout),
        )),
    }
}

fn unavailable(error: &Unavailable) -> Failure {
    Failure::new(Exit::Database, format!("{error:#}"))
}
