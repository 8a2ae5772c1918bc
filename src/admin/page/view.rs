//! View model of the page, computed from the status. ◆
//!
//! All values are plain text; the template escapes them.

use std::time::Duration;

use serde::Serialize;

use super::chart::Chart;
use super::history::{History, Whole};
use super::hosts::{self, Hosts};
use super::letters::Letters;
use super::level::Level;
use super::rows::Table;
use crate::model::grants;
use crate::model::invocation::Invocation;
use crate::model::status::{Health, Problem, ShardStatus, SinkState, SinkStatus, Status, TokenState, mended};
use crate::model::text::{ago, count, counted, duration, left, size, word};
use crate::model::time::Timestamp;

/// Number of shards and users listed one by one; the rest is counted.
const LISTED: usize = 50;
/// Lag from which a sink is highlighted, in seconds.
const LAG: u64 = 300;

/// A problem, with a link to the part of the page that has details.
#[derive(Clone, Debug, Serialize)]
struct Wrong<'a> {
    #[serde(flatten)]
    problem: &'a Problem,
    link: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
struct Tile {
    name: &'static str,
    level: Level,
    value: String,
    note: String,
    link: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Shard {
    number: u32,
    state: String,
    level: Level,
    since: String,
    events: String,
    losses: String,
    problem: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Sink {
    name: String,
    kind: String,
    receiver: String,
    state: String,
    level: Level,
    problem: Option<String>,
    figures: Vec<(&'static str, String)>,
    dead_letters: u64,
    /// Query that shows its dead letters.
    letters_link: String,
    /// Whether it waits to try again.
    waits: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Grant {
    user: String,
    missing: String,
    command: String,
}

/// A time in which events may have been missed.
#[derive(Clone, Debug, Serialize)]
struct Gap {
    from: String,
    /// `None` while it is not over.
    to: Option<String>,
    long: String,
    reason: &'static str,
    /// The outcome of the catch-up in words; `None` if there was none.
    mended: Option<String>,
}

/// The gaps that are shown.
fn gaps(status: &Status) -> Vec<Gap> {
    let open = status.gaps.open.iter().map(|open| Gap {
        from: open.since.to_string(),
        to: None,
        long: duration(status.now.since(open.since)),
        reason: open.reason.sentence(),
        mended: None,
    });
    let over = status.gaps.recent.iter().map(|gap| Gap {
        from: gap.from.to_string(),
        to: Some(gap.to.to_string()),
        long: duration(gap.to.since(gap.from)),
        reason: gap.reason.sentence(),
        mended: gap.mended.map(mended),
    });
    open.chain(over).collect()
}

#[derive(Clone, Debug, Serialize)]
struct Group {
    name: &'static str,
    facts: Vec<(&'static str, String)>,
}

/// Parts of the page that do not come from the status.
#[derive(Clone, Debug, Default)]
pub(super) struct Extras {
    /// Value that forms carry. `None` if the client may only read.
    pub(super) form_key: Option<String>,
    /// A change that was made.
    pub(super) done: Option<String>,
    pub(super) letters: Option<Letters>,
    pub(super) event: Option<Whole>,
    /// `None` if the stored events are not wanted.
    pub(super) history: Option<History>,
    pub(super) chart: Chart,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct View<'a> {
    /// Flags that commands need to address this daemon.
    flags: &'a str,
    version: &'a str,
    config_path: &'a str,
    up: String,
    now: String,
    /// Time of day of `now`, to the second.
    clock: String,
    level: Level,
    verdict: String,
    problems: Vec<Wrong<'a>>,
    refused: &'a [String],
    tiles: Vec<Tile>,
    chart: &'a Chart,
    table: Table<'a>,
    grants: Vec<Grant>,
    more_grants: Option<String>,
    shards: Vec<Shard>,
    more_shards: Option<String>,
    /// `None` without a cluster.
    hosts: Option<Hosts>,
    sinks: Vec<Sink>,
    /// The last gaps, newest first; one that is not over stands before them.
    gaps: Vec<Gap>,
    /// The catch-up that is under way, in words.
    catch_up: Option<String>,
    groups: Vec<Group>,
    form_key: &'a Option<String>,
    done: &'a Option<String>,
    letters: &'a Option<Letters>,
    event: &'a Option<Whole>,
    history: &'a Option<History>,
    /// Whether to show the log-out button.
    token: bool,
}

/// Computes the view.
pub(super) fn view<'a>(status: &'a Status, table: Table<'a>, extras: &'a Extras) -> View<'a> {
    let (health, mut verdict) = status.verdict();
    if let Some(first) = verdict.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let level = match health {
        Health::Good => Level::Good,
        Health::Impaired => Level::Warn,
        Health::Bad => Level::Bad,
    };
    let now = status.now.to_string();
    let mut shards: Vec<&ShardStatus> = status.shards.iter().collect();
    shards.sort_by_key(|shard| (shard.state.delivers(), shard.shard));
    let mut wanting: Vec<_> =
        status.reconcile.grants.iter().filter(|user| !user.missing.is_empty()).collect();
    let more = |all: usize| (all > LISTED).then(|| count((all - LISTED) as u64));
    let (more_shards, more_grants) = (more(shards.len()), more(wanting.len()));
    shards.truncate(LISTED);
    wanting.truncate(LISTED);
    let invocation = Invocation::from_flags(&status.config.flags);
    View {
        flags: &status.config.flags,
        version: &status.version,
        config_path: &status.config.path,
        up: duration(status.now.since(status.started_at)),
        clock: now.get(11..19).unwrap_or_default().to_owned(),
        now,
        level,
        verdict,
        problems: status
            .problems
            .iter()
            .map(|problem| Wrong { problem, link: link(&problem.part) })
            .collect(),
        refused: status.config.refused.as_ref().map_or(&[], |refused| &refused.errors),
        tiles: tiles(status),
        chart: &extras.chart,
        table,
        grants: wanting
            .into_iter()
            .map(|grant| {
                let user = grant.login.as_deref().unwrap_or(&grant.user_id);
                Grant {
                    user: user.to_owned(),
                    missing: grants::list(&grant.missing),
                    command: invocation.command(&format!("authorize --user {user}")),
                }
            })
            .collect(),
        more_grants,
        shards: shards.into_iter().map(|shard| self::shard(shard, status)).collect(),
        more_shards,
        hosts: status.cluster.as_ref().map(|cluster| hosts::hosts(cluster, status.now)),
        sinks: status.sinks.iter().map(|each| sink(each, status.now)).collect(),
        gaps: gaps(status),
        catch_up: status.gaps.catch_up.as_ref().map(|catch_up| catch_up.in_words(status.now)),
        groups: groups(status),
        form_key: &extras.form_key,
        done: &extras.done,
        letters: &extras.letters,
        event: &extras.event,
        history: &extras.history,
        token: status.admin.as_ref().is_some_and(|admin| admin.token),
    }
}

fn link(part: &str) -> Option<&'static str> {
    let links = [
        ("subscriptions", "/?state=parked#subscriptions"),
        ("grants", "/?state=own#subscriptions"),
        ("sink ", "#sinks"),
        ("shard ", "#shards"),
        ("cluster", "#hosts"),
    ];
    links.iter().find(|(start, _)| part.starts_with(start)).map(|(_, link)| *link)
}

fn tiles(status: &Status) -> Vec<Tile> {
    let tile = |name, link, level, value: String, note: String| Tile { name, level, value, note, link };
    let mut tiles = Vec::new();

    let counts = &status.subscription_counts;
    let (all, enabled, parked, pending) = (counts.total, counts.enabled, counts.parked, counts.pending);
    let (level, note) = match (parked, pending) {
        (0, 0) => (Level::Good, "all enabled".to_owned()),
        (0, pending) => (Level::Warn, format!("{} pending", count(pending))),
        (parked, 0) => (Level::Warn, format!("{} parked", count(parked))),
        (parked, pending) => (Level::Warn, format!("{} parked, {} pending", count(parked), count(pending))),
    };
    tiles.push(tile(
        "Subscriptions",
        "#subscriptions",
        level,
        format!("{} of {}", count(enabled), count(all)),
        note,
    ));

    let deliver = status.delivering_shards() as u64;
    let wanted = status.reconcile.conduit.as_ref().map_or(0, |conduit| u64::from(conduit.shard_count));
    let wanted = wanted.max(status.shards.len() as u64);
    if wanted > 0 || status.webhook.is_none() {
        let level = match deliver {
            0 => Level::Bad,
            some if some < wanted => Level::Warn,
            _ => Level::Good,
        };
        let losses: u64 = status.shards.iter().map(|shard| shard.losses).sum();
        let note = if losses == 0 {
            "no connection lost".to_owned()
        } else {
            format!("{} connections lost", count(losses))
        };
        tiles.push(tile(
            "Shards",
            "#shards",
            level,
            format!("{} of {}", count(deliver), count(wanted)),
            note,
        ));
    }
    if let Some(webhook) = &status.webhook {
        let level = if webhook.problem.is_some() { Level::Bad } else { Level::Good };
        let rejected: u64 = webhook.rejected.values().sum();
        let note = format!("{} requests, {} refused", count(webhook.requests), count(rejected));
        tiles.push(tile("Webhooks", "#details", level, webhook.listen.clone(), note));
    }

    let behind: u64 = status.sinks.iter().map(|sink| sink.lag_events).max().unwrap_or(0);
    let worst = status.sinks.iter().map(sink_level).max_by_key(|level| *level as u8).unwrap_or(Level::Good);
    let well = status.sinks.iter().filter(|sink| sink_level(sink) == Level::Good).count();
    let note =
        if behind == 0 { "none behind".to_owned() } else { format!("up to {} events behind", count(behind)) };
    tiles.push(tile("Sinks", "#sinks", worst, format!("{well} of {}", status.sinks.len()), note));

    let store = &status.store;
    let level = if store.problem.is_some() { Level::Bad } else { Level::Good };
    let note = format!("{} events, at most {}", count(store.events), size(store.max_size));
    tiles.push(tile("Store", "#details", level, size(store.size), note));

    let level = match status.token.state {
        TokenState::Valid => Level::Good,
        TokenState::Renewing | TokenState::Minting => Level::Warn,
        TokenState::Refused | TokenState::Unavailable => Level::Bad,
    };
    let note = match status.token.expires_at {
        Some(at) => format!("expires in {}", duration(at.since(status.now))),
        None => "none yet".to_owned(),
    };
    tiles.push(tile("Token", "#details", level, word(&status.token.state), note));
    tiles
}

fn shard(shard: &ShardStatus, status: &Status) -> Shard {
    Shard {
        number: shard.shard.0,
        state: word(&shard.state),
        level: if shard.state.delivers() { Level::Good } else { Level::Bad },
        since: duration(status.now.since(shard.since)),
        events: count(shard.events),
        losses: count(shard.losses),
        problem: shard.problem.clone().filter(|_| !shard.state.delivers()),
    }
}

fn sink_level(sink: &SinkStatus) -> Level {
    match sink.state {
        SinkState::Failed => Level::Bad,
        SinkState::Retrying => Level::Bad,
        SinkState::Paused => Level::Warn,
        _ if sink.lag_seconds > LAG || sink.dead_letters > 0 || sink.lost > 0 => Level::Warn,
        SinkState::Idle | SinkState::Delivering => Level::Good,
    }
}

fn sink(sink: &SinkStatus, now: Timestamp) -> Sink {
    let lag = match sink.lag_events {
        0 => "none".to_owned(),
        events => {
            format!("{}, {}", counted(events, "event"), duration(Duration::from_secs(sink.lag_seconds)))
        }
    };
    let last = sink.last_success.map_or_else(|| "none since the start".to_owned(), |at| ago(now, at));
    let types =
        if sink.types.iter().all(|glob| glob == "*") { "all".to_owned() } else { sink.types.join(" ") };
    let mut figures = vec![
        ("Types", types),
        ("Behind", lag),
        ("Delivered", count(sink.delivered)),
        ("Last success", last),
        ("Rate", format!("{}/min", count(sink.per_minute))),
    ];
    if let Some(at) = sink.next_try {
        figures.push(("Next try", format!("in {}", left(now, at))));
    }
    for (name, number) in
        [("In flight", sink.in_flight), ("Failed attempts", sink.retries), ("Lost", sink.lost)]
    {
        if number > 0 {
            figures.push((name, count(number)));
        }
    }
    Sink {
        name: sink.name.to_string(),
        kind: sink.kind.clone(),
        receiver: sink.receiver.to_string(),
        state: word(&sink.state),
        level: sink_level(sink),
        problem: sink.problem.clone(),
        figures,
        dead_letters: sink.dead_letters,
        letters_link: {
            let mut query = form_urlencoded::Serializer::new(String::new());
            format!("/?{}#letters", query.append_pair("letters", sink.name.as_str()).finish())
        },
        waits: sink.next_try.is_some() || sink.state == SinkState::Retrying,
    }
}

fn groups(status: &Status) -> Vec<Group> {
    let Status { token, api, reconcile, intake, store, config, .. } = status;
    let since = |at| ago(status.now, at);
    let yet = || "not yet".to_owned();
    let of = |left: Option<u64>, limit: Option<u64>| match (left, limit) {
        (Some(left), Some(limit)) => format!("{} of {}", count(left), count(limit)),
        _ => "not known yet".to_owned(),
    };
    let mut groups = vec![
        Group {
            name: "Twitch",
            facts: vec![
                ("Token validated", token.validated_at.map_or_else(yet, since)),
                ("Tokens minted", count(token.mints)),
                ("API requests", count(api.requests)),
                ("Rate limit remaining", of(api.remaining.map(u64::from), api.limit.map(u64::from))),
                ("Cost", of(reconcile.total_cost, reconcile.max_total_cost)),
                ("Conduit", reconcile.conduit.as_ref().map_or_else(yet, |conduit| conduit.id.clone())),
                ("Compared", reconcile.finished_at.map_or_else(yet, since)),
            ],
        },
        Group {
            name: "Events",
            facts: vec![
                ("Received", count(intake.received)),
                ("Duplicates", count(intake.duplicates)),
                ("Sent twice by Twitch", count(intake.doubles)),
                ("Revocations", count(intake.revocations)),
                ("Malformed", count(intake.malformed)),
                ("Unknown types", count(intake.unknown)),
                ("Stored", count(store.events)),
                ("Removed by age or size", count(store.removed)),
            ],
        },
        Group {
            name: "Daemon",
            facts: vec![
                ("Version", status.version.clone()),
                ("Process", status.pid.to_string()),
                ("Started", since(status.started_at)),
                ("Configuration", config.path.clone()),
                ("Generation", format!("{}, loaded {}", config.generation, since(config.loaded_at))),
            ],
        },
    ];
    if let Some(webhook) = &status.webhook {
        let mut facts = vec![
            ("Callback", webhook.callback.clone()),
            ("Listens on", webhook.listen.clone()),
            ("TLS", if webhook.tls { "by the daemon" } else { "by a proxy" }.to_owned()),
            ("Connections", format!("{} of {}", count(webhook.connections), count(webhook.places))),
            ("Closed to make room", count(webhook.evicted)),
            ("Requests", count(webhook.requests)),
            ("Challenges", count(webhook.challenges)),
            ("Too old or too new", count(webhook.stale)),
            ("Answered 503", count(webhook.unavailable)),
        ];
        if let Some(skew) = webhook.clock_skew_seconds {
            facts.push(("Clock of Twitch", format!("{skew:+} s")));
        }
        let refused = webhook.rejected.iter().map(|(reason, number)| format!("{reason} {}", count(*number)));
        facts.push((
            "Refused",
            Some(refused.collect::<Vec<_>>().join(", "))
                .filter(|text| !text.is_empty())
                .unwrap_or_else(|| "none".to_owned()),
        ));
        groups.push(Group { name: "Webhooks", facts });
    }
    groups
}

#[cfg(test)]
pub(super) mod tests;
