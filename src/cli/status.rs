//! `eventsubd status`: problems first, each with what to do; then the counts.

mod waiting;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

pub(super) use self::waiting::{pending, reasons};
use super::args::{Args, StatusArgs};
use super::control::{Connection, block_on};
use super::exit::exit_code;
use super::term::{self, Failure, masked};
use crate::model::cluster::{ClusterStatus, HostState, HostStatus, Role};
use crate::model::grants;
use crate::model::status::{
    GrantStatus, Health, InviteStatus, ShardStatus, SinkStatus, Status, SubscriptionEntry, SubscriptionState,
    TokenState, WebhookStatus, mended,
};
use crate::model::subscriptions::SubscriptionCounts;
use crate::model::text::{ago, counted, duration, left, size, word};
use crate::model::time::Timestamp;

/// Number of parked subscriptions listed one by one; the rest is counted.
const LISTED: usize = 20;

pub(super) fn run(args: &Args, flags: &StatusArgs) -> Result<u8, Failure> {
    let (status, in_time) = block_on(async {
        if !flags.wait {
            return Ok((Connection::open(args).await?.status().await?, true));
        }
        Ok(match Connection::await_converged(args, flags.timeout).await? {
            Ok(status) => (status, true),
            Err(status) => (status, false),
        })
    })?;
    if flags.ready {
        return readiness(&status);
    }
    if flags.json && flags.subscriptions {
        block_on(write_with_subscriptions(args, &status))?;
    } else if flags.json {
        term::write_json(&status)?;
    } else {
        let mut listed = Vec::new();
        if flags.subscriptions || status.subscription_counts.total <= LISTED as u64 {
            block_on(async {
                let connection = Connection::reopen(args).await?;
                connection
                    .subscriptions(|mut entries| {
                        listed.append(&mut entries);
                        Ok(())
                    })
                    .await
            })?;
        }
        show(args, &status, &listed)?;
    }
    if in_time {
        return Ok(0);
    }
    let why = reasons(&status).join("; ");
    let failure = if status.token.state == TokenState::Refused {
        Failure::new(format!("waiting is in vain: {why}"))
    } else {
        let waited = duration(flags.timeout);
        Failure::new(format!("not converged within {waited}: {why}"))
            .hint("the daemon goes on by itself; what keeps it stands above")
    };
    Err(failure.code(exit_code(&status)))
}

/// Succeeds if the daemon is ready; fails with the reasons otherwise.
fn readiness(status: &Status) -> Result<u8, Failure> {
    if status.ready {
        return Ok(0);
    }
    Err(Failure::new(format!("not ready: {}", status.not_ready.join("; "))))
}

/// Prints a status as JSON with the list of subscriptions in it, page by page.
async fn write_with_subscriptions(args: &Args, status: &Status) -> Result<(), Failure> {
    let broken = |error: serde_json::Error| Failure::new("cannot make JSON").caused_by(&error);
    let connection = Connection::reopen(args).await?;
    let text = serde_json::to_string_pretty(status).map_err(broken)?;
    term::write(text.trim_end().trim_end_matches('}').trim_end().as_bytes())?;
    term::write(b",\n  \"subscriptions\": [")?;
    let mut is_first = true;
    connection
        .subscriptions(|entries| {
            let mut text = String::new();
            for entry in &entries {
                text.push_str(if std::mem::take(&mut is_first) { "\n    " } else { ",\n    " });
                text.push_str(&serde_json::to_string(entry).map_err(broken)?);
            }
            term::write(text.as_bytes()).map(drop)
        })
        .await?;
    term::write(b"\n  ]\n}\n").map(drop)
}

/// Prints a status for people.
pub(super) fn print(args: &Args, status: &Status) -> Result<u8, Failure> {
    show(args, status, &[])
}

fn show(args: &Args, status: &Status, listed: &[SubscriptionEntry]) -> Result<u8, Failure> {
    args.print(&render(status, term::use_colour(&io::stdout()), listed))
}

/// A status for people.
fn render(status: &Status, colour: bool, listed: &[SubscriptionEntry]) -> String {
    let paint = |code: &str, text: &str| {
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let out = RefCell::new(String::new());
    // For text with our own escape sequences for colours.
    let painted = |text: &str| {
        out.borrow_mut().push_str(text);
        out.borrow_mut().push('\n');
    };
    let mut line = |text: String| painted(&masked(&text));

    let (health, verdict) = status.verdict();
    let summary = match health {
        Health::Good => paint("1;32", &verdict),
        Health::Impaired => paint("1;33", &verdict),
        Health::Bad => paint("1;31", &verdict),
    };
    let up = duration(status.now.since(status.started_at));
    let waits: String = reasons(status).iter().map(|reason| format!("; {reason}")).collect();
    let (version, waits) = (masked(&status.version), masked(&waits));
    painted(&format!("eventsubd {version} (pid {}), up {up}: {summary}{waits}", status.pid));
    for problem in &status.problems {
        painted(&format!("{} {}: {}", paint("1;31", "!"), masked(&problem.part), masked(&problem.message)));
        if !problem.hint.is_empty() {
            line(format!("  hint: {}", problem.hint));
        }
    }

    line(String::new());
    line(format!("config         {}", config(status)));
    let sandbox = if status.config.sandbox { ", of the sandbox" } else { "" };
    line(format!("state          {}{sandbox}", status.config.state_directory));
    if let Some(cluster) = &status.cluster {
        line(format!("cluster        {}", hosts(cluster)));
    }
    line(format!("token          {}", token(status)));
    line(format!("api            {}", api(status)));
    line(format!("conduit        {}", conduit(status)));
    let (down, up): (Vec<_>, Vec<_>) = status.shards.iter().partition(|shard| !shard.state.delivers());
    for shard in down.iter().chain(&up).take(LISTED) {
        line(shard_line(shard, status.now));
    }
    if status.shards.len() > LISTED {
        line(format!(
            "               … and {} more shards: see `eventsubd status --json`",
            status.shards.len() - LISTED
        ));
    }
    if let Some(shards) = status.cluster.as_ref().and_then(shards_elsewhere) {
        line(format!("elsewhere      {shards}"));
    }
    if let Some(reconnects) = reconnects(status) {
        line(format!("reconnects     {reconnects}"));
    }
    if let Some(webhook) = &status.webhook {
        webhook_lines(webhook, &mut line);
    }
    if let Some(page) = &status.authorize {
        line(format!("invites        {}", invites(page)));
    }
    line(format!("subscriptions  {}", subscriptions(status)));
    line(format!("reconciled     {}", reconciled(status)));
    line(format!("received       {}", received(status)));
    if let Some(gaps) = gaps(status) {
        line(format!("gaps           {gaps}"));
    }
    if let Some(catch_up) = status.gaps.catch_up.as_ref() {
        line(format!("catch-up       {}", catch_up.in_words(status.now)));
    }
    line(format!("store          {}", store(status)));
    for sink in &status.sinks {
        line(sink_line(sink, status.now));
    }

    if let Some(admin) = &status.admin {
        let token = if admin.token { ", needs the token" } else { "" };
        line(format!("page           http://{}/{token}", admin.listen));
    }

    let wanting: Vec<_> = status.reconcile.grants.iter().filter(|user| !user.missing.is_empty()).collect();
    if !wanting.is_empty() {
        line(String::new());
        painted(&paint("1", "Missing grants:"));
        for user in wanting.iter().take(LISTED) {
            line(grant_line(user));
        }
        if wanting.len() > LISTED {
            line(format!("  … and {} more: see `eventsubd status --json`", wanting.len() - LISTED));
        }
        line("  `eventsubd authorize --missing` asks for all of them".to_owned());
    }
    let counts = &status.subscription_counts;
    let parked = counts.parked + counts.own_parked;
    if parked > 0 {
        line(String::new());
        painted(&paint("1", &format!("Parked subscriptions{}:", obstacles(counts))));
        let shown = status.parked.iter().take(LISTED);
        let more = parked.saturating_sub(shown.len() as u64);
        for entry in shown {
            painted(&parked_line(entry, status.now));
        }
        if more > 0 {
            line(format!("  … and {more} more: see `eventsubd status --json --subscriptions`"));
        }
    }
    let others: Vec<_> = listed.iter().filter(|s| !s.own && s.state != SubscriptionState::Parked).collect();
    if !others.is_empty() {
        line(String::new());
        painted(&paint("1", "Subscriptions:"));
        let width = others.iter().map(|entry| entry.key.subscription_type.len()).max().unwrap_or_default();
        for entry in others {
            line(subscription_line(entry, width));
        }
    } else if counts.total > LISTED as u64 {
        line("  `eventsubd status --subscriptions` lists all of them".to_owned());
    }
    out.into_inner()
}

/// The shards of the other hosts of the cluster; `None` if they have none.
fn shards_elsewhere(cluster: &ClusterStatus) -> Option<String> {
    let is_other = |host: &&HostStatus| {
        host.name != cluster.host && host.state != HostState::Down && !host.shards.is_empty()
    };
    let others = cluster.hosts.iter().filter(is_other).take(LISTED);
    let shards: Vec<String> =
        others.map(|host| format!("shards {} on {}", host.shards_in_words(), host.name)).collect();
    (!shards.is_empty()).then(|| shards.join("; "))
}

/// The cluster in one line; `eventsubd hosts` has the table.
fn hosts(cluster: &ClusterStatus) -> String {
    let leader = match (&cluster.leader, cluster.role) {
        (_, Role::Leader) => format!("{} (this host) leads", cluster.host),
        (Some(leader), _) => format!("{leader} leads, {} (this host) stands by", cluster.host),
        (None, _) => format!("no host leads, {} (this host) stands by", cluster.host),
    };
    let up = cluster.hosts.iter().filter(|host| host.state == HostState::Up).count();
    let mut text = format!("{leader}; {up} of {} up", counted(cluster.hosts.len() as u64, "host"));
    if let Some(version) = &cluster.nats_version {
        let _ = write!(text, "; NATS {version}{}", if cluster.connected { "" } else { ", away" });
    }
    if cluster.forward.lag_events > 0 {
        let _ = write!(
            text,
            "; shared log {} behind ({})",
            counted(cluster.forward.lag_events, "event"),
            duration(Duration::from_secs(cluster.forward.lag_seconds))
        );
    }
    let differing: Vec<&str> = cluster
        .hosts
        .iter()
        .filter(|host| host.file_differs && host.state != HostState::Down)
        .map(|host| host.name.as_str())
        .collect();
    if !differing.is_empty() {
        let _ = write!(text, "; another file on {}", differing.join(", "));
    }
    text
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
    let mut text = format!("  {} {}", masked(&entry.key.subscription_type), masked(&whom(entry)));
    if let Some(reason) = &entry.reason {
        let _ = write!(text, "\n    {}", masked(reason));
    }
    if let Some(at) = entry.retry_at {
        let _ = write!(text, "\n    next try in {}", left(now, at));
    }
    text
}

fn subscription_line(entry: &SubscriptionEntry, width: usize) -> String {
    let kind = &entry.key.subscription_type;
    let state = match entry.state {
        SubscriptionState::Enabled => String::new(),
        state => format!("  ({})", word(&state)),
    };
    let reason = entry.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("  {kind:<width$}  {}{state}{reason}", whom(entry)).trim_end().to_owned()
}

/// Whom a subscription is about: the logins of the file if there are any, else the fields of the condition.
fn whom(entry: &SubscriptionEntry) -> String {
    if !entry.logins.is_empty() {
        return entry.logins.as_slice().join(", ");
    }
    let fields = entry.key.condition.iter().map(|(name, value)| format!("{name}={value}"));
    fields.collect::<Vec<_>>().join(" ")
}

/// How many wait for what, when they are too many to be listed.
fn obstacles(counts: &SubscriptionCounts) -> String {
    if counts.parked <= LISTED as u64 || counts.obstacles.is_empty() {
        return String::new();
    }
    let obstacles: Vec<String> =
        counts.obstacles.iter().map(|(what, count)| format!("{count} {}", what.name())).collect();
    format!(" ({})", obstacles.join(", "))
}

fn config(status: &Status) -> String {
    let config = &status.config;
    let loaded = ago(status.now, config.loaded_at);
    let mut text = format!("{}, generation {}, loaded {loaded}", config.path, config.generation);
    if let Some(refused) = &config.refused {
        let _ = write!(text, "; an edit was refused {}", ago(status.now, refused.at));
    }
    if config.generation > 1 || config.reloads_refused > 0 {
        let accepted = config.generation.saturating_sub(1);
        let _ = write!(text, "; reloads: {accepted} accepted, {} refused", config.reloads_refused);
    }
    text
}

fn shard_line(shard: &ShardStatus, now: Timestamp) -> String {
    let mut text =
        format!("shard {:<8} {} for {}", shard.shard.0, word(&shard.state), duration(now.since(shard.since)));
    let _ = write!(text, ", {}", counted(shard.events, "event"));
    if shard.losses > 0 {
        let _ = write!(text, ", lost its connection {}", times(shard.losses));
    }
    if shard.reconnects > 0 {
        let _ = write!(text, ", moved {} as Twitch asked", times(shard.reconnects));
    }
    text
}

/// Times in which events may have been missed since the start; `None` if there were none.
fn gaps(status: &Status) -> Option<String> {
    let gaps = &status.gaps;
    let told: u64 = gaps.told.values().sum();
    let last = gaps.recent.first().map(|gap| {
        let long = duration(gap.to.since(gap.from));
        format!(
            "{}, the last of {long} {}: {}{}",
            counted(told, "gap"),
            ago(status.now, gap.to),
            gap.reason.sentence(),
            gap.mended.map_or_else(String::new, |events| format!(" ({})", mended(events)))
        )
    });
    let open = gaps.open.map(|open| {
        format!(
            "events may be missed for {} now: {}",
            duration(status.now.since(open.since)),
            open.reason.sentence()
        )
    });
    let parts: Vec<String> = open.into_iter().chain(last).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn times(number: u64) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}

/// Formats the causes of reconnects, most frequent first.
fn reconnects(status: &Status) -> Option<String> {
    let mut causes: Vec<_> = status.intake.reconnects.iter().filter(|(_, count)| **count > 0).collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let text: Vec<String> = causes.iter().map(|(cause, count)| format!("{count} {}", word(cause))).collect();
    (!text.is_empty()).then(|| text.join(", "))
}

fn webhook_lines(webhook: &WebhookStatus, line: &mut impl FnMut(String)) {
    let tls = if webhook.tls { " with TLS" } else { "" };
    line(format!("webhook        {}, listening on {}{tls}", webhook.callback, webhook.listen));
    let mut text = format!("               {}", counted(webhook.requests, "request"));
    let _ = write!(text, ", {}", counted(webhook.challenges, "challenge"));
    let _ = write!(text, ", {} open", counted(webhook.connections, "connection"));
    if webhook.evicted > 0 {
        let _ = write!(text, ", {} closed to make room", webhook.evicted);
    }
    if webhook.keys > 1 {
        let _ = write!(text, ", {} secrets accepted while one is replaced", webhook.keys);
    }
    if webhook.unavailable > 0 {
        let _ = write!(text, ", {} answered 503", webhook.unavailable);
    }
    if let Some(skew) = webhook.clock_skew_seconds.filter(|skew| *skew != 0) {
        let side = if skew > 0 { "ahead of" } else { "behind" };
        let _ = write!(text, ", Twitch's clock {} s {side} ours", skew.unsigned_abs());
    }
    line(text);
    let rejected = webhook.rejected.iter().filter(|(_, count)| **count > 0);
    let mut rejected: Vec<String> = rejected.map(|(reason, count)| format!("{count} for {reason}")).collect();
    if webhook.stale > 0 {
        rejected.push(format!("{} too old", webhook.stale));
    }
    if !rejected.is_empty() {
        line(format!("               rejected: {}", rejected.join(", ")));
    }
}

fn invites(page: &InviteStatus) -> String {
    let mut text = page.redirect_uri.clone();
    match &page.listen {
        Some(listen) => drop(write!(text, ", listening on {listen}")),
        None => text.push_str(", by the webhook's listener"),
    }
    let _ = write!(text, ", {} open, {} granted", counted(page.visits, "visit"), page.granted);
    for (count, what) in [
        (page.declined, "declined"),
        (page.unfinished, "unfinished"),
        (page.refused, "refused"),
        (page.limited, "turned away"),
        (page.failed, "failed"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    if page.evicted > 0 {
        let _ = write!(text, ", {} closed to make room", counted(page.evicted, "connection"));
    }
    text
}

fn received(status: &Status) -> String {
    let intake = &status.intake;
    let mut text = counted(intake.received, "event");
    for (count, what) in [
        (intake.stored, "stored"),
        (intake.duplicates, "twice"),
        (intake.doubles, "under two ids"),
        (intake.malformed, "malformed"),
        (intake.unknown, "of unknown types"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    if intake.revocations > 0 {
        let _ = write!(text, ", {}", counted(intake.revocations, "revocation"));
    }
    text
}

fn store(status: &Status) -> String {
    let store = &status.store;
    let (used, most) = (size(store.size), size(store.max_size));
    let mut text = format!("{}, {used} of {most}, newest {}", counted(store.events, "event"), store.last_seq);
    if let Some(mean) = store.commits.total_micros.checked_div(store.commits.count) {
        let _ = write!(text, ", {}.{} ms per commit", mean / 1_000, mean % 1_000 / 100);
    }
    if store.commit_failures > 0 {
        let _ = write!(text, ", {} failed", counted(store.commit_failures, "commit"));
    }
    text
}

fn sink_line(sink: &SinkStatus, now: Timestamp) -> String {
    let name = sink.name.as_str();
    let mut text = format!("sink {name:<9} {}", sink.kind);
    if sink.kind != "stdout" {
        let _ = write!(text, " to {}", sink.receiver);
    }
    if sink.types.iter().any(|glob| glob != "*") {
        let _ = write!(text, " ({})", sink.types.join(" "));
    }
    let _ = write!(text, ", {}, {} delivered", word(&sink.state), sink.delivered);
    if let Some(at) = sink.last_success {
        let _ = write!(text, " ({}/min), the last {}", sink.per_minute, ago(now, at));
    }
    if let Some(at) = sink.next_try {
        let _ = write!(text, ", next try in {}", left(now, at));
    }
    if sink.lag_events > 0 {
        let _ = write!(
            text,
            ", {} behind ({})",
            sink.lag_events,
            duration(Duration::from_secs(sink.lag_seconds))
        );
    }
    if sink.in_flight > 0 {
        let _ = write!(text, ", {} in flight", sink.in_flight);
    }
    if sink.retries > 0 {
        let _ = write!(text, ", {} tries failed", sink.retries);
    }
    if sink.dead_letters > 0 {
        let _ = write!(text, ", {}", counted(sink.dead_letters, "dead letter"));
    }
    if sink.lost > 0 {
        let _ = write!(text, ", {} lost", sink.lost);
    }
    text
}

fn token(status: &Status) -> String {
    let mut text = word(&status.token.state);
    if let Some(at) = status.token.expires_at {
        let _ = write!(text, ", expires in {}", duration(at.since(status.now)));
    }
    if let Some(at) = status.token.validated_at {
        let _ = write!(text, ", validated {}", ago(status.now, at));
    }
    let _ = write!(text, ", {} minted", status.token.mints);
    let failed = status.token.mints_failed + status.token.mints_refused;
    if failed > 0 {
        let _ = write!(text, ", {} failed", counted(failed, "request"));
    }
    text
}

fn api(status: &Status) -> String {
    let mut text = counted(status.api.requests, "request");
    let silent: u64 = status.api.answers.values().filter_map(|answers| answers.get("none")).sum();
    if silent > 0 {
        let _ = write!(text, ", {silent} without an answer");
    }
    if let (Some(remaining), Some(limit)) = (status.api.remaining, status.api.limit) {
        let _ = write!(text, ", {remaining} of {limit} points of the rate limit left");
    }
    if status.api.rate_limited > 0 {
        let _ = write!(text, ", {} answered 429", status.api.rate_limited);
    }
    text
}

fn conduit(status: &Status) -> String {
    match &status.reconcile.conduit {
        Some(conduit) => format!("{}, {}", conduit.id, counted(conduit.shard_count.into(), "shard")),
        None if status.webhook.is_some() => "none: webhooks need none".to_owned(),
        None => "none yet".to_owned(),
    }
}

fn subscriptions(status: &Status) -> String {
    let counts = &status.subscription_counts;
    let mut text = counts.total.to_string();
    for (count, state) in
        [(counts.enabled, "enabled"), (counts.pending, "pending"), (counts.parked, "parked")]
    {
        if count > 0 {
            let _ = write!(text, ", {count} {state}");
        }
    }
    if counts.own > 0 {
        let _ = write!(text, "; {} of the daemon's own, for news of grants and shards", counts.own);
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

#[cfg(test)]
mod tests;
