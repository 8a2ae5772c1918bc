//! Logging set-up: where log lines go, how they look, and which of them are kept; and the metrics.
//!
//! Owns the process's one subscriber, and nothing else: a daemon that runs inside a test logs to
//! whatever the test has set up, or nowhere. Lines go to stderr; stdout belongs to data.

pub mod metrics;

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One line for people; in colour on a terminal without `NO_COLOR`.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which log lines are kept, and how they look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Directives in `tracing`'s filter syntax, for example `info,eventsubd::store=debug`.
    pub level: String,
    /// How lines look.
    pub format: Format,
}

/// Logging could not be set up, or its level not changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The directives do not parse.
    #[error(
        "the log level `{level}` is not a filter; write for example `info` or `info,eventsubd::store=debug`"
    )]
    Level {
        /// The directives.
        level: String,
        /// What is wrong with them.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has a subscriber already, or lost it.
    #[error("the log of this process is set up already")]
    Taken,
}

/// Changes the level of a running process.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogHandle {
    /// Puts other directives in force.
    ///
    /// # Errors
    /// Directives that do not parse; the old ones stay.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        self.filter.reload(parse(level)?).map_err(|_| LogError::Taken)
    }
}

fn parse(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(level).map_err(|source| LogError::Level { level: level.to_owned(), source })
}

/// Sets up the log of this process.
///
/// # Errors
/// Directives that do not parse, or a second call.
pub fn init(options: &LogOptions) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(parse(&options.level)?);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let registry = tracing_subscriber::registry().with(filter);
    let set = match options.format {
        // Under systemd the journal stamps each line itself.
        Format::Text if std::env::var_os("JOURNAL_STREAM").is_some() => registry
            .with(fmt::layer().with_writer(std::io::stderr).with_ansi(false).without_time())
            .try_init(),
        Format::Text => registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(colour)).try_init(),
        Format::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
        }
    };
    set.map_err(|_| LogError::Taken)?;
    Ok(LogHandle { filter: handle })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_level_says_what_a_good_one_looks_like() {
        let error = parse("eventsubd=shouting").expect_err("not a level");
        assert!(error.to_string().contains("`eventsubd=shouting`"), "{error}");
        assert!(parse("info,eventsubd::store=debug").is_ok());
    }
}
