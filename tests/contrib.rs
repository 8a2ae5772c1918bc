//! Files in `contrib/`: alerts fire when they should, the dashboard asks for metrics that exist.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use eventsubd::telemetry::metrics;
use serde_json::Value;

const RULES: &str = "contrib/prometheus/eventsubd.rules.yml";
const TESTS: [&str; 2] = ["eventsubd.rules.test.yml", "eventsubd.day.test.yml"];
const DASHBOARD: &str = "contrib/grafana/eventsubd.json";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Whether it is content, and what it says.
fn promtool(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("promtool");
    let output = command.args(arguments).current_dir(folder).output();
    let output = output.expect("promtool of the Debian package `prometheus`; `tests/run` installs it");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// The value of each line that begins with this.
fn values<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(start)).collect()
}

fn alerts(rules: &str) -> BTreeSet<String> {
    let names: Vec<_> = values(rules, "- alert: ");
    let unique: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    assert!(unique.len() >= 18 && unique.len() == names.len(), "{names:?}");
    unique
}

/// The metrics that an expression names.
fn names(expression: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !word(c)).filter(|name| name.starts_with("eventsubd_"));
    words.map(str::to_owned).collect()
}

fn known() -> BTreeSet<String> {
    metrics::ALL.iter().flat_map(metrics::Metric::samples).collect()
}

/// The alerts with a failing test of which something, or nothing, was expected.
fn failed(said: &str, of_nothing: bool) -> BTreeSet<String> {
    let mut alert = None;
    let mut found = BTreeSet::new();
    for line in said.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("alertname: ") {
            alert = rest.split(',').next().map(str::to_owned);
        } else if line.starts_with("exp:[") && (line == "exp:[],") == of_nothing {
            found.extend(alert.clone());
        }
    }
    found
}

/// Tests the rules with each line changed that begins with `start`.
fn test_changed(rules: &str, start: &str, to: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let change = |line: &str| match line.trim_start().strip_prefix(start) {
        Some(_) => format!("        {start}{to}\n"),
        None => format!("{line}\n"),
    };
    fs::write(folder.path().join("eventsubd.rules.yml"), rules.lines().map(change).collect::<String>())
        .unwrap();
    for name in TESTS {
        fs::copy(root().join("contrib/prometheus").join(name), folder.path().join(name)).unwrap();
    }
    let (content, said) = promtool(folder.path(), &["test", "rules", TESTS[0], TESTS[1]]);
    assert!(!content, "rules with `{start}{to}` pass: {said}");
    said
}

#[test]
fn the_alerts_pass_their_tests_and_each_test_can_fail() {
    let folder = root().join("contrib/prometheus");
    for check in [&["check", "rules", "eventsubd.rules.yml"][..], &["test", "rules", TESTS[0], TESTS[1]]] {
        let (content, said) = promtool(&folder, check);
        assert!(content && said.contains("SUCCESS"), "{said}");
    }
    let rules = read(RULES);
    let alerts = alerts(&rules);
    assert_eq!(values(&rules, "expr: ").len(), alerts.len(), "an expression has one line");

    let said = test_changed(&rules, "expr: ", "vector(0) > 1");
    assert_eq!(failed(&said, false), alerts, "each alert is tested to fire");
    let said = test_changed(&rules, "expr: ", "vector(1)");
    assert_eq!(failed(&said, true), alerts, "each alert is tested not to fire");
    let waits: BTreeSet<String> = rules
        .split("- alert: ")
        .skip(1)
        .filter(|rule| !values(rule, "for: ").is_empty())
        .map(|rule| rule.lines().next().unwrap().to_owned())
        .collect();
    assert!(waits.len() > 10);
    let said = test_changed(&rules, "for: ", "0s");
    assert_eq!(failed(&said, true), waits, "each alert that waits is tested to wait");
}

#[test]
fn each_alert_says_what_to_do_and_asks_for_what_exists() {
    let rules = read(RULES);
    let page = read("docs/metrics-and-alerts.md");
    let known = known();
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        for part in ["severity: ", "summary: ", "description: "] {
            assert_eq!(values(rule, part).len(), 1, "{name} has one `{part}`");
        }
        assert!(["critical", "warning"].contains(&values(rule, "severity: ")[0]), "{name}");
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` | ")));
        let cells = row.map(|row| row.matches(" | ").count());
        assert_eq!(cells, Some(2), "docs/metrics-and-alerts.md says what {name} means and what to do");
        let unknown: Vec<_> = names(values(rule, "expr: ")[0]).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `Eventsubd"));
    assert_eq!(
        rows.count(),
        alerts(&rules).len(),
        "docs/metrics-and-alerts.md has no alert that does not exist"
    );
}

/// The text of every field of this name.
fn fields<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == name => found.push(text),
                    value => fields(value, name, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, name, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_what_exists() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut expressions = Vec::new();
    fields(&dashboard, "expr", &mut expressions);
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 30 && expressions.len() > 50, "{} panels", panels.len());

    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    let mut used = BTreeSet::new();
    for (at, expression) in expressions.iter().enumerate() {
        used.extend(names(expression));
        let filled = expression.replace("$__rate_interval", "5m").replace("$__interval", "1m");
        let filled = filled.replace("$instance", "a:9464");
        assert!(!filled.contains('$'), "a variable that the dashboard does not have: {expression}");
        assert!(
            expression.contains("{instance=~\"$instance\"") || expression.starts_with("ALERTS{"),
            "{expression}"
        );
        let text = serde_json::to_string(&filled).unwrap();
        writeln!(rules, "  - record: dashboard:{at}\n    expr: {text}").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let rules = rules.replace("dashboard:", "dashboard:panel_");
    fs::write(folder.path().join("rules.yml"), rules).unwrap();
    let (content, said) = promtool(folder.path(), &["check", "rules", "rules.yml"]);
    assert!(content && said.contains(&format!("{} rules found", expressions.len())), "{said}");

    let unknown: Vec<String> = used.difference(&known()).cloned().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let mut variables = Vec::new();
    fields(&dashboard["templating"], "definition", &mut variables);
    assert_eq!(variables, ["label_values(eventsubd_build_info, instance)"]);
    let mut sources = Vec::new();
    fields(&dashboard["panels"], "uid", &mut sources);
    assert!(sources.len() > 50 && sources.iter().all(|uid| *uid == "${datasource}"), "no source of ours");
}

#[test]
fn the_panels_of_the_dashboard_lie_side_by_side() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{}", panel["title"]);
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["title"]);
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{} lies over another", panel["title"]);
            }
        }
    }
    assert!(ids.len() > 30);
}
