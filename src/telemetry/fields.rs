//! Formatting of a log line's message and values as text.
//!
//! Every value is masked to one line here, because any of them may repeat text from Twitch, a receiver or an
//! anonymous client: a line break in a value would forge a log line, an escape sequence would control the terminal.

use std::fmt;

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use crate::model::invocation::Invocation;
use crate::model::text::{LONGEST_LINE, one_line};

/// Writes `message name=value name=value`; the names are italic if escape sequences are allowed. Commands of ours get the
/// flags of `invocation`.
pub(super) fn text(
    invocation: Invocation,
) -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(move |out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        write(out, field, &invocation.complete(&format!("{value:?}")))
    })
    .delimited(" ")
}

fn write(out: &mut Writer<'_>, field: &Field, value: &str) -> fmt::Result {
    let value = one_line(value, LONGEST_LINE);
    match field.name() {
        "message" => out.write_str(&value),
        name if out.has_ansi_escapes() => write!(out, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}"),
        name => write!(out, "{name}={value}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::fmt;

    use super::*;
    use crate::telemetry::capture::Captured;

    fn logged(ansi: bool, log: impl FnOnce()) -> String {
        let written = Captured::default();
        let out = written.clone();
        let subscriber = fmt::Subscriber::builder()
            .fmt_fields(text(Invocation::new(Some("a.toml".as_ref()), None)))
            .with_writer(move || out.clone())
            .with_ansi(ansi)
            .without_time()
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        written.text()
    }

    #[test]
    fn a_line_has_the_message_and_its_values() {
        let line = logged(false, || {
            tracing::warn!(sink = %"web", subscription_id = "f1c2", shard = 3, ok = true, "sink {}", "failed");
        });
        let expected = "sink failed sink=web subscription_id=\"f1c2\" shard=3 ok=true\n";
        assert!(line.trim_start().starts_with("WARN ") && line.ends_with(expected), "{line}");
        assert!(
            logged(true, || tracing::info!(a = 1, "b")).contains("b \u{1b}[3ma\u{1b}[0m\u{1b}[2m=\u{1b}[0m1")
        );
    }

    #[test]
    fn commands_in_log_lines_carry_the_flags_of_the_daemon() {
        let line = logged(false, || tracing::warn!(hint = "run `eventsubd plan`", "see `eventsubd status`"));
        assert!(line.contains("see `eventsubd status --config a.toml`"), "{line}");
        assert!(line.contains("run `eventsubd plan --config a.toml`"), "{line}");
    }

    #[test]
    fn no_value_forges_a_line_or_commands_the_terminal() {
        const HOSTILE: &str = "x\u{1b}[2J\nERROR forged\r\u{9b}1m\u{202e}";
        let line = logged(false, || {
            tracing::warn!(id = %HOSTILE, quoted = HOSTILE, error = &io::Error::other(HOSTILE) as &dyn std::error::Error, "{HOSTILE}");
        });
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(!line.contains(['\u{1b}', '\r', '\u{9b}', '\u{202e}']), "{line}");
        assert_eq!(line.matches("forged").count(), 4, "{line}");
        let long = logged(false, || tracing::info!(long = %"x".repeat(1 << 20)));
        assert!(long.len() < LONGEST_LINE + 200, "{}", long.len());
    }
}
