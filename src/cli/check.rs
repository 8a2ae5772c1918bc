//! `eventsubd check`: the whole file, offline; with `--online` Twitch is asked as well.

use std::collections::BTreeSet;
use std::io;

use serde::Serialize;

use super::args::{Args, CheckArgs};
use super::control::block_on;
use super::plan::{Api, desired, exit_code, explain};
use super::target::load_options;
use super::term::{self, Failure, fit};
use super::{BAD_CONFIG, FAILED};
use crate::config::{self, Config, Diagnostic, Listen, LoadOptions, Method, ShardTransport};
use crate::daemon::Owner;
use crate::model::grants;
use crate::model::text::{counted, duration};
use crate::store::Reader;
use crate::{daemon, reconcile};

/// Logins in one Get Users request (Twitch: "Get Users").
const LOGINS_A_REQUEST: usize = 100;

/// Missing grants that are listed one by one.
const LISTED: usize = 20;

/// How one part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Mark {
    Good,
    Remark,
    Bad,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Line {
    part: &'static str,
    mark: Mark,
    text: String,
}

/// Everything that `check` found.
#[derive(Debug, Serialize)]
struct Report {
    path: String,
    valid: bool,
    parts: Vec<Line>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

/// `eventsubd check`
pub(super) fn run(args: &Args, flags: &CheckArgs) -> Result<u8, Failure> {
    let options = load_options(args);
    let path = options.path.display().to_string();
    let (mut report, config) = match config::load(&options) {
        Ok(loaded) => {
            let mut parts = parts(&loaded.config);
            parts.extend(owner(&options, &loaded.config));
            let valid = parts.iter().all(|line| line.mark != Mark::Bad);
            (Report { path, valid, parts, errors: vec![], warnings: loaded.warnings }, Some(loaded.config))
        }
        Err(found) => {
            let report =
                Report { path, valid: false, parts: vec![], errors: found.errors, warnings: found.warnings };
            (report, None)
        }
    };
    let mut code = if report.valid { 0 } else { BAD_CONFIG };
    if flags.online
        && report.valid
        && let Some(config) = &config
    {
        let (lines, online_code) = block_on(online(config))?;
        report.valid = lines.iter().all(|line| line.mark != Mark::Bad);
        report.parts.extend(lines);
        code = online_code;
    }
    if flags.json {
        term::write_json(&report)?;
    } else {
        let text = render(&report, term::colour(&io::stdout()));
        term::write(args.invocation().complete(&text).as_bytes())?;
    }
    Ok(code)
}

/// A state directory that belongs to another file. One that this user may not read tells nothing.
fn owner(options: &LoadOptions, config: &Config) -> Option<Line> {
    let reader = Reader::open(&daemon::database(config)).ok()?;
    let owned = Owner::of(options).look(&config.state_directory, &reader).ok()?.err()?;
    Some(line("state", Mark::Bad, format!("{owned}: {}", owned.advice())))
}

fn line(part: &'static str, mark: Mark, text: impl Into<String>) -> Line {
    Line { part, mark, text: text.into() }
}

/// A line for each part of a file that has no errors.
fn parts(config: &Config) -> Vec<Line> {
    let mut lines = vec![line(
        "twitch",
        Mark::Good,
        format!("client id {}, secret from {}", config.twitch.client_id, config.twitch.client_secret_source),
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
            bytesize::ByteSize(config.store.max_size)
        ),
    ));
    if let Some(admin) = &config.admin {
        let who = if admin.token.is_some() { "whoever has the token" } else { "this machine" };
        lines.push(line("admin", Mark::Good, format!("http://{}/ for {who}", admin.listen)));
    }
    lines
}

/// How events come in.
fn transport(config: &Config) -> Vec<Line> {
    let shards = match config.conduit.shard_transport {
        ShardTransport::WebSocket => counted(config.conduit.shards.into(), "WebSocket shard"),
        ShardTransport::Webhook => counted(config.conduit.shards.into(), "webhook shard"),
    };
    let text = match (config.method, &config.conduit.id) {
        (Method::Webhook, _) => "each subscription calls by itself".to_owned(),
        (Method::Conduit, Some(id)) => format!("the conduit {id}, {shards}"),
        (Method::Conduit, None) => format!("a conduit of its own, {shards}"),
    };
    let mut lines = vec![line("transport", Mark::Good, text)];
    if let Some(webhook) = &config.webhook {
        let listen = match webhook.listen {
            Listen::Address(address) => address.to_string(),
            Listen::Systemd => "the socket that systemd passes".to_owned(),
        };
        let tls = if webhook.tls.is_some() { "with TLS" } else { "TLS ends in front of it" };
        lines.push(line("webhook", Mark::Good, format!("{} -> {listen}, {tls}", webhook.callback)));
    }
    lines
}

/// Whether Twitch would reach the callback.
async fn callback(config: &Config) -> (Vec<Line>, u8) {
    let Some(webhook) = &config.webhook else { return (Vec::new(), 0) };
    let report = daemon::examine_callback(config, webhook).await;
    let mut code = 0;
    let mut mark = |good: bool| {
        if good {
            Mark::Good
        } else {
            code = FAILED;
            Mark::Bad
        }
    };
    let addresses = match &report.addresses {
        Ok(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Err(why) => why.clone(),
    };
    let challenge = match &report.challenge {
        Ok(took) => format!("{} answers the challenge, in {} ms", webhook.callback, took.as_millis()),
        Err(why) => why.clone(),
    };
    let lines = vec![
        line("dns", mark(report.addresses.is_ok()), addresses),
        line("callback", mark(report.challenge.is_ok()), challenge),
    ];
    (lines, code)
}

/// What Twitch says of the credentials and the logins.
async fn online(config: &Config) -> Result<(Vec<Line>, u8), Failure> {
    let api = Api::connect(config).await?;
    let mut lines = vec![line("credentials", Mark::Good, "Twitch accepts them")];
    let logins: BTreeSet<&str> =
        config.subscriptions.iter().flat_map(|s| s.logins()).map(AsRef::as_ref).collect();
    let logins: Vec<&str> = logins.into_iter().collect();
    let mut unknown: BTreeSet<&str> = logins.iter().copied().collect();
    for batch in logins.chunks(LOGINS_A_REQUEST) {
        let users = api.helix.users_by_login(batch).await.map_err(|error| {
            Failure::new("the logins could not be looked up").because(&error).code(exit_code(&error))
        })?;
        for user in &users.rows {
            unknown.remove(user.login.as_ref());
        }
    }
    lines.extend(missing_grants(config, &api).await?);
    let (called, code) = callback(config).await;
    lines.extend(called);
    if unknown.is_empty() {
        lines.insert(
            1,
            line("logins", Mark::Good, format!("{} known to Twitch", number(logins.len(), "login"))),
        );
        return Ok((lines, code));
    }
    let names: Vec<_> = unknown.into_iter().collect();
    lines.insert(1, line("logins", Mark::Bad, format!("Twitch knows nobody called {}", names.join(", "))));
    Ok((lines, FAILED))
}

/// Who has granted what is needed, and who has not. A missing grant is no error of the file.
async fn missing_grants(config: &Config, api: &Api) -> Result<Vec<Line>, Failure> {
    let desired = desired(config)?;
    let reconcile::Needs { users, remarks } =
        reconcile::who_must_grant(&api.helix, &desired, None).await.map_err(|error| explain(&error))?;
    let remarks = remarks.into_iter().map(|remark| line("grants", Mark::Remark, remark));
    if users.is_empty() {
        return Ok(remarks.collect());
    }
    let wanting: Vec<_> = users.iter().filter(|user| !user.missing.is_empty()).collect();
    if wanting.is_empty() {
        let good =
            line("grants", Mark::Good, format!("all that is needed of {}", number(users.len(), "user")));
        return Ok(std::iter::once(good).chain(remarks).collect());
    }
    let mut lines: Vec<Line> = wanting
        .iter()
        .take(LISTED)
        .map(|user| {
            let name = user.login.as_deref().unwrap_or(&user.user_id);
            let scopes = grants::list(&user.missing);
            line(
                "grants",
                Mark::Remark,
                format!("{name} must allow {scopes}: `eventsubd authorize --user {name}`"),
            )
        })
        .collect();
    if wanting.len() > LISTED {
        let more = format!("and {} more: `eventsubd authorize --missing`", wanting.len() - LISTED);
        lines.push(line("grants", Mark::Remark, more));
    }
    lines.extend(remarks);
    Ok(lines)
}

/// A length with its noun.
fn number(length: usize, noun: &str) -> String {
    counted(length as u64, noun)
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
        text.push_str(&format!("{mark} {:<14} {}\n", line.part, fit(&line.text)));
    }
    let bad = report.errors.len() + report.parts.iter().filter(|l| l.mark == Mark::Bad).count();
    let verdict = if report.valid { "is valid" } else { "cannot be used" };
    text.push_str(&format!(
        "{} {verdict}: {}, {}\n",
        fit(&report.path),
        number(bad, "error"),
        number(report.warnings.len(), "warning")
    ));
    text
}
