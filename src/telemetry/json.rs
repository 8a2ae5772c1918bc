//! Log lines as JSON objects, one per line, with the fields of the spans around the line at the top level.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

/// Members that every line has; fields of these names are left out.
const OWN: [&str; 3] = ["timestamp", "level", "target"];

/// Formats lines. The fields of spans must be formatted as JSON too.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut members = Members(Map::new());
        // A field of the line replaces that of a span, and one of an inner span that of an outer one.
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && let Ok(Value::Object(fields)) = serde_json::from_str(&fields.fields)
            {
                members.0.extend(fields);
            }
        }
        event.record(&mut members);
        let metadata = event.metadata();
        let text = |text: &str| Value::from(text);
        write!(out, "{{\"timestamp\":{},\"level\":{}", text(&time), text(metadata.level().as_str()))?;
        for (name, value) in members.0.iter().filter(|(name, _)| !OWN.contains(&name.as_str())) {
            write!(out, ",{}:{value}", text(name))?;
        }
        writeln!(out, ",\"target\":{}}}", text(metadata.target()))
    }
}

struct Members(Map<String, Value>);

impl Members {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Members {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::capture::Captured;

    fn logged(log: impl FnOnce()) -> Value {
        let captured = Captured::default();
        let out = captured.clone();
        let layer =
            tracing_subscriber::fmt::layer().json().event_format(JsonLines).with_writer(move || out.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let text = captured.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn fields_of_the_line_and_of_its_spans_are_members() {
        let line = logged(|| {
            let _outer = tracing::error_span!("shard", shard = 3, attempt = 1).entered();
            let _inner = tracing::error_span!("sink", sink = %"web\n\"x").entered();
            tracing::warn!(
                attempt = 2,
                seconds = 0.5,
                ok = true,
                error = "no\nanswer",
                level = "x",
                "sink {}",
                "failed"
            );
        });
        let expected = serde_json::json!({
            "level": "WARN", "target": "eventsubd::telemetry::json::tests", "message": "sink failed", "shard": 3,
            "sink": "web\n\"x", "attempt": 2, "seconds": 0.5, "ok": true, "error": "no\nanswer",
            "timestamp": line["timestamp"],
        });
        assert_eq!(line, expected);
        let time = line["timestamp"].as_str().unwrap();
        assert!(crate::model::time::Timestamp::parse(time).is_some(), "{time}");
    }

    #[test]
    fn a_line_outside_of_spans_has_its_own_fields_only() {
        let line = logged(|| tracing::info!(count = 7_u64, "done"));
        assert_eq!(
            (&line["message"], &line["count"], line.as_object().unwrap().len()),
            (&"done".into(), &7.into(), 5)
        );
    }
}
