//! `eventsubd check`: validates the whole file, offline; with `--online` also against Twitch.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::Serialize;

use super::args::{Args, CheckArgs};
use super::catch_up;
use super::control::block_on;
use super::exit::{BAD_CONFIG, TEMPORARY};
use super::lines::{Line, Mark, line};
use super::online::online;
use super::service;
use super::target::{load_options, own_options};
use super::term::{self, Failure, masked};
use crate::config::{self, Config, Diagnostic, Listen, LoadOptions, Method, ShardTransport};
use crate::daemon::{self, Owner};
use crate::delivery::BEHIND;
use crate::model::catalog::CHAT_WITH_NOTICES;
use crate::model::grants::{self, Scopes};
use crate::model::mode::ShardCount;
use crate::model::subscription::{Condition, FieldValue, SubscriptionKey};
use crate::model::text::{counted, duration};
use crate::store::Reader;

/// Everything that `check` found.
#[derive(Debug, Serialize)]
struct Report {
    path: String,
    valid: bool,
    /// Whether Twitch could not be asked: that says nothing of the file.
    #[serde(skip)]
    is_unfinished: bool,
    parts: Vec<Line>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// Facts that surprise people; nothing is wrong.
    hints: Vec<String>,
}

pub(super) fn run(args: &Args, flags: &CheckArgs) -> Result<u8, Failure> {
    let options = load_options(args);
    let path = options.path.display().to_string();
    let (mut report, config) = match config::load(&options) {
        Ok(loaded) => {
            let mut parts = parts(&loaded.config);
            parts.extend(owner(&options, &loaded.config));
            parts.extend(left_behind(&loaded.config));
            // Within the service everything has been tried already.
            if own_options(args).env.get("STATE_DIRECTORY").is_none() {
                parts.extend(service::remarks(&options.path, &loaded));
            }
            let valid = parts.iter().all(|line| line.mark != Mark::Bad);
            let (errors, warnings, hints) = (vec![], loaded.warnings, hints(&loaded.config));
            let report = Report { path, valid, is_unfinished: false, parts, errors, warnings, hints };
            (report, Some(loaded.config))
        }
        Err(found) => {
            let report = Report {
                path,
                valid: false,
                is_unfinished: false,
                parts: vec![],
                errors: found.errors,
                warnings: found.warnings,
                hints: vec![],
            };
            (report, None)
        }
    };
    let mut code = if report.valid { 0 } else { BAD_CONFIG };
    if flags.online
        && report.valid
        && let Some(config) = &config
    {
        let (lines, online_code) = block_on(async { Ok(online(config, &options).await) })?;
        report.valid = lines.iter().all(|line| line.mark != Mark::Bad);
        report.parts.extend(lines);
        report.is_unfinished = online_code == TEMPORARY;
        code = online_code;
    }
    if flags.json {
        term::write_json(&report)?;
    } else {
        let text = render(&report, term::use_colour(&io::stdout()));
        args.print(&text)?;
    }
    Ok(code)
}

/// Reports a state directory that belongs to another file. An unreadable one gives no report.
fn owner(options: &LoadOptions, config: &Config) -> Option<Line> {
    let reader = Reader::open(&daemon::database(config)).ok()?;
    let owned = Owner::of(options).check(&config.state_directory, &reader).ok()?.err()?;
    Some(line("state", Mark::Bad, format!("{owned}: {}", owned.advice())))
}

/// Reports events that are still in the shared log of a cluster, if the file is without one.
fn left_behind(config: &Config) -> Option<Line> {
    if config.cluster.is_some() {
        return None;
    }
    let reader = Reader::open(&daemon::database(config)).ok()?;
    let (_, sinks) = reader.settings(BEHIND).ok()?.pop()?;
    let text = format!(
        "without `[cluster]` these sinks miss events that are still in the shared log: {sinks}. Put the section back, let \
         `eventsubd run` deliver them, and see `eventsubd status`"
    );
    Some(line("cluster", Mark::Bad, text))
}

/// A line for each part of a file that has no errors.
fn parts(config: &Config) -> Vec<Line> {
    let mut lines = vec![line(
        "twitch",
        Mark::Good,
        format!(
            "client id {}, secret from {}",
            config.application.client_id, config.application.client_secret_source
        ),
    )];
    lines.extend(transport(config));
    let types: BTreeSet<_> = config.subscriptions.iter().map(|s| &s.subscription_type).collect();
    let logins: BTreeSet<_> = config.subscriptions.iter().flat_map(|s| s.logins()).collect();
    let mark = if config.subscriptions.is_empty() { Mark::Remark } else { Mark::Good };
    lines.push(line(
        "subscriptions",
        mark,
        format!(
            "{} ({}, {})",
            number(config.subscriptions.len(), "subscription"),
            number(types.len(), "type"),
            number(logins.len(), "login")
        ),
    ));
    lines.extend(grants_needed(config));
    let problems = daemon::sink_problems(config).unwrap_or_else(|error| vec![error.to_string()]);
    if problems.is_empty() {
        let names: Vec<_> = config.sinks.keys().map(|name| name.as_str()).collect();
        lines.push(line("sinks", Mark::Good, names.join(", ")));
    }
    lines.extend(problems.iter().map(|problem| line("sinks", Mark::Bad, problem.as_str())));
    lines.push(line(
        "store",
        Mark::Good,
        format!(
            "{}, kept {}, at most {}",
            config.state_directory.display(),
            duration(config.store.retain),
            config.store.max_size
        ),
    ));
    if let Some(page) = &config.authorize {
        let who = match page.listen {
            Some(listen) => format!("{listen}, TLS is terminated by a proxy"),
            None => "the webhook's listener".to_owned(),
        };
        lines.push(line("authorize", Mark::Good, format!("{} -> {who}", page.redirect_uri)));
    }
    lines.extend(catch_up::asks(config).into_iter().map(|text| line("catch-up", Mark::Good, text)));
    if let Some(cluster) = &config.cluster {
        let host = cluster.host.as_deref().unwrap_or("named as this machine");
        lines.push(line("cluster", Mark::Good, format!("{}, this host is {host}", cluster.name)));
    }
    if let Some(admin) = &config.admin {
        let who = if admin.token.is_some() { "clients with the token" } else { "this machine" };
        lines.push(line("admin", Mark::Good, format!("http://{}/ for {who}", admin.listen)));
    }
    lines
}

/// Permissions that users have to grant for these subscriptions. Only Twitch knows whether they have.
fn grants_needed(config: &Config) -> Option<Line> {
    const NAMED: usize = 3;
    let mut users: BTreeMap<String, Scopes> = BTreeMap::new();
    for spec in config.subscriptions.iter() {
        // A login stands for the id that is not looked up here.
        let fields = spec.condition.iter().map(|(name, value)| match value {
            FieldValue::Literal(text) => (&**name, &**text),
            FieldValue::Login(login) => (&**name, &**login),
        });
        let key = SubscriptionKey::new(&spec.subscription_type, &spec.version, Condition::from_pairs(fields));
        for need in grants::needs(&key).into_iter().filter(|need| need.certain) {
            let scopes = need.groups.iter().filter_map(|group| group.first());
            users
                .entry(need.user_id.to_owned())
                .or_default()
                .extend(scopes.map(|scope| scope.as_str().into()));
        }
    }
    if users.is_empty() {
        return None;
    }
    let named: Vec<String> =
        users.iter().take(NAMED).map(|(user, scopes)| format!("{user} ({})", grants::list(scopes))).collect();
    let more = match users.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let who = if users.len() == 1 { "1 user has" } else { &format!("{} users have", users.len()) };
    let text = format!(
        "{who} to allow something: {}{more}; `eventsubd check --online` says who has",
        named.join(", ")
    );
    Some(line("grants", Mark::Good, text))
}

fn transport(config: &Config) -> Vec<Line> {
    let kind = match config.conduit.shard_transport {
        ShardTransport::WebSocket => "WebSocket shard",
        ShardTransport::Webhook => "webhook shard",
    };
    let shards = match (config.conduit.shards, &config.cluster) {
        (ShardCount::Auto, Some(_)) => format!("one {kind} for each host, at least 2"),
        (count, _) => counted(count.for_hosts(1).into(), kind),
    };
    let text = match (config.transport.method, &config.conduit.id) {
        (Method::Webhook, _) => "a callback for each subscription".to_owned(),
        (Method::Conduit, Some(id)) => format!("the conduit {id}, {shards}"),
        (Method::Conduit, None) => format!("its own conduit, {shards}"),
    };
    let mut lines = vec![line("transport", Mark::Good, text)];
    if let Some(webhook) = &config.webhook {
        let listen = match webhook.listen {
            Listen::Address(address) => address.to_string(),
            Listen::Systemd => "the socket that systemd passes".to_owned(),
        };
        let tls = if webhook.tls.is_some() { "with TLS" } else { "TLS is terminated by a proxy" };
        lines.push(line("webhook", Mark::Good, format!("{} -> {listen}, {tls}", webhook.callback)));
    }
    lines
}

/// Returns a length with its noun.
fn number(length: usize, noun: &str) -> String {
    counted(length as u64, noun)
}

/// Hints about what the file leaves out.
fn hints(config: &Config) -> Vec<String> {
    let mut hints = Vec::new();
    if let Some(page) = &config.authorize {
        hints.push(format!(
            "{} must be one of the OAuth Redirect URLs of the application at https://dev.twitch.tv/console/apps; `eventsubd \
             check --online` looks",
            page.redirect_uri
        ));
    }
    let has = |name: &str| config.subscriptions.iter().any(|spec| &*spec.subscription_type == name);
    if has("channel.chat.message") && !has("channel.chat.notification") {
        hints.push(format!("{CHAT_WITH_NOTICES}; the file lists the latter alone"));
    }
    hints
}

fn render(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    for diagnostic in report.errors.iter().chain(&report.warnings) {
        text.push_str(diagnostic.render(colour).trim_end());
        text.push_str("\n\n");
    }
    for line in &report.parts {
        let (mark, code) = match line.mark {
            Mark::Good => ("✓", "32"),
            Mark::Remark => ("!", "33"),
            Mark::Bad => ("✗", "31"),
        };
        let mark = if colour { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark.to_owned() };
        text.push_str(&format!("{mark} {:<14} {}\n", line.part, masked(&line.text)));
    }
    for hint in &report.hints {
        text.push_str(&format!("hint: {}\n", masked(hint)));
    }
    let bad = report.errors.len() + report.parts.iter().filter(|l| l.mark == Mark::Bad).count();
    let verdict = match (report.valid, report.is_unfinished) {
        (true, _) => "is valid",
        (false, true) => "could not be checked with Twitch",
        (false, false) => "cannot be used",
    };
    text.push_str(&format!(
        "{} {verdict}: {}, {}\n",
        masked(&report.path),
        number(bad, "error"),
        number(report.warnings.len(), "warning")
    ));
    text
}
