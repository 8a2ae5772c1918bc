//! Writing metrics as text: OpenMetrics 1.0, and the older format of Prometheus.

use std::fmt::{Display, Write as _};

use super::table::{Kind, Metric};
use crate::model::tally::Durations;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's text format 0.0.4.
    Prometheus,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Returns the format that an `Accept` header asks for: Prometheus's own unless OpenMetrics is named, which suits
    /// a person with `curl`.
    pub fn accepted(accept: &str) -> Self {
        let (mut open, mut classic) = (0.0_f32, 0.0_f32);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut known) = (1.0_f32, true);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => known = ["1.0.0", "0.0.1"].contains(&value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            match media.as_str() {
                "application/openmetrics-text" if known => open = open.max(quality),
                "text/plain" => classic = classic.max(quality),
                _ => {}
            }
        }
        if open > 0.0 && open >= classic { Self::OpenMetrics } else { Self::Prometheus }
    }
}

/// Builder of the text.
pub(super) struct Encoder {
    format: Format,
    text: String,
}

/// Writer of one metric. A metric without a value is not written.
pub(super) struct Family<'a> {
    encoder: &'a mut Encoder,
    metric: &'static Metric,
    begun: bool,
}

impl Encoder {
    pub(super) fn new(format: Format) -> Self {
        Self { format, text: String::with_capacity(16 << 10) }
    }

    /// Starts a metric; each may be started once.
    pub(super) fn family(&mut self, metric: &'static Metric) -> Family<'_> {
        Family { encoder: self, metric, begun: false }
    }

    /// Writes a metric without labels.
    pub(super) fn one(&mut self, metric: &'static Metric, value: impl Display) {
        self.family(metric).add(&[], value);
    }

    /// Writes a metric without labels if its value is known.
    pub(super) fn maybe(&mut self, metric: &'static Metric, value: Option<impl Display>) {
        if let Some(value) = value {
            self.one(metric, value);
        }
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl Family<'_> {
    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let Metric { name, kind, unit, help, .. } = self.metric;
        let open = self.encoder.format == Format::OpenMetrics;
        // Prometheus's format uses the whole name, and has no `info` type.
        let name = if open { (*name).to_owned() } else { self.metric.series() };
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
            Kind::Info => {
                if open {
                    "info"
                } else {
                    "gauge"
                }
            }
        };
        let text = &mut self.encoder.text;
        let _ = writeln!(text, "# HELP {name} {help}");
        let _ = writeln!(text, "# TYPE {name} {kind}");
        if open && !unit.is_empty() {
            let _ = writeln!(text, "# UNIT {name} {unit}");
        }
    }

    /// Writes a value, with the labels in the metric's order.
    pub(super) fn add(&mut self, labels: &[&str], value: impl Display) {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "labels of {}", self.metric.name);
        self.begin();
        let labels: Vec<_> = self.metric.labels.iter().copied().zip(labels.iter().copied()).collect();
        self.encoder.sample(&self.metric.series(), &labels, value);
    }

    /// Writes a histogram without labels.
    pub(super) fn durations(&mut self, durations: &Durations) {
        self.begin();
        let name = self.metric.name;
        let mut sum = 0;
        for (bound, count) in Durations::BOUNDS.iter().zip(&durations.buckets) {
            sum += count;
            // With a decimal point in both formats, which keeps the series equal.
            let bound = format!("{:?}", seconds(*bound));
            self.encoder.sample(&format!("{name}_bucket"), &[("le", &bound)], sum);
        }
        self.encoder.sample(&format!("{name}_bucket"), &[("le", "+Inf")], durations.count);
        self.encoder.sample(&format!("{name}_sum"), &[], seconds(durations.total_micros));
        self.encoder.sample(&format!("{name}_count"), &[], durations.count);
    }
}

impl Encoder {
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            escape(&mut self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rounding beyond 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Writes a label's value. Both formats escape the same three characters.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_selects_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; Q=0.5", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;q=0.3",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;q=0.5,text/plain", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=much", Format::Prometheus),
            ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", Format::Prometheus),
            ("text/html,*/*", Format::Prometheus),
            ("", Format::Prometheus),
            (";;=,;q=,", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn hostile_labels_stay_within_their_quotes() {
        let mut text = String::new();
        escape(&mut text, "a\"b\\n\nc} 1\t# EOF é");
        assert_eq!(text, "a\\\"b\\\\n\\nc} 1\t# EOF é");
    }
}
