//! The metrics of the real daemon after real traffic, read by Prometheus's own tools.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use axum::http::StatusCode;
use common::{Home, Process, WAIT, command, converged, output, quick, status, text};
use eventsubd::model::obstacle::Obstacle;
use eventsubd::model::status::Status;
use eventsubd::sandbox::{Fault, Route, SandboxOptions, Users};
use eventsubd::telemetry::metrics;
use rustix::process::Signal;

/// The head and the body of an answer of the control socket.
fn get(home: &Home, path: &str, accept: &str) -> (String, String) {
    let mut stream = UnixStream::connect(home.path("state/control.sock")).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{accept}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

/// Returns the output of a program for this input; it has to succeed.
fn fed(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; `tests/run` installs it"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}{input}", text(&output.stdout), text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}{input}", text(&output.stderr));
    text(&output.stdout)
}

/// Prints every sample, and fails at whatever the format forbids.
const PARSE: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
samples = [[s.name, s.labels, s.value] for family in parse(sys.stdin.read()) for s in family.samples]
print(json.dumps(samples))
";

struct Samples(Vec<(String, BTreeMap<String, String>, f64)>);

impl Samples {
    /// The sum of the samples of this name with these labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |of: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| of.get(*label).is_some_and(|v| v == value))
        };
        let found: Vec<f64> = self.0.iter().filter(|s| s.0 == name && fits(&s.1)).map(|s| s.2).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }
}

/// A receiver that refuses everything.
async fn refuser() -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().unwrap().to_string();
    let routes = axum::Router::new().fallback(|| async { StatusCode::BAD_REQUEST });
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

async fn until(home: &Home, what: &str, mut like: impl FnMut(&Status) -> bool) -> Status {
    let begun = Instant::now();
    loop {
        let status = status(home).await;
        if like(&status) {
            return status;
        }
        assert!(begun.elapsed() < WAIT, "never: {what}; {status:#?}");
    }
}

/// A daemon that has seen some of everything.
async fn traffic(home: &Home) {
    let (good, sandbox) = (fs::read_to_string(home.path("config.toml")).unwrap(), &home.sandbox);
    let sent = sandbox.trigger("stream.online", Some("ann")).await.unwrap();
    sandbox.trigger("stream.online", Some("bob")).await.unwrap();
    sandbox.resend(&sent).await.unwrap();
    until(home, "a copy", |status| status.intake.duplicates == 1 && status.intake.stored == 2).await;
    let session = sandbox.sessions()[0].clone();
    sandbox.send_raw(&session, "{");
    let message = r#"{"metadata":{"message_id":"1","message_type":"new_in_2030","message_timestamp":"2026-11-02T08:15:27Z"},"payload":{}}"#;
    sandbox.send_raw(&session, message);
    until(home, "strange messages", |status| status.intake.malformed == 1 && status.intake.unknown == 1)
        .await;
    sandbox.ask_reconnect(&session);
    until(home, "a reconnect", |status| status.intake.reconnects.len() == 1).await;
    sandbox.close_session(&sandbox.sessions()[0], 4006);
    until(home, "a loss", |status| status.intake.reconnects.len() == 2).await;

    sandbox.revoke_all_tokens();
    // `apply` fails until a shard is bound again; its request uses the token all the same.
    output(command(home, &["apply"])).await;
    until(home, "another token", |status| status.token.mints == 2 && status.token.validations_dead == 1)
        .await;

    fs::write(home.path("config.toml"), good.replace("stream.online", "stream.onlin")).unwrap();
    assert!(!output(command(home, &["reload"])).await.status.success());
    sandbox.fault(Route::List, Fault::Status(500, "out of order".to_owned()), 1);
    sandbox.fault(Route::Users, Fault::Reset, 1);
    fs::write(home.path("config.toml"), good.replace("\"nobody\"", "\"nobody\", \"cat\"")).unwrap();
    assert!(output(command(home, &["reload"])).await.status.success());
    until(home, "the edit is active", |status| {
        status.converged
            && status.config.generation == 2
            && status.api.answers.values().any(|answers| answers.contains_key("500"))
            && status.api.answers.values().any(|answers| answers.contains_key("none"))
            && status.sinks.iter().any(|sink| sink.dead_letters > 1)
            && status.sinks.iter().any(|sink| sink.delivered > 1)
    })
    .await;
    sandbox.revoke_subscription(&home.subscription("stream.online"), "authorization_revoked").await;
    until(home, "a revocation", |status| {
        let parked = |obstacle| status.subscription_counts.obstacles.contains_key(&obstacle);
        status.converged
            && status.intake.revocations == 1
            && parked(Obstacle::Grant)
            && parked(Obstacle::Login)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_reads_every_series_of_a_daemon_at_work() {
    let listed =
        [("1", "ann"), ("2", "bob"), ("3", "cat")].map(|(id, login)| (id.to_owned(), login.to_owned()));
    let home = Home::new(SandboxOptions { users: Users::Listed(listed.into()), ..quick() }).await;
    home.configure(&format!(
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster = [\"ann\", \"bob\", \"nobody\"]\n\n\
         [sink.file]\ntype = \"file\"\npath = \"{}\"\n\n\
         [sink.refused]\ntype = \"http\"\nurl = \"http://{}/\"\n",
        home.path("events.jsonl").display(),
        refuser().await
    ));
    home.sandbox.fault(Route::Token, Fault::Status(503, String::new()), 1);
    let mut daemon = Process::start(&home, "info");
    converged(&home).await;
    traffic(&home).await;

    let (head, classic) = get(&home, "/metrics", "");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    // Prometheus's own tool: the format, and its advice on names. It does not know OpenMetrics.
    fed("promtool", &["check", "metrics"], &classic);

    let (head, open) =
        get(&home, "/metrics", "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(open.ends_with("# EOF\n"));
    // Debian's library lies with Debian's Python.
    let parsed = fed("/usr/bin/python3", &["-c", PARSE], &open);
    let samples = Samples(serde_json::from_str(&parsed).unwrap());

    for (name, labels, least, most) in [
        ("eventsubd_build_info", &[("version", env!("CARGO_PKG_VERSION"))][..], 1.0, 1.0),
        ("eventsubd_ready", &[], 1.0, 1.0),
        ("eventsubd_converged", &[], 1.0, 1.0),
        ("eventsubd_problems", &[], 1.0, 9.0),
        ("eventsubd_start_time_seconds", &[], 1.7e9, 1e11),
        ("eventsubd_config_generation", &[], 2.0, 2.0),
        ("eventsubd_config_refused", &[], 0.0, 0.0),
        ("eventsubd_reloads_total", &[("outcome", "accepted")], 1.0, 1.0),
        ("eventsubd_reloads_total", &[("outcome", "refused")], 1.0, 1.0),
        ("eventsubd_token_state", &[("state", "valid")], 1.0, 1.0),
        ("eventsubd_token_state", &[], 1.0, 1.0),
        ("eventsubd_token_mints_total", &[("outcome", "minted")], 2.0, 2.0),
        ("eventsubd_token_mints_total", &[("outcome", "failed")], 1.0, 1.0),
        ("eventsubd_token_validations_total", &[("outcome", "valid")], 1.0, 9.0),
        ("eventsubd_token_validations_total", &[("outcome", "dead")], 1.0, 1.0),
        ("eventsubd_token_expires_in_seconds", &[], 60.0, 1e8),
        (
            "eventsubd_api_requests_total",
            &[("route", "POST /eventsub/subscriptions"), ("status", "202")],
            3.0,
            9.0,
        ),
        (
            "eventsubd_api_requests_total",
            &[("route", "GET /eventsub/subscriptions"), ("status", "500")],
            1.0,
            1.0,
        ),
        ("eventsubd_api_requests_total", &[("route", "GET /users"), ("status", "none")], 1.0, 1.0),
        ("eventsubd_api_rate_limit_points", &[], 800.0, 800.0),
        ("eventsubd_api_rate_limit_remaining_points", &[], 1.0, 800.0),
        ("eventsubd_subscriptions", &[("type", "stream.online"), ("state", "parked")], 2.0, 2.0),
        ("eventsubd_subscriptions", &[("type", "stream.online"), ("state", "enabled")], 2.0, 2.0),
        ("eventsubd_subscriptions_parked", &[("obstacle", "login")], 1.0, 1.0),
        ("eventsubd_subscriptions_parked", &[("obstacle", "grant")], 1.0, 1.0),
        ("eventsubd_subscription_cost", &[], 2.0, 4.0),
        ("eventsubd_subscription_cost_limit", &[], 100.0, 1e6),
        ("eventsubd_shards", &[("state", "bound")], 1.0, 2.0),
        ("eventsubd_shards", &[], 2.0, 2.0),
        ("eventsubd_shards_wanted", &[], 2.0, 2.0),
        ("eventsubd_shard_reconnects_total", &[("cause", "requested")], 1.0, 1.0),
        ("eventsubd_shard_reconnects_total", &[("cause", "network_error")], 1.0, 1.0),
        ("eventsubd_events_received_total", &[], 3.0, 3.0),
        ("eventsubd_events_stored_total", &[], 2.0, 9.0),
        ("eventsubd_events_duplicate_total", &[], 1.0, 1.0),
        ("eventsubd_events_rejected_total", &[("reason", "malformed")], 1.0, 1.0),
        ("eventsubd_events_rejected_total", &[("reason", "unknown")], 1.0, 1.0),
        ("eventsubd_revocations_total", &[], 1.0, 1.0),
        ("eventsubd_store_events", &[], 2.0, 9.0),
        ("eventsubd_store_size_bytes", &[], 4096.0, 1e8),
        ("eventsubd_store_limit_bytes", &[], 1e6, 1e12),
        ("eventsubd_store_commit_seconds_count", &[], 2.0, 1e4),
        ("eventsubd_store_commit_seconds_sum", &[], 1e-6, 60.0),
        ("eventsubd_store_commit_seconds_bucket", &[("le", "+Inf")], 2.0, 1e4),
        ("eventsubd_store_failing", &[], 0.0, 0.0),
        ("eventsubd_sink_delivered_events_total", &[("sink", "file")], 2.0, 9.0),
        ("eventsubd_sink_retries_total", &[("sink", "file")], 0.0, 0.0),
        ("eventsubd_sink_dead_letters", &[("sink", "refused")], 2.0, 9.0),
        ("eventsubd_sink_lag_events", &[("sink", "file")], 0.0, 9.0),
        ("eventsubd_sink_lag_seconds", &[("sink", "file")], 0.0, 60.0),
        ("eventsubd_sink_lost_events_total", &[], 0.0, 0.0),
    ] {
        let value = samples.sum(name, labels);
        let plausible = value.is_some_and(|value| (least..=most).contains(&value));
        assert!(plausible, "{name}{labels:?} is {value:?}\n{open}");
    }
    for name in metrics::ALL.iter().flat_map(metrics::Metric::samples) {
        let shown = samples.sum(&name, &[]).is_some();
        // Neither webhook, cluster nor page for invited users is configured, and no sink waits for its next try.
        let absent = ["_webhook_", "_cluster_", "_forward", "_authorize_", "_sink_next_try_time_"];
        let is_absent = absent.iter().any(|part| name.contains(part));
        assert_eq!(shown, !is_absent, "{name}: all but what is not there shows");
    }
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_in_vain_says_what_is_missing() {
    let home = Home::new(quick()).await;
    home.configure("[[subscription]]\ntype = \"stream.online\"\nbroadcaster = \"ann\"\n\n[sink.out]\ntype = \"stdout\"\n");
    let answer = output(command(&home, &["status", "--wait", "--timeout", "300ms"])).await;
    assert_eq!(answer.status.code(), Some(1), "{}", text(&answer.stderr));
    assert!(text(&answer.stderr).contains("no daemon answers on"), "{}", text(&answer.stderr));

    home.sandbox.fault(Route::Bind, Fault::Status(500, "out of order".to_owned()), u32::MAX);
    // The command waits for a daemon that has not started yet.
    let waiting = tokio::spawn(output(command(&home, &["status", "--wait", "--timeout", "60s"])));
    let mut daemon = Process::start(&home, "info");
    until_socket(&home).await;
    let answer = output(command(&home, &["status", "--wait", "--json", "--timeout", "500ms"])).await;
    let told = text(&answer.stderr);
    assert_eq!(answer.status.code(), Some(1), "{told}");
    assert!(told.contains("not converged within 500 ms: ") && told.contains("hint: "), "{told}");
    let status: Status = serde_json::from_slice(&answer.stdout).expect("the document all the same");
    assert!(!status.converged);

    home.sandbox.clear_faults();
    let answer = tokio::time::timeout(WAIT * 2, waiting).await.expect("it ends").unwrap();
    assert_eq!(answer.status.code(), Some(0), "{}{}", text(&answer.stdout), text(&answer.stderr));
    assert!(text(&answer.stdout).contains("all is well"), "{}", text(&answer.stdout));
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
}

async fn until_socket(home: &Home) {
    let begun = Instant::now();
    while !output(command(home, &["status"])).await.status.success() {
        let log = || fs::read_to_string(home.path("stderr.log")).unwrap();
        assert!(begun.elapsed() < WAIT, "no daemon answers: {}", log());
    }
}
