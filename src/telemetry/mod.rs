//! Logging set-up: destination, format and filter of log lines; and the metrics.
//!
//! Owns the process's one subscriber, and nothing else: a daemon inside a test logs to the subscriber that the test
//! has set up, or nowhere. Lines go to stderr or to the journal; stdout belongs to data.

#[cfg(test)]
mod capture;
mod fields;
mod journal;
mod json;
mod limit;
pub mod metrics;
mod outage;
mod publish;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;

use tracing_subscriber::filter::{FilterExt, LevelFilter};
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, filter, fmt, reload};

use self::journal::Journal;
use self::json::JsonLines;
pub use self::limit::LogLimit;
pub use self::outage::{Lasting, Outage};
pub use self::publish::Publish;
use crate::model::invocation::Invocation;
use crate::model::mode::LogFormat;

/// Crates whose lines are logged. Lines of every other library are dropped at any level: `async_nats`, for example,
/// logs the password that it sends and the server's replies, control characters included.
const LOGGED: [&str; 3] = ["eventsubd", "hyper", "hyper_util"];

/// Returns whether lines of this target may be logged.
fn is_logged(target: &str) -> bool {
    LOGGED.contains(&target.split("::").next().unwrap_or_default())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Directives in `tracing`'s filter syntax, for example `info,eventsubd::store=debug`.
    pub level: String,
    /// Directives from the environment, which replace `level` for the life of the process.
    pub fixed: Option<String>,
    pub format: LogFormat,
    /// How people run further commands for this daemon; text and journal lines complete the commands in them.
    pub invocation: Invocation,
}

/// Error from setting up logging or changing its level.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "the log level `{level}` is not a filter; write for example `info` or `info,eventsubd::store=debug`"
    )]
    Level {
        level: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error(
        "`log.format` is `journald`, and no journal listens on {}; set it to `auto`, `text` or `json`",
        journal::SOCKET
    )]
    Journal(#[source] io::Error),
    /// The process has a subscriber already, or has lost it.
    #[error("the log of this process is set up already")]
    Taken,
}

/// Changes the level of a running process.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    fixed: Option<Arc<str>>,
}

impl LogHandle {
    /// Applies the directives of a configuration, or those of the environment if it has some.
    ///
    /// # Errors
    /// The directives do not parse; the old ones stay.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        self.set_filter(self.fixed.as_deref().unwrap_or(level))
    }

    /// Applies other directives until [`Self::set_level`] is called again.
    ///
    /// # Errors
    /// The directives do not parse; the old ones stay.
    pub fn set_filter(&self, filter: &str) -> Result<(), LogError> {
        self.filter.reload(parse(filter)?).map_err(|_| LogError::Taken)
    }

    /// Returns the active directives.
    ///
    /// # Errors
    /// The process has lost its subscriber.
    pub fn filter(&self) -> Result<String, LogError> {
        self.filter.with_current(ToString::to_string).map_err(|_| LogError::Taken)
    }
}

fn parse(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(level).map_err(|source| LogError::Level { level: level.to_owned(), source })
}

/// Selects lines by their target and level, and every span: a span that was left out when it was created would be
/// missing after the level has changed, and its fields in warnings too. Spans have the level ERROR, which keeps the
/// hint for the highest level that of the lines.
fn selection(levels: reload::Layer<EnvFilter, Registry>) -> impl Filter<Registry> {
    let spans = filter::filter_fn(|metadata| metadata.is_span()).with_max_level_hint(LevelFilter::ERROR);
    let ours = filter::filter_fn(|metadata| is_logged(metadata.target()));
    ours.with_max_level_hint(LevelFilter::TRACE).and(spans.or(levels))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stderr {
    Terminal,
    Journal,
    Other,
}

fn stderr() -> Stderr {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let here = rustix::fs::fstat(io::stderr()).map(|stat| (stat.st_dev, stat.st_ino));
    match here {
        _ if io::stderr().is_terminal() => Stderr::Terminal,
        Ok((device, inode)) if is_journal(stream.as_deref(), device, inode) => Stderr::Journal,
        _ => Stderr::Other,
    }
}

/// Returns whether stderr is the stream that `JOURNAL_STREAM` names by device and inode ("systemd.exec"). The
/// variable alone proves nothing: children with redirected output inherit it.
fn is_journal(variable: Option<&str>, device: u64, inode: u64) -> bool {
    let Some((left, right)) = variable.and_then(|text| text.split_once(':')) else { return false };
    left.parse() == Ok(device) && right.parse() == Ok(inode)
}

/// Sets up logging for this process.
///
/// # Errors
/// The directives do not parse, no journal listens, or logging is set up already.
pub fn init(options: &LogOptions) -> Result<LogHandle, LogError> {
    let fixed: Option<Arc<str>> = options.fixed.as_deref().map(Into::into);
    let (filter, handle) = reload::Layer::new(parse(fixed.as_deref().unwrap_or(&options.level))?);
    let stderr = stderr();
    let journal = || Journal::at(Path::new(journal::SOCKET), options.invocation.clone());
    let journal = match options.format {
        LogFormat::Journald => Some(journal().map_err(LogError::Journal)?),
        // A journal without the native socket (in a container, for example) still accepts text on stderr.
        LogFormat::Auto if stderr == Stderr::Journal => journal().ok(),
        LogFormat::Auto | LogFormat::Text | LogFormat::Json => None,
    };
    let colour =
        stderr == Stderr::Terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = || {
        fmt::layer().fmt_fields(fields::text(options.invocation.clone())).with_writer(io::stderr).compact()
    };
    let layer = match journal {
        Some(journal) => journal.boxed(),
        None if options.format == LogFormat::Json => {
            fmt::layer().with_writer(io::stderr).json().event_format(JsonLines).boxed()
        }
        // The journal adds the time to each line itself.
        None if stderr == Stderr::Journal => text().with_ansi(false).without_time().boxed(),
        None => text().with_ansi(colour).boxed(),
    };
    let layer = layer.with_filter(selection(filter));
    tracing_subscriber::registry().with(layer).try_init().map_err(|_| LogError::Taken)?;
    Ok(LogHandle { filter: handle, fixed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_level_is_refused_with_an_example() {
        let error = parse("eventsubd=shouting").expect_err("not a level");
        assert!(error.to_string().contains("`eventsubd=shouting`"), "{error}");
        assert!(parse("info,eventsubd::store=debug").is_ok());
    }

    #[test]
    fn lines_of_libraries_that_repeat_what_servers_say_are_never_logged() {
        for (target, logged) in [
            ("eventsubd", true),
            ("eventsubd::delivery::sink::nats", true),
            ("hyper_util::client", true),
            ("async_nats", false),
            ("async_nats::connector", false),
            ("eventsubd_other", false),
            ("", false),
        ] {
            assert_eq!(is_logged(target), logged, "{target}");
        }
    }

    #[test]
    fn spans_keep_their_fields_at_every_level_and_after_it_has_changed() {
        let captured = capture::Captured::default();
        let out = captured.clone();
        let (levels, handle) = reload::Layer::new(parse("off").unwrap());
        let log = LogHandle { filter: handle, fixed: None };
        let layer = fmt::layer()
            .fmt_fields(fields::text(Invocation::default()))
            .with_writer(move || out.clone())
            .with_ansi(false)
            .without_time()
            .compact()
            .with_filter(selection(levels));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _span = tracing::error_span!("sink", sink = %"web\nx").entered();
            tracing::error!("left out");
            log.set_level("warn").unwrap();
            tracing::warn!(attempt = 2, "sink failed");
            tracing::info!("left out");
        });
        assert_eq!(
            captured.text(),
            " WARN sink: eventsubd::telemetry::tests: sink failed attempt=2 sink=web\\nx\n"
        );
    }

    #[test]
    fn stderr_is_the_journal_if_device_and_inode_match() {
        assert!(is_journal(Some("8:1234"), 8, 1234));
        for other in
            [None, Some(""), Some("8"), Some("8:1235"), Some("9:1234"), Some("8:1234:1"), Some("a:b")]
        {
            assert!(!is_journal(other, 8, 1234), "{other:?}");
        }
    }

    #[test]
    fn a_filter_lasts_until_the_level_is_set_and_the_environment_wins() {
        let handle = |fixed: Option<&str>| {
            let (layer, filter) = reload::Layer::new(parse("info").unwrap());
            (layer, LogHandle { filter, fixed: fixed.map(Into::into) })
        };
        let (_layer, log) = handle(None);
        log.set_filter("debug").unwrap();
        assert_eq!(log.filter().unwrap(), "debug");
        assert!(log.set_filter("a=b=c").is_err());
        assert_eq!(log.filter().unwrap(), "debug", "the old one stays");
        log.set_level("warn").unwrap();
        assert_eq!(log.filter().unwrap(), "warn");

        let (_layer, log) = handle(Some("error"));
        log.set_filter("debug").unwrap();
        log.set_level("warn").unwrap();
        assert_eq!(log.filter().unwrap(), "error");
    }
}
