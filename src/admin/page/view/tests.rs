use super::*;
use crate::admin::page::rows::{Query, table};
use crate::model::example;
use crate::model::shard::ShardId;
use crate::model::status::*;

pub(in crate::admin::page) fn entry(
    id: &str,
    state: SubscriptionState,
    reason: Option<&str>,
) -> SubscriptionEntry {
    SubscriptionEntry { id: None, reason: reason.map(Into::into), ..example::entry(id, state) }
}

/// Returns a status without problems.
pub(in crate::admin::page) fn well() -> Status {
    let mut status = Status { ready: true, not_ready: vec![], ..example::healthy() };
    status.set_subscriptions(vec![entry("1", SubscriptionState::Enabled, None)].into());
    status
}

fn levels(status: &Status) -> Vec<(&'static str, Level, String)> {
    tiles(status).into_iter().map(|tile| (tile.name, tile.level, tile.value)).collect()
}

#[test]
fn a_healthy_daemon_shows_no_problem() {
    let status = well();
    let extras = Extras::default();
    let view = view(&status, table(&status, &Query::default()), &extras);
    assert_eq!(
        (view.level, view.verdict.as_str(), view.clock.as_str()),
        (Level::Good, "All is well", "08:15:27")
    );
    assert!(levels(&status).iter().all(|(_, level, _)| *level == Level::Good), "{:?}", levels(&status));
}

#[test]
fn problems_are_highlighted() {
    let mut status = well();
    status.ready = false;
    status.converged = false;
    status.token.state = TokenState::Refused;
    status.shards.iter_mut().for_each(|shard| shard.state = ShardState::Waiting);
    status.sinks[0].state = SinkState::Retrying;
    status.sinks[0].lag_events = 4_000;
    status.store.problem = Some("no space left".to_owned());
    let subscriptions = vec![
        entry("1", SubscriptionState::Parked, Some("needs grant")),
        entry("2", SubscriptionState::Enabled, None),
    ];
    status.set_subscriptions(subscriptions.into());
    status.webhook = example::status().webhook;
    assert_eq!(view(&status, table(&status, &Query::default()), &Extras::default()).verdict, "Not ready");
    let found: Vec<_> = levels(&status).into_iter().map(|(name, level, _)| (name, level)).collect();
    assert_eq!(
        found,
        [
            ("Subscriptions", Level::Warn),
            ("Shards", Level::Bad),
            ("Webhooks", Level::Bad),
            ("Sinks", Level::Bad),
            ("Store", Level::Bad),
            ("Token", Level::Bad),
        ]
    );
    let groups = groups(&status);
    let webhook = groups.last().expect("a group");
    assert_eq!(webhook.facts.last().expect("a fact").1, "method 1, signature 4");
}

#[test]
fn many_shards_are_counted_and_the_broken_ones_come_first() {
    let mut status = well();
    let sample = status.shards[0].clone();
    let shard = |number| ShardStatus { shard: ShardId(number), ..sample.clone() };
    status.shards = (0..20_000).map(shard).collect();
    status.shards[777].state = ShardState::Waiting;
    status.shards[777].problem = Some("connection lost".to_owned());
    let extras = Extras::default();
    let view = view(&status, table(&status, &Query::default()), &extras);
    assert_eq!((view.shards.len(), view.shards[0].number), (LISTED, 777));
    assert_eq!(view.more_shards.as_deref(), Some("19,950"));
}

#[test]
fn the_lag_of_a_sink_is_in_words() {
    let mut status = well();
    let behind = |status: &Status| {
        let figures = sink(&status.sinks[0], status.now).figures;
        figures.into_iter().find(|(name, _)| *name == "Behind").expect("a figure").1
    };
    for (events, seconds, text) in
        [(0, 0, "none"), (1, 30, "1 event, 30 s"), (4_000, 480, "4,000 events, 8 min")]
    {
        (status.sinks[0].lag_events, status.sinks[0].lag_seconds) = (events, seconds);
        assert_eq!(behind(&status), text);
    }
}
