//! `eventsubd status`: what is wrong first, with what to do; then the counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use super::FAILED;
use super::args::{Args, StatusArgs};
use super::control::{Connection, block_on};
use super::term::{self, Failure};
use crate::model::grants;
use crate::model::status::{GrantStatus, Status, SubscriptionEntry, SubscriptionState};
use crate::model::time::Timestamp;

/// Parked subscriptions that are listed one by one; the rest is counted.
const LISTED: usize = 20;

/// `eventsubd status`
pub(super) fn run(args: &Args, flags: &StatusArgs) -> Result<u8, Failure> {
    let (status, in_time) = block_on(async {
        let connection = Connection::open(args).await?;
        if !flags.wait {
            return Ok((connection.status().await?, true));
        }
        Ok(match connection.follow(flags.timeout, |status| status.converged).await? {
            Ok(status) => (status, true),
            Err(status) => (status, false),
        })
    })?;
    if flags.json {
        term::write_json(&status)?;
    } else {
        print(&status)?;
    }
    if in_time {
        return Ok(0);
    }
    term::say(&format!("not converged within {}", humantime::format_duration(flags.timeout)));
    Ok(FAILED)
}

/// Prints a status for people.
pub(super) fn print(status: &Status) -> Result<u8, Failure> {
    term::write(render(status, term::colour(&io::stdout())).as_bytes())
}

/// A status for people.
fn render(status: &Status, colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };

    let summary = match (status.converged, status.ready, status.problems.is_empty()) {
        (true, _, true) => paint("1;32", "all is well"),
        (true, _, false) => paint("1;33", "running, with remarks"),
        (false, true, _) => paint("1;33", "running, Twitch does not match the file yet"),
        (false, false, _) => paint("1;31", "not ready"),
    };
    let up = short(status.now.since(status.started_at));
    line(format!("eventsubd {} (pid {}), up {up}: {summary}", status.version, status.pid));
    for problem in &status.problems {
        line(format!("{} {}: {}", paint("1;31", "!"), problem.part, problem.message));
        if !problem.hint.is_empty() {
            line(format!("  hint: {}", problem.hint));
        }
    }

    line(String::new());
    line(format!(
        "config         {}, generation {}, loaded {}",
        status.config.path,
        status.config.generation,
        ago(status.now, status.config.loaded_at)
    ));
    line(format!("token          {}", token(status)));
    line(format!("api            {}", api(status)));
    line(format!("conduit        {}", conduit(status)));
    for shard in &status.shards {
        let state = word(&shard.state);
        let mut text =
            format!("shard {:<8} {state} for {}", shard.shard, short(status.now.since(shard.since)));
        let _ = write!(text, ", {} events", shard.events);
        if shard.losses + shard.reconnects > 0 {
            let _ =
                write!(text, ", {} losses, {} reconnects asked by Twitch", shard.losses, shard.reconnects);
        }
        line(text);
    }
    line(format!("subscriptions  {}", subscriptions(status)));
    line(format!("reconciled     {}", reconciled(status)));
    line(format!(
        "received       {} events, {} duplicates, {} malformed, {} of unknown types, {} revocations",
        status.intake.received,
        status.intake.duplicates,
        status.intake.malformed,
        status.intake.unknown,
        status.intake.revocations
    ));
    line(format!(
        "store          {} events, {} of {}, newest {}",
        status.store.events,
        size(status.store.size),
        size(status.store.max_size),
        status.store.last_seq
    ));
    for sink in &status.sinks {
        let mut text = format!(
            "sink {:<9} {}, {}, {} delivered",
            sink.name.as_str(),
            sink.kind,
            word(&sink.state),
            sink.delivered
        );
        if sink.lag_events > 0 {
            let _ = write!(text, ", {} behind ({} s)", sink.lag_events, sink.lag_seconds);
        }
        if sink.in_flight > 0 {
            let _ = write!(text, ", {} in flight", sink.in_flight);
        }
        if sink.retries > 0 {
            let _ = write!(text, ", {} retries", sink.retries);
        }
        if sink.dead_letters > 0 {
            let _ = write!(text, ", {} dead letters", sink.dead_letters);
        }
        if sink.lost > 0 {
            let _ = write!(text, ", {} lost", sink.lost);
        }
        line(text);
    }

    if let Some(admin) = &status.admin {
        let token = if admin.token { ", opened by the token" } else { "" };
        line(format!("page           http://{}/{token}", admin.listen));
    }

    let wanting: Vec<_> = status.reconcile.grants.iter().filter(|user| !user.missing.is_empty()).collect();
    if !wanting.is_empty() {
        line(String::new());
        line(paint("1", "Missing grants:"));
        for user in wanting.iter().take(LISTED) {
            line(grant_line(user));
        }
        if wanting.len() > LISTED {
            line(format!("  … and {} more: see `eventsubd status --json`", wanting.len() - LISTED));
        }
        line("  `eventsubd authorize --missing` asks for all of them".to_owned());
    }
    let parked: Vec<_> =
        status.subscriptions.iter().filter(|s| s.state == SubscriptionState::Parked).collect();
    if !parked.is_empty() {
        line(String::new());
        line(paint("1", "Parked subscriptions:"));
        for entry in parked.iter().take(LISTED) {
            line(parked_line(entry, status.now));
        }
        if parked.len() > LISTED {
            line(format!("  … and {} more: see `eventsubd status --json`", parked.len() - LISTED));
        }
    }
    out
}

fn grant_line(user: &GrantStatus) -> String {
    let mut text = format!("  {}", user.login.as_deref().unwrap_or(&user.user_id));
    let _ = write!(text, " must allow {}", grants::list(&user.missing));
    if !user.granted.is_empty() {
        let _ = write!(text, "; has allowed {}", grants::list(&user.granted));
    }
    text
}

fn parked_line(entry: &SubscriptionEntry, now: Timestamp) -> String {
    let mut text = format!("  {}", entry.key);
    if let Some(reason) = &entry.reason {
        let _ = write!(text, "\n    {reason}");
    }
    if let Some(at) = entry.retry_at {
        let _ = write!(text, "\n    tried again in {}", short(at.since(now)));
    }
    text
}

fn token(status: &Status) -> String {
    let mut text = word(&status.token.state);
    if let Some(at) = status.token.expires_at {
        let _ = write!(text, ", expires in {}", short(at.since(status.now)));
    }
    if let Some(at) = status.token.validated_at {
        let _ = write!(text, ", validated {}", ago(status.now, at));
    }
    let _ = write!(text, ", {} minted", status.token.mints);
    text
}

fn api(status: &Status) -> String {
    let mut text = format!("{} requests", status.api.requests);
    if let (Some(remaining), Some(limit)) = (status.api.remaining, status.api.limit) {
        let _ = write!(text, ", {remaining} of {limit} points left");
    }
    if status.api.rate_limited > 0 {
        let _ = write!(text, ", {} answered 429", status.api.rate_limited);
    }
    text
}

fn conduit(status: &Status) -> String {
    match &status.reconcile.conduit {
        Some(conduit) => format!("{}, {} shards", conduit.id, conduit.shard_count),
        None => "none yet".to_owned(),
    }
}

fn subscriptions(status: &Status) -> String {
    let mut counts = BTreeMap::new();
    let mut own = 0;
    for entry in status.subscriptions.iter() {
        if entry.own {
            own += 1;
        } else {
            *counts.entry(entry.state).or_insert(0_u64) += 1;
        }
    }
    let mut text = (status.subscriptions.len() - own).to_string();
    for (state, count) in counts {
        let _ = write!(text, ", {count} {}", word(&state));
    }
    if own > 0 {
        let _ = write!(text, "; {own} of the daemon's own, to hear of grants and shards");
    }
    if let (Some(cost), Some(max)) = (status.reconcile.total_cost, status.reconcile.max_total_cost) {
        let _ = write!(text, "; cost {cost} of {max}");
    }
    text
}

fn reconciled(status: &Status) -> String {
    let mut text = match status.reconcile.finished_at {
        Some(at) => format!("{}, generation {}", ago(status.now, at), status.reconcile.generation),
        None => "not yet".to_owned(),
    };
    if let Some(progress) = status.reconcile.progress {
        let _ = write!(text, "; {} of {} changes made", progress.done, progress.total);
    }
    text
}

/// The name of a state as the JSON has it, in words.
fn word(state: &impl serde::Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(text)) => text.replace('_', " "),
        _ => "unknown".to_owned(),
    }
}

fn ago(now: Timestamp, then: Timestamp) -> String {
    format!("{} ago", short(now.since(then)))
}

/// The two largest units of a duration.
fn short(duration: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::expect;

    use super::*;
    use crate::model::event::Seq;
    use crate::model::route::SinkName;
    use crate::model::shard::ShardId;
    use crate::model::status::*;
    use crate::model::subscription::{Condition, SubscriptionKey};

    fn example() -> Status {
        let now = Timestamp::parse("2026-11-02T08:15:27Z").unwrap();
        let before = |secs| Timestamp(now.0 - Duration::from_secs(secs));
        let after = |secs| Timestamp(now.0 + Duration::from_secs(secs));
        let entry = |id: &str, state, reason: Option<&str>| SubscriptionEntry {
            key: SubscriptionKey {
                subscription_type: "channel.follow".into(),
                version: "2".into(),
                condition: Condition::from_pairs([("broadcaster_user_id", id), ("moderator_user_id", id)]),
            },
            state,
            id: None,
            reason: reason.map(Into::into),
            retry_at: reason.map(|_| after(300)),
            own: false,
        };
        Status {
            version: "0.1.0".to_owned(),
            pid: 4711,
            started_at: before(93_784),
            now,
            ready: true,
            not_ready: vec![],
            converged: true,
            problems: vec![],
            config: ConfigStatus {
                path: "/etc/eventsubd/config.toml".to_owned(),
                generation: 2,
                loaded_at: before(600),
                refused: None,
            },
            token: TokenStatus {
                state: TokenState::Valid,
                expires_at: Some(after(4_000_000)),
                validated_at: Some(before(1_200)),
                mints: 1,
                validations: 26,
                problem: None,
            },
            api: ApiStatus {
                limit: Some(800),
                remaining: Some(799),
                requests: 64,
                rate_limited: 0,
                problem: None,
            },
            reconcile: ReconcileStatus {
                generation: 2,
                converged: true,
                finished_at: Some(before(500)),
                conduit: Some(ConduitStatus { id: "5b1f2c7a".to_owned(), shard_count: 1 }),
                total_cost: Some(1),
                max_total_cost: Some(10_000),
                ..ReconcileStatus::default()
            },
            subscriptions: Arc::from([
                entry("1", SubscriptionState::Enabled, None),
                entry(
                    "2",
                    SubscriptionState::Parked,
                    Some("the user in moderator_user_id has not granted moderator:read:followers"),
                ),
            ]),
            shards: vec![ShardStatus {
                shard: ShardId(0),
                state: ShardState::Bound,
                since: before(7_260),
                session_id: None,
                losses: 0,
                reconnects: 1,
                events: 12,
                problem: None,
            }],
            intake: IntakeStatus { received: 12, duplicates: 1, ..IntakeStatus::default() },
            webhook: None,
            store: StoreStatus {
                last_seq: Seq(11),
                first_seq: Seq(1),
                events: 11,
                size: 40_960,
                max_size: 2 << 30,
                ..StoreStatus::default()
            },
            sinks: vec![SinkStatus {
                name: SinkName::new("log"),
                kind: "file".to_owned(),
                state: SinkState::Idle,
                cursor: Seq(11),
                lag_events: 0,
                lag_seconds: 0,
                in_flight: 0,
                delivered: 11,
                retries: 0,
                dead_letters: 0,
                lost: 0,
                problem: None,
            }],
            admin: Some(AdminStatus { listen: "127.0.0.1:9464".to_owned(), token: false }),
        }
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let mut status = example();
        status.problems.push(Problem {
            part: "subscriptions".to_owned(),
            message: "1 of 2 subscriptions cannot be created".to_owned(),
            hint: "each says why in `eventsubd status`".to_owned(),
        });
        expect![[r#"
            eventsubd 0.1.0 (pid 4711), up 1day 2h: running, with remarks
            ! subscriptions: 1 of 2 subscriptions cannot be created
              hint: each says why in `eventsubd status`

            config         /etc/eventsubd/config.toml, generation 2, loaded 10m ago
            token          valid, expires in 1month 15days, validated 20m ago, 1 minted
            api            64 requests, 799 of 800 points left
            conduit        5b1f2c7a, 1 shards
            shard 0 bound for 2h 1m, 12 events, 0 losses, 1 reconnects asked by Twitch
            subscriptions  2, 1 enabled, 1 parked; cost 1 of 10000
            reconciled     8m 20s ago, generation 2
            received       12 events, 1 duplicates, 0 malformed, 0 of unknown types, 0 revocations
            store          11 events, 40.0 KiB of 2.0 GiB, newest 11
            sink log       file, idle, 11 delivered
            page           http://127.0.0.1:9464/

            Parked subscriptions:
              channel.follow v2 broadcaster_user_id=2 moderator_user_id=2
                the user in moderator_user_id has not granted moderator:read:followers
                tried again in 5m
        "#]]
        .assert_eq(&render(&status, false));
    }

    #[test]
    fn the_json_round_trips() {
        let status = example();
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    }
}
