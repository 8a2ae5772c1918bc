//! `eventsubd sink`: commands for one sink.

use std::io;
use std::time::SystemTime;

use globset::Glob;

use super::BAD_CONFIG;
use super::args::{Args, SinkCommand, SinkListArgs, SinkNameArgs, SinkTestArgs};
use super::control::{Connection, block_on, parse};
use super::target::load_options;
use super::term::{self, Failure, fit_to, masked};
use crate::admin::{Refused, SkippedEvent};
use crate::config::{self, Config};
use crate::daemon;
use crate::model::catalog;
use crate::model::event::{Event, GAP, REVOCATION};
use crate::model::status::SinkStatus;
use crate::model::subscription::{Condition, FieldValue, SubscriptionSpec};
use crate::model::text::{count, left, word};
use crate::model::time::Timestamp;
use crate::samples::{self, SampleRequest, SampleUser};

/// User id in samples.
const SAMPLE_USER: &str = "12826";

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
    args.print(&table(&status.sinks, status.now, term::width(&io::stdout())))
}

/// Returns a row for each sink, and below it what may be long. No line is wider than the terminal, if there is one.
fn table(sinks: &[SinkStatus], now: Timestamp, columns: Option<usize>) -> String {
    let head = ["NAME", "TYPE", "STATE", "RATE", "DELIVERED", "BEHIND", "DEAD LETTERS"].map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(sinks.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let details = std::iter::once(Vec::new()).chain(sinks.iter().map(|sink| details(sink, now)));
    let mut text = String::new();
    for (row, details) in rows.iter().zip(details) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        for line in std::iter::once(line.trim_end()).chain(details.iter().map(String::as_str)) {
            text += &columns.map_or_else(|| masked(line), |columns| fit_to(line, columns));
            text.push('\n');
        }
    }
    text
}

fn row(sink: &SinkStatus) -> [String; 7] {
    [
        sink.name.to_string(),
        sink.kind.clone(),
        word(&sink.state),
        format!("{}/min", count(sink.per_minute)),
        count(sink.delivered),
        count(sink.lag_events),
        count(sink.dead_letters),
    ]
}

fn details(sink: &SinkStatus, now: Timestamp) -> Vec<String> {
    let all = sink.types.iter().all(|glob| glob == "*");
    let lines = [
        ("to", Some(sink.receiver.to_string()).filter(|_| sink.kind != "stdout")),
        ("types", Some(if all { "all".to_owned() } else { sink.types.join(" ") })),
        ("problem", sink.problem.clone()),
        ("next try", sink.next_try.map(|at| format!("in {}", left(now, at)))),
    ];
    lines.into_iter().filter_map(|(name, text)| Some(format!("  {name:<8}  {}", text?))).collect()
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

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::model::example;

    #[test]
    fn sinks_are_a_table_with_receiver_types_and_problem_below() {
        let mut sinks = example::status().sinks;
        let output = SinkStatus {
            kind: "stdout".to_owned(),
            types: ["*".to_owned()].into(),
            problem: None,
            next_try: None,
            ..sinks[0].clone()
        };
        sinks.push(output);
        let now = example::status().now;
        expect![[r#"
            NAME  TYPE    STATE     RATE   DELIVERED  BEHIND  DEAD LETTERS
            log   file    retrying  2/min  11         1       1
              to        /var/log/eventsubd/events.jsonl
              types     stream.* channel.raid
              problem   no space left on device
              next try  in 12 s
            log   stdout  retrying  2/min  11         1       1
              types     all
        "#]]
        .assert_eq(&table(&sinks, now, None));
        let narrow = table(&sinks, now, Some(24));
        assert!(narrow.lines().all(|line| line.width() <= 24), "{narrow}");
        assert!(narrow.contains("  to        /var/log/ev…\n"), "{narrow}");
    }
}
