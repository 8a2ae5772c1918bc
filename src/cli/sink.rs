//! `eventsubd sink`: commands for one sink.

use std::time::SystemTime;

use globset::Glob;

use super::BAD_CONFIG;
use super::args::{Args, SinkCommand, SinkListArgs, SinkNameArgs, SinkTestArgs};
use super::control::{Connection, block_on, parse};
use super::target::load_options;
use super::term::{self, Failure};
use crate::admin::{Refused, SkippedEvent};
use crate::config::{self, Config};
use crate::daemon;
use crate::model::catalog;
use crate::model::event::{Event, GAP, REVOCATION};
use crate::model::status::SinkStatus;
use crate::model::subscription::{Condition, FieldValue, SubscriptionSpec};
use crate::model::text::word;
use crate::model::time::Timestamp;
use crate::samples::{self, SampleRequest, SampleUser};

/// User id in samples.
const SAMPLE_USER: &str = "12826";

/// `eventsubd sink`
pub(super) fn run(args: &Args, command: &SinkCommand) -> Result<u8, Failure> {
    match command {
        SinkCommand::List(flags) => return list(args, flags),
        SinkCommand::Test(flags) => return test(args, flags),
        SinkCommand::Retry(SinkNameArgs { name }) => {
            ask(args, "retry", name)?;
            args.say(&format!("sink {name} tries again now; `eventsubd status` shows how it goes"));
        }
        SinkCommand::Skip(SinkNameArgs { name }) => {
            let SkippedEvent { seq, subscription_type } = parse(&ask(args, "skip", name)?)?;
            args.say(&format!(
                "event {seq} ({subscription_type}) is now in the dead letters of sink {name}; \
                 `eventsubd dead-letters list --sink {name}` shows it"
            ));
        }
    }
    Ok(0)
}

fn ask(args: &Args, what: &str, name: &str) -> Result<Vec<u8>, Failure> {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("sink", name).finish();
    let path = format!("/sinks/{what}?{query}");
    let (status, body) = block_on(async { Connection::open(args).await?.post(&path).await })?;
    if status.is_success() {
        return Ok(body);
    }
    let refused: Refused = parse(&body)?;
    Err(Failure::new(refused.error).hint("`eventsubd status` lists the sinks"))
}

fn list(args: &Args, flags: &SinkListArgs) -> Result<u8, Failure> {
    let status = block_on(async { Connection::open(args).await?.status().await })?;
    if flags.json {
        return term::write_json(&status.sinks);
    }
    args.print(&table(&status.sinks))
}

fn table(sinks: &[SinkStatus]) -> String {
    let mut rows =
        vec![["NAME", "TYPE", "STATE", "DELIVERED", "BEHIND", "DEAD LETTERS", "PROBLEM"].map(str::to_owned)];
    rows.extend(sinks.iter().map(|sink| {
        [
            sink.name.to_string(),
            sink.kind.clone(),
            word(&sink.state),
            sink.delivered.to_string(),
            sink.lag_events.to_string(),
            sink.dead_letters.to_string(),
            sink.problem.clone().unwrap_or_default(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn test(args: &Args, flags: &SinkTestArgs) -> Result<u8, Failure> {
    let loaded = config::load(&load_options(args))
        .map_err(|errors| Failure::verbatim(errors.to_string()).code(BAD_CONFIG))?;
    let config = loaded.config;
    let name = flags.name.as_str();
    let sample = sample(&config, name, flags.subscription_type.as_deref())?;
    let subscription_type = sample.subscription_type.clone();
    if flags.dry_run {
        let mut text = daemon::preview_sink(&config, name, sample).map_err(Failure::new)?;
        text.push('\n');
        return args.print(&text);
    }
    block_on(async { daemon::try_sink(&config, name, sample).await.map_err(Failure::new) })?;
    args.say(&format!("sink {name} has taken a sample event of the type {subscription_type}"));
    Ok(0)
}

/// Returns a sample event of the type, or of the first type that the sink gets.
fn sample(config: &Config, name: &str, wanted: Option<&str>) -> Result<Event, Failure> {
    let sink = config.sinks.iter().find(|(known, _)| known.as_str() == name).map(|(_, sink)| sink);
    let sink = sink.ok_or_else(|| {
        let known: Vec<&str> = config.sinks.keys().map(|name| name.as_str()).collect();
        Failure::new(format!("there is no sink {name} in the configuration"))
            .hint(format!("there is {}", known.join(", ")))
    })?;
    let matches = |subscription_type: &str| {
        let globs = sink.types.iter().filter_map(|glob| Glob::new(glob).ok());
        globs.map(|glob| glob.compile_matcher()).any(|glob| glob.is_match(subscription_type))
    };
    let routed = |spec: &&SubscriptionSpec| {
        spec.sinks.as_ref().is_none_or(|sinks| sinks.iter().any(|sink| sink.as_str() == name))
    };
    let listed = || config.subscriptions.iter();
    let spec = match wanted {
        Some(GAP) => return Ok(samples::gap(Timestamp(SystemTime::now()))),
        Some(REVOCATION) | None => listed().filter(routed).find(|spec| matches(&spec.subscription_type)),
        Some(wanted) => listed().find(|spec| &*spec.subscription_type == wanted),
    };
    let (subscription_type, version, condition) = match (spec, wanted) {
        (Some(spec), _) => {
            let fields = spec.condition.iter().map(|(name, value)| match value {
                FieldValue::Literal(text) => (&**name, &**text),
                FieldValue::Login(_) => (&**name, SAMPLE_USER),
            });
            (&*spec.subscription_type, &*spec.version, Condition::from_pairs(fields))
        }
        (None, Some(wanted)) if wanted != REVOCATION => {
            let row = catalog::default_version(wanted).ok_or_else(|| {
                Failure::new(format!("there is no type {wanted}"))
                    .hint("`eventsubd types` lists them")
                    .code(2)
            })?;
            let fields = row.condition.keys().map(|field| (field.as_str(), SAMPLE_USER));
            (row.name.as_str(), row.version.as_str(), Condition::from_pairs(fields))
        }
        (None, _) => {
            return Err(Failure::new(format!("no subscription of the file goes to sink {name}"))
                .hint("`--type TYPE` sends a sample of any type"));
        }
    };
    let now = Timestamp(SystemTime::now());
    let user =
        |id: &str| SampleUser { id: id.to_owned(), login: format!("user_{id}"), name: format!("User_{id}") };
    let request = SampleRequest {
        subscription_type,
        version,
        condition: &condition,
        user: &user,
        now,
        // Part of the message id: a receiver that deduplicates must accept a second test.
        serial: now.unix_millis(),
        happening: None,
    };
    Ok(match wanted {
        Some(REVOCATION) => samples::revocation(&request),
        _ => samples::message(&request, &samples::event(&request)),
    })
}
