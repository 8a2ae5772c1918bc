//! Log lines for the journal, in its native protocol: each value in a field of its own, `SUBSCRIPTION_ID=`, `SINK=`,
//! …. The fields of the spans around a line count as its own.
//!
//! `MESSAGE=` is the whole line with its values, because `journalctl` shows nothing else by default. Each record is
//! bounded to fit one datagram. A journal that does not accept records costs log lines and nothing else.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use crate::model::invocation::Invocation;

/// Socket of the journal ("Native Journal Protocol").
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// Value of `SYSLOG_IDENTIFIER=`.
const IDENTIFIER: &str = "eventsubd";
/// The longest value, in bytes.
const MAX_VALUE: usize = 16 << 10;
/// The largest record, in bytes; a datagram may have about 200 KiB.
const MAX_RECORD: usize = 96 << 10;
/// The longest field name that the journal accepts.
const MAX_NAME: usize = 64;
/// Time limit for sending one line to a journal that is behind.
const PATIENCE: Duration = Duration::from_secs(1);
/// Field names that have another meaning in the journal, or that this file sets itself.
const RESERVED: [&str; 9] = [
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "SYSLOG_FACILITY",
    "SYSLOG_PID",
    "TARGET",
    "CODE_FILE",
    "CODE_LINE",
    "CODE_FUNC",
];

#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    invocation: Invocation,
}

impl Journal {
    /// Connects to the journal's socket.
    ///
    /// # Errors
    /// Nothing listens there.
    pub(super) fn at(path: &Path, invocation: Invocation) -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(path)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, path: path.to_owned(), invocation })
    }
}

/// The fields of a span, as text for `MESSAGE=` and as the journal gets them.
struct SpanFields {
    line: String,
    record: Record,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut record = Record(Vec::new());
        attributes.record(&mut record);
        span.extensions_mut().insert(SpanFields { line: line(attributes, &self.invocation), record });
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = line(event, &self.invocation);
        let mut of_spans = Record(Vec::new());
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(fields) = span.extensions().get::<SpanFields>() {
                let _ = write!(line, " {}", fields.line);
                of_spans.0.extend_from_slice(&fields.record.0);
            }
        }
        let mut record = record(event.metadata(), event, &line);
        if record.len() + of_spans.0.len() <= MAX_RECORD {
            record.extend_from_slice(&of_spans.0);
        }
        match self.socket.send_to(&record, &self.path) {
            Ok(_) => {}
            // Never block on the journal: a hung journald would hang the daemon too.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => {
                let _ = writeln!(io::stderr(), "{line}");
            }
        }
    }
}

/// Returns the message and the values as text.
fn line(fields: &impl RecordFields, invocation: &Invocation) -> String {
    let mut line = String::new();
    // A value that cannot be formatted leaves the line shorter.
    let _ = super::fields::text(invocation.clone()).format_fields(Writer::new(&mut line), fields);
    line
}

/// Builds the datagram for one event.
fn record(metadata: &Metadata<'_>, fields: &impl RecordFields, line: &str) -> Vec<u8> {
    let priority = match *metadata.level() {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    };
    let mut record = Record(Vec::with_capacity(512));
    record.add("MESSAGE", line);
    record.add("PRIORITY", priority);
    record.add("SYSLOG_IDENTIFIER", IDENTIFIER);
    record.add("TARGET", metadata.target());
    if let (Some(file), Some(number)) = (metadata.file(), metadata.line()) {
        record.add("CODE_FILE", file);
        record.add("CODE_LINE", &number.to_string());
    }
    fields.record(&mut record);
    record.0
}

/// Builder of a datagram.
struct Record(Vec<u8>);

impl Record {
    fn add(&mut self, name: &str, value: &str) {
        let value = bounded(value);
        if self.0.len() + name.len() + value.len() + 16 > MAX_RECORD {
            return;
        }
        self.0.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            self.0.push(b'\n');
            self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            self.add(&name(field.name()), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "message" {
            let mut text = String::new();
            let _ = write!(text, "{value:?}");
            self.add(&name(field.name()), &text);
        }
    }
}

/// Returns a field name in the journal's form: capital letters, digits and underscores, a letter first.
fn name(field: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = field.chars().map(upper).skip_while(|c| !c.is_ascii_uppercase()).collect();
    let prefix = if name.is_empty() || RESERVED.contains(&&*name) { "FIELD_" } else { "" };
    prefix.chars().chain(name.chars()).take(MAX_NAME).collect()
}

fn bounded(text: &str) -> &str {
    let mut end = text.len().min(MAX_VALUE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Runs `log` and returns the names and values that the journal received.
    fn logged(log: impl FnOnce()) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let journal = Journal::at(&path, Invocation::default()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), log);
        let mut bytes = vec![0; 1 << 20];
        let count = receiver.recv(&mut bytes).unwrap();
        let (mut rest, mut found) = (&bytes[..count], Vec::new());
        while let Some(end) = rest.iter().position(|b| matches!(b, b'=' | b'\n')) {
            let name = String::from_utf8(rest[..end].to_vec()).unwrap();
            let (start, length) = if rest[end] == b'=' {
                let length = rest[end + 1..].iter().position(|b| *b == b'\n').unwrap();
                (end + 1, length)
            } else {
                let length = u64::from_le_bytes(rest[end + 1..end + 9].try_into().unwrap());
                (end + 9, usize::try_from(length).unwrap())
            };
            found.push((name, String::from_utf8(rest[start..start + length].to_vec()).unwrap()));
            assert_eq!(rest[start + length], b'\n');
            rest = &rest[start + length + 1..];
        }
        assert!(rest.is_empty());
        found
    }

    fn value<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
        let mut values = fields.iter().filter(|(found, _)| found == name);
        let (_, value) = values.next().unwrap_or_else(|| panic!("no {name} in {fields:?}"));
        assert_eq!(values.next(), None, "{name} comes once");
        value
    }

    #[test]
    fn values_are_fields_and_part_of_the_line() {
        let fields = logged(|| {
            tracing::warn!(
                sink = %"web", subscription_id = "f1c2", message_id = "84c1e79a", shard = 3, ok = true,
                error = "no\nanswer", "sink failed"
            );
        });
        assert_eq!(
            value(&fields, "MESSAGE"),
            "sink failed sink=web subscription_id=\"f1c2\" message_id=\"84c1e79a\" shard=3 ok=true error=\"no\\nanswer\""
        );
        for (name, expected) in [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "eventsubd"),
            ("SINK", "web"),
            ("SUBSCRIPTION_ID", "f1c2"),
            ("MESSAGE_ID", "84c1e79a"),
            ("SHARD", "3"),
            ("OK", "true"),
            ("ERROR", "no\nanswer"),
            ("TARGET", "eventsubd::telemetry::journal::tests"),
        ] {
            assert_eq!(value(&fields, name), expected);
        }
        assert!(value(&fields, "CODE_FILE").ends_with("journal.rs"));
    }

    #[test]
    fn fields_of_spans_are_fields_and_part_of_the_line() {
        let fields = logged(|| {
            let _shard = tracing::error_span!("shard", shard = 3).entered();
            let _sink = tracing::error_span!("sink", sink = %"web\nPRIORITY=0").entered();
            tracing::warn!(attempt = 2, "sink failed");
        });
        assert_eq!(value(&fields, "MESSAGE"), "sink failed attempt=2 shard=3 sink=web\\nPRIORITY=0");
        for (name, expected) in
            [("SHARD", "3"), ("SINK", "web\nPRIORITY=0"), ("ATTEMPT", "2"), ("PRIORITY", "4")]
        {
            assert_eq!(value(&fields, name), expected);
        }
    }

    #[test]
    fn values_are_bounded_and_cannot_forge_a_field() {
        let long = "ä".repeat(1 << 20);
        let fields = logged(|| {
            tracing::info!(a = "x\nPRIORITY=0", priority = 0, long, b = long, "one\ntwo");
        });
        assert!(value(&fields, "MESSAGE").starts_with("one\\ntwo a="), "no value forges a line");
        assert_eq!(value(&fields, "PRIORITY"), "6");
        assert_eq!(value(&fields, "FIELD_PRIORITY"), "0");
        assert_eq!(value(&fields, "A"), "x\nPRIORITY=0");
        assert_eq!(value(&fields, "LONG").len(), MAX_VALUE);
    }

    #[test]
    fn names_are_what_the_journal_takes() {
        for (field, expected) in [
            ("subscription_id", "SUBSCRIPTION_ID"),
            ("_private", "PRIVATE"),
            ("9lives.left", "LIVES_LEFT"),
            ("message_id", "MESSAGE_ID"),
            ("code_file", "FIELD_CODE_FILE"),
            ("__", "FIELD_"),
        ] {
            assert_eq!(name(field), expected);
        }
        assert_eq!(name(&"x".repeat(100)).len(), MAX_NAME);
    }

    #[test]
    fn connecting_fails_without_a_journal() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Journal::at(&folder.path().join("socket"), Invocation::default()).is_err());
    }
}
