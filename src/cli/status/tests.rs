use std::collections::BTreeSet;

use expect_test::expect;
use serde_json::Value;

use super::*;
use crate::model::example;
use crate::model::obstacle::Obstacle;
use crate::model::shard::ShardId;
use crate::model::status::{Progress, ShardState, SubscriptionState, TokenState};

#[test]
fn a_healthy_daemon_prints_a_few_lines() {
    expect![[r#"
        eventsubd 0.1.0 (pid 4711), up 1 day 2 h: all is well

        config         /etc/eventsubd/config.toml, generation 2, loaded 10 min ago; reloads: 1 accepted, 1 refused
        state          /var/lib/eventsubd
        token          valid, expires in 46 days, validated 20 min ago, 1 minted, 2 requests failed
        api            53 requests, 1 without an answer, 799 of 800 points of the rate limit left
        conduit        5b1f2c7a, 2 shards
        shard 0        bound for 2 h 1 min, 12 events, moved once as Twitch asked
        shard 1        bound for 20 s, 1 event, lost its connection 2 times
        reconnects     2 keepalive, 1 requested
        subscriptions  1, 1 enabled; 1 of the daemon's own, for news of grants and shards; cost 1 of 10000
        reconciled     8 min 20 s ago, generation 2
        received       13 events, 12 stored, 1 twice, 3 under two ids, 1 malformed, 2 of unknown types, 1 revocation
        gaps           events may be missed for 1 min now: the connection to Twitch was lost; 3 gaps, the last of 1 min 40 s 1 h ago: the connection to Twitch was lost (caught up with 4 events)
        catch-up       asking Twitch what has changed during a gap, time 1 of 3; 200 of 300 channels done, 7 events so far
        store          12 events, 40.0 KiB of 2.0 GiB, newest 12, 9.0 ms per commit, 1 commit failed
        sink log       file to /var/log/eventsubd/events.jsonl (stream.* channel.raid), idle, 11 delivered (2/min), the last 25 s ago, 3 tries failed
        page           http://127.0.0.1:9464/, needs the token
    "#]].assert_eq(&render(&example::healthy(), false, &[]));
}

#[test]
fn problems_come_first_and_every_field_is_shown() {
    expect![[r#"
        eventsubd 0.1.0 (pid 4711), up 1 day 2 h: running, 1 problem
        ! subscriptions: 1 of 2 subscriptions cannot be created
          hint: channel.follow ann: needs grant: ann must allow moderator:read:followers: run `eventsubd authorize --user ann`

        config         /etc/eventsubd/config.toml, generation 2, loaded 10 min ago; an edit was refused 1 min ago; reloads: 1 accepted, 1 refused
        state          /var/lib/eventsubd, of the sandbox
        cluster        web-1 (this host) leads; 2 of 3 hosts up; NATS 2.12.8; shared log 3 events behind (1 s); another file on web-2
        token          valid, expires in 46 days, validated 20 min ago, 1 minted, 2 requests failed
        api            53 requests, 1 without an answer, 799 of 800 points of the rate limit left
        conduit        5b1f2c7a, 2 shards
        shard 1        waiting for 20 s, 1 event, lost its connection 2 times
        shard 0        bound for 2 h 1 min, 12 events, moved once as Twitch asked
        elsewhere      shards 0, 1 on web-2
        reconnects     2 keepalive, 1 requested
        webhook        https://example.org/eventsub, listening on 127.0.0.1:8080
                       14 requests, 1 challenge, 3 connections open, Twitch's clock 2 s behind ours
                       rejected: 1 for method, 4 for signature, 1 too old
        invites        https://example.org/authorize, listening on 127.0.0.1:8081, 2 visits open, 12 granted, 1 declined, 3 unfinished, 4 refused, 5 turned away, 1 failed, 7 connections closed to make room
        subscriptions  2, 1 enabled, 1 parked; 1 of the daemon's own, for news of grants and shards; cost 1 of 10000
        reconciled     8 min 20 s ago, generation 2; 1 of 2 changes made
        received       13 events, 12 stored, 1 twice, 3 under two ids, 1 malformed, 2 of unknown types, 1 revocation
        gaps           events may be missed for 1 min now: the connection to Twitch was lost; 3 gaps, the last of 1 min 40 s 1 h ago: the connection to Twitch was lost (caught up with 4 events)
        catch-up       asking Twitch what has changed during a gap, time 1 of 3; 200 of 300 channels done, 7 events so far
        store          12 events, 40.0 KiB of 2.0 GiB, newest 12, 9.0 ms per commit, 1 commit failed
        sink log       file to /var/log/eventsubd/events.jsonl (stream.* channel.raid), retrying, 11 delivered (2/min), the last 25 s ago, next try in 12 s, 1 behind (6 min 40 s), 3 tries failed, 1 dead letter, 5 lost
        page           http://127.0.0.1:9464/, needs the token

        Missing grants:
          ann must allow moderator:read:followers; has allowed bits:read
          `eventsubd authorize --missing` asks for all of them

        Parked subscriptions:
          channel.follow ann
            needs grant: ann must allow moderator:read:followers: run `eventsubd authorize --user ann`
            next try in 5 min
    "#]].assert_eq(&render(&example::status(), false, &[]));
}

#[test]
fn a_daemon_that_has_not_converged_says_why() {
    let mut status = example::healthy();
    (status.ready, status.converged) = (false, false);
    status.token.state = TokenState::Unavailable;
    status.reconcile.conduit = None;
    status.reconcile.generation = 0;
    assert!(
        waiting::reasons(&status)
            .contains(&"Twitch's list is being read, to be compared with the file".into())
    );
    status.cluster = example::status().cluster;
    assert!(waiting::reasons(&status).iter().any(|reason| reason.contains("by `eventsubd apply`")));
    status.cluster = None;
    status.reconcile.remembered = None;
    let summary = |status: &Status| render(status, false, &[]).lines().next().map(str::to_owned);
    expect!["eventsubd 0.1.0 (pid 4711), up 1 day 2 h: not ready; there is no token: Twitch did not issue one; there is no conduit yet; configuration 2 has not been applied yet"].assert_eq(&summary(&status).expect("a line"));

    status.token.state = TokenState::Valid;
    status.reconcile = example::status().reconcile;
    status.reconcile.progress = Some(Progress { done: 3, total: 7 });
    status.shards[1].state = ShardState::Waiting;
    status.set_subscriptions(vec![example::entry("1", SubscriptionState::Pending)].into());
    expect![[r#"
        1 of 2 shards deliver
        the last run ended early: the conduits could not be listed
        3 of 7 changes made
        1 subscription being moved to another method, callback or secret
        1 subscription to be created or verified
        12 deletes held back: see `eventsubd plan`, then run `eventsubd apply --allow-deletes`"#]]
    .assert_eq(&waiting::reasons(&status).join("\n"));

    let mut status = example::healthy();
    status.converged = false;
    assert_eq!(
        waiting::reasons(&status).len(),
        1,
        "there is always a reason: {:?}",
        waiting::reasons(&status)
    );
    status.config.generation = 3;
    assert_eq!(waiting::reasons(&status), ["configuration 3 has not been applied yet"]);
    status.converged = true;
    assert_eq!(waiting::reasons(&status), [""; 0]);
}

#[test]
fn long_lists_are_counted_and_failures_come_first() {
    let mut status = example::healthy();
    let mut parked: Vec<_> =
        (0..1_000).map(|n| example::entry(&n.to_string(), SubscriptionState::Parked)).collect();
    parked[7].obstacle = Some(Obstacle::Login);
    status.set_subscriptions(parked.into());
    let shard = status.shards[0].clone();
    status.shards = (0..100).map(|n| ShardStatus { shard: ShardId(n), ..shard.clone() }).collect();
    status.shards[77].state = ShardState::Waiting;
    let text = render(&status, false, &[]);
    assert!(text.lines().count() < 110, "{text}");
    for part in [
        "Parked subscriptions (999 grant, 1 login):",
        "… and 980 more: see `eventsubd status --json --subscriptions`",
        "… and 80 more shards",
        "shard 77       waiting",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let first = text.lines().find(|line| line.starts_with("shard "));
    assert!(first.is_some_and(|line| line.starts_with("shard 77 ")), "{first:?}");
}

#[test]
fn colour_only_adds_escape_sequences() {
    let text = render(&example::status(), true, &[]);
    assert!(text.contains("\x1b[1;31m!\x1b[0m"), "{text}");
    let mut plain = text;
    for code in ["\x1b[1;31m", "\x1b[1;33m", "\x1b[1;32m", "\x1b[1m", "\x1b[0m"] {
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, render(&example::status(), false, &[]));
}

#[test]
fn the_json_round_trips() {
    let status = example::status();
    let text = serde_json::to_string(&status).unwrap();
    let subscriptions = status.subscriptions.clone();
    let read = Status { subscriptions, ..serde_json::from_str(&text).unwrap() };
    assert_eq!(read, status);
    assert!(!text.contains("\"subscriptions\":"), "the list has pages of its own");
}

/// Objects whose keys are no fields.
const MAPS: [&str; 8] = [
    "api.answers",
    "api.answers.*",
    "gaps.told",
    "gaps.catch_up.found",
    "intake.reconnects",
    "webhook.rejected",
    "parked[].condition",
    "subscription_counts.obstacles",
];

/// Collects the path of every value: `shards[].state`, `api.answers.*.*`.
fn paths(at: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            assert!(!fields.is_empty(), "{at}: an example has to have something of everything");
            for (name, value) in fields {
                let name = if MAPS.contains(&at) { "*" } else { name };
                paths(&[at, name].join(if at.is_empty() { "" } else { "." }), value, found);
            }
        }
        Value::Array(values) => {
            assert!(!values.is_empty(), "{at}: an example has to have something of everything");
            values.iter().for_each(|value| paths(&format!("{at}[]"), value, found));
        }
        _ => drop(found.insert(at.to_owned())),
    }
}

#[test]
fn the_documentation_describes_every_field_of_the_json_and_no_other() {
    let mut found = BTreeSet::new();
    paths("", &serde_json::to_value(example::status()).unwrap(), &mut found);
    assert!(found.len() > 100, "only {} fields", found.len());
    let page = include_str!("../../../docs/admin-endpoint.md");
    let section = page.split("\n## The JSON of `status`\n").nth(1).expect("the section");
    let section = section.split("\n#").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let described: BTreeSet<String> = rows
        .filter_map(|row| row.split(" | ").next())
        .flat_map(|cell| cell.split(", "))
        .map(|path| path.trim_matches('`').to_owned())
        .collect();
    let missing: Vec<_> = found.difference(&described).collect();
    let extra: Vec<_> = described.difference(&found).collect();
    assert!(missing.is_empty() && extra.is_empty(), "not described: {missing:#?}\ndo not exist: {extra:#?}");
}

/// Calls `visit` with the path of every string in a document.
fn strings(value: &Value, path: &str, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(_) => visit(path),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| strings(item, &format!("{path}/{at}"), visit));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, item)| strings(item, &format!("{path}/{name}"), visit));
        }
        _ => {}
    }
}

#[test]
fn no_text_of_a_status_controls_the_terminal_or_forges_a_line() {
    const HOSTILE: &str = "\u{1b}[2J\nforged: all is well\r\u{9b}1m\u{202e}";
    let whole = serde_json::to_value(example::status()).unwrap();
    let lines = render(&example::status(), false, &[]).lines().count();
    let (mut paths, mut shown) = (Vec::new(), 0);
    strings(&whole, "", &mut |path| paths.push(path.to_owned()));
    for path in paths {
        let mut changed = whole.clone();
        let Some(Value::String(text)) = changed.pointer_mut(&path) else { panic!("{path}") };
        text.push_str(HOSTILE);
        // Names of states and times do not deserialize from it.
        let Ok(status) = serde_json::from_value::<Status>(changed) else { continue };
        let text = render(&status, false, &[]);
        shown += usize::from(text.contains("\\x1b[2J\\nforged"));
        assert!(!text.contains(['\u{1b}', '\r', '\u{9b}', '\u{202e}']), "{path}: {text}");
        assert_eq!(text.lines().count(), lines, "{path}: {text}");
    }
    assert!(shown > 12, "only {shown} texts were shown");
}
