use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect_file;

use super::*;
use crate::model::example;
use crate::model::route::SinkName;
use crate::model::status::SubscriptionState;
use crate::model::subscription::SubscriptionKey;

/// Returns the names of the samples in a text, without the suffixes of histograms.
fn names(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    samples
        .map(name)
        .map(|name| {
            let histogram = "eventsubd_store_commit_seconds";
            if name.starts_with(histogram) { histogram.to_owned() } else { name }
        })
        .collect()
}

#[test]
fn a_status_as_open_metrics() {
    expect_file!["example.openmetrics"].assert_eq(&render(&example::status(), Format::OpenMetrics));
}

#[test]
fn a_full_status_gives_every_metric_a_value() {
    for format in [Format::OpenMetrics, Format::Prometheus] {
        let text = render(&example::status(), format);
        let wanted: BTreeSet<String> = ALL.iter().map(Metric::series).collect();
        assert_eq!(names(&text), wanted);
        let mut heads = BTreeMap::<&str, u32>::new();
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            *heads.entry(line).or_default() += 1;
        }
        assert_eq!(heads.len(), ALL.len());
        assert!(heads.values().all(|count| *count == 1), "{heads:?}");
    }
}

#[test]
fn the_two_formats_differ_in_their_comments_only() {
    let samples = |format| {
        let text = render(&example::status(), format);
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(samples(Format::OpenMetrics), samples(Format::Prometheus));
    let classic = render(&example::status(), Format::Prometheus);
    assert!(classic.contains("# TYPE eventsubd_events_received_total counter\n"), "{classic}");
    assert!(classic.contains("# TYPE eventsubd_build_info gauge\n") && !classic.contains("# EOF"));
}

#[test]
fn absent_values_are_not_written() {
    let mut status = example::healthy();
    status.api.remaining = None;
    let text = render(&status, Format::OpenMetrics);
    for absent in ["eventsubd_webhook", "signature", "rate_limit_remaining"] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn hostile_types_are_escaped_and_many_are_counted_together() {
    let mut status = example::healthy();
    let hostile = "a\"} 1\n# EOF\n\\";
    let mut entries = Vec::new();
    for nth in 0..1_000 {
        let mut entry = example::entry(&nth.to_string(), SubscriptionState::Enabled);
        let name = if nth == 0 { hostile.to_owned() } else { format!("type.{nth}") };
        entry.key = SubscriptionKey::new(&name, "1", entry.key.condition.clone());
        entries.push(entry);
    }
    status.set_subscriptions(entries.into());
    let text = render(&status, Format::OpenMetrics);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("eventsubd_subscriptions{")).collect();
    let first = r##"eventsubd_subscriptions{type="a\"} 1\n# EOF\n\\",state="enabled"} 1"##;
    assert_eq!(lines[0], first);
    assert_eq!(lines.len(), 251 * 3);
    assert!(lines.contains(&r#"eventsubd_subscriptions{type="other",state="enabled"} 750"#));
    assert_eq!(text.lines().filter(|line| line.starts_with("# EOF")).count(), 1);
}

#[test]
fn unknown_reasons_are_bounded_too() {
    let mut status = example::status();
    let webhook = status.webhook.as_mut().expect("the example has one");
    webhook.rejected = (0..100).map(|nth| (format!("reason{nth}"), 1)).collect();
    webhook.rejected.insert("unreadable".to_owned(), 9);
    let text = render(&status, Format::OpenMetrics);
    let lines = text.lines().filter(|line| line.starts_with("eventsubd_events_rejected_total{")).count();
    assert_eq!(lines, 2 + 32 + 1, "of all transports, those with a name, and the rest");
    assert!(text.contains("reason=\"other\"} 76\n") && !text.contains("unreadable"), "{text}");
}

#[test]
fn a_hundred_thousand_subscriptions_give_few_lines() {
    let mut status = example::healthy();
    let entry = example::entry("1", SubscriptionState::Parked);
    status.set_subscriptions(vec![entry; 100_000].into());
    status.sinks[0].name = SinkName::new("log");
    let text = render(&status, Format::Prometheus);
    assert!(text.contains("eventsubd_subscriptions_parked{obstacle=\"grant\"} 100000\n"));
    assert!(text.len() < 20_000, "{} bytes", text.len());
}
