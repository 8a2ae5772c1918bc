//! Saying when events may have been missed: an event of the type `eventsubd.gap`, stored and handed on like
//! any other, so that programs can read again the state that they follow.
//!
//! Owns the memory of when everything was last well, which a restart goes on from. After a crash that memory
//! is up to [`REMEMBER`] old, so a gap is told as longer than it was, never as shorter.

mod watcher;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::watcher::{Gap, Reason, View, Watcher};
use crate::model::event::{Event, GAP, MessageId};
use crate::model::route::SinkName;
use crate::model::shard::ShardId;
use crate::model::status::{ReconcileStatus, ShardStatus, SubscriptionEntry, WebhookStatus};
use crate::model::subscription::SubscriptionKey;
use crate::model::text::word;
use crate::model::time::Timestamp;
use crate::reconcile::InUse;
use crate::store::{Store, StoreError};

/// How often the time at which all was well is stored.
const REMEMBER: Duration = Duration::from_secs(30);
/// How often losses by retention are looked for: many small ones become one event.
const LOSSES: Duration = Duration::from_secs(60);
/// Subscriptions that one event lists; it counts the others.
const LISTED: usize = 1_000;
const LAST_WELL: &str = "gap.last_well";
const CONDUIT: &str = "gap.conduit";

/// What the driver watches.
#[derive(Clone, Debug)]
pub(super) struct GapSources {
    pub(super) shards: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    pub(super) hooks: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    pub(super) webhook: watch::Receiver<Option<WebhookStatus>>,
    pub(super) in_use: watch::Receiver<Option<InUse>>,
    pub(super) reconcile: watch::Receiver<ReconcileStatus>,
    pub(super) subscriptions: watch::Receiver<Arc<[SubscriptionEntry]>>,
}

impl GapSources {
    fn view(&mut self) -> View {
        let delivers =
            |shards: &BTreeMap<ShardId, ShardStatus>| shards.values().any(|shard| shard.state.delivers());
        let bound = delivers(&self.shards.borrow_and_update()) || delivers(&self.hooks.borrow_and_update());
        let listens = self.webhook.borrow_and_update().is_some();
        let called = self.in_use.borrow_and_update().as_ref().is_some_and(|in_use| in_use.subscriptions);
        let reconcile = self.reconcile.borrow_and_update();
        View {
            bound,
            called: listens && called,
            conduit: reconcile.conduit.as_ref().map(|conduit| conduit.id.clone()),
            matched_at: reconcile.finished_at.filter(|_| reconcile.problem.is_none()),
        }
    }
}

/// Watches until cancelled, and stores an event for each gap.
pub(super) async fn watch_for_gaps(store: Store, mut sources: GapSources, cancel: CancellationToken) {
    let Some(mut watcher) = recall(&store, &cancel).await else { return };
    let mut remember = tokio::time::interval(REMEMBER);
    let mut losses = tokio::time::interval(LOSSES);
    let mut kept = (None, None);
    let mut ended = false;
    loop {
        let view = sources.view();
        if let Some(gap) = watcher.observe(&view, now()) {
            warn!(
                from = %gap.from, to = %gap.to, reason = word(&gap.reason),
                "events may have been missed; an event of type {GAP} says so to the sinks"
            );
            let subscriptions = Arc::clone(&sources.subscriptions.borrow());
            if tell(&store, event(gap, None, view.conduit.as_deref(), &subscriptions)).await.is_none() {
                return;
            }
            remember.reset_immediately();
        }
        if ended {
            return keep(&store, &watcher, &mut kept).await;
        }
        tokio::select! {
            () = cancel.cancelled() => ended = true,
            Ok(()) = sources.shards.changed() => {}
            Ok(()) = sources.hooks.changed() => {}
            Ok(()) = sources.webhook.changed() => {}
            Ok(()) = sources.in_use.changed() => {}
            Ok(()) = sources.reconcile.changed() => {}
            _ = losses.tick() => {
                let subscriptions = Arc::clone(&sources.subscriptions.borrow());
                if tell_losses(&store, view.conduit.as_deref(), &subscriptions).await.is_none() {
                    return;
                }
            }
            _ = remember.tick() => keep(&store, &watcher, &mut kept).await,
        }
    }
}

fn now() -> Timestamp {
    Timestamp(SystemTime::now())
}

async fn recall(store: &Store, cancel: &CancellationToken) -> Option<Watcher> {
    loop {
        match store.settings("gap.").await {
            Ok(found) => {
                let get =
                    |name| found.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
                let last_well = get(LAST_WELL).and_then(|text| Timestamp::parse(&text));
                return Some(Watcher::new(last_well, get(CONDUIT), now()));
            }
            Err(StoreError::Closed) => return None,
            Err(error) => {
                warn!(%error, "the time at which all was well cannot be read; trying again");
                tokio::select! {
                    () = cancel.cancelled() => return None,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        }
    }
}

async fn keep(store: &Store, watcher: &Watcher, kept: &mut (Option<Timestamp>, Option<String>)) {
    let (last_well, conduit) = watcher.memory();
    if kept.0 == last_well && kept.1.as_deref() == conduit {
        return;
    }
    let changes = vec![
        (LAST_WELL.to_owned(), last_well.map(|time| time.to_string())),
        (CONDUIT.to_owned(), conduit.map(str::to_owned)),
    ];
    match store.set_settings(changes).await {
        Ok(()) => *kept = (last_well, conduit.map(str::to_owned)),
        // The next round tries again; a gap is told as longer until then.
        Err(error) => warn!(%error, "the time at which all was well could not be stored"),
    }
}

/// None when the store has gone.
async fn tell(store: &Store, event: Option<Event>) -> Option<()> {
    match event {
        Some(event) => store.push_detached(event).await.ok(),
        None => Some(()),
    }
}

/// One event a sink for what retention took from it.
async fn tell_losses(
    store: &Store,
    conduit: Option<&str>,
    subscriptions: &[SubscriptionEntry],
) -> Option<()> {
    let losses = match store.losses().await {
        Ok(losses) => losses,
        Err(StoreError::Closed) => return None,
        Err(error) => {
            warn!(%error, "losses cannot be read; trying again");
            return Some(());
        }
    };
    let mut sinks: BTreeMap<&SinkName, (Gap, u64)> = BTreeMap::new();
    for (_, loss) in &losses {
        let gap = Gap { from: loss.from, to: loss.to, reason: Reason::Retention };
        let (sum, events) = sinks.entry(&loss.sink).or_insert((gap, 0));
        sum.from = sum.from.min(gap.from);
        sum.to = sum.to.max(gap.to);
        *events += loss.events;
    }
    for (sink, (gap, events)) in sinks {
        tell(store, event(gap, Some((sink, events)), conduit, subscriptions)).await?;
    }
    if !losses.is_empty() {
        let names = losses.into_iter().map(|(name, _)| name).collect();
        if let Err(error) = store.losses_told(names).await {
            warn!(%error, "losses are told a second time");
        }
    }
    Some(())
}

/// What the event of a gap holds.
#[derive(Serialize)]
struct Told<'a> {
    from: Timestamp,
    to: Timestamp,
    reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    sink: Option<&'a SinkName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events_lost: Option<u64>,
    subscriptions: Vec<&'a SubscriptionKey>,
    subscriptions_total: usize,
}

fn event(
    gap: Gap,
    lost: Option<(&SinkName, u64)>,
    conduit: Option<&str>,
    subscriptions: &[SubscriptionEntry],
) -> Option<Event> {
    let theirs = || subscriptions.iter().filter(|entry| !entry.own);
    let told = Told {
        from: gap.from,
        to: gap.to,
        reason: gap.reason,
        sink: lost.map(|(sink, _)| sink),
        events_lost: lost.map(|(_, events)| events),
        subscriptions: theirs().take(LISTED).map(|entry| &entry.key).collect(),
        subscriptions_total: theirs().count(),
    };
    let event = serde_json::value::to_raw_value(&told).ok()?;
    let id = format!("gap-{}", uuid::Uuid::new_v4());
    wrap(&id, gap.to, conduit, &event)
}

/// Like a notification of Twitch's, so that whoever reads those can read this.
fn wrap(id: &str, at: Timestamp, conduit: Option<&str>, event: &RawValue) -> Option<Event> {
    const SUBSCRIPTION: &str = "eventsubd";
    const VERSION: &str = "1";
    let subscription = serde_json::json!({
        "id": SUBSCRIPTION,
        "status": "enabled",
        "type": GAP,
        "version": VERSION,
        "cost": 0,
        "condition": {},
        "transport": { "method": "conduit", "conduit_id": conduit.unwrap_or_default() },
        "created_at": at,
    });
    Some(Event {
        message_id: MessageId::new(id).ok()?,
        message_timestamp: at.to_string().into(),
        subscription_type: GAP.into(),
        subscription_version: VERSION.into(),
        subscription_id: SUBSCRIPTION.into(),
        payload: format!(r#"{{"subscription":{subscription},"event":{}}}"#, event.get()).into_bytes().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_millis(seconds * 1000)
    }

    #[test]
    fn the_event_reads_like_one_of_twitch() {
        let key = SubscriptionKey {
            subscription_type: "stream.online".into(),
            version: "1".into(),
            condition: crate::model::subscription::Condition::from_pairs([("broadcaster_user_id", "1")]),
        };
        let entry = SubscriptionEntry {
            key,
            state: crate::model::status::SubscriptionState::Enabled,
            id: None,
            reason: None,
            obstacle: None,
            retry_at: None,
            own: false,
            logins: Box::new([]),
        };
        let entries = vec![entry; LISTED + 5];
        let gap = Gap { from: at(1), to: at(2), reason: Reason::Retention };
        let event = event(gap, Some((&SinkName::new("log"), 7)), Some("c"), &entries).unwrap();
        assert!(event.message_id.as_str().starts_with("gap-"));
        let payload: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
        assert_eq!(payload["subscription"]["type"], GAP);
        let told = &payload["event"];
        assert_eq!(told["reason"], "retention");
        assert_eq!(told["from"], "1970-01-01T00:00:01.000Z");
        assert_eq!((&told["sink"], &told["events_lost"]), (&"log".into(), &7.into()));
        assert_eq!(told["subscriptions"].as_array().unwrap().len(), LISTED);
        assert_eq!(told["subscriptions"][0]["type"], "stream.online");
        assert_eq!(told["subscriptions_total"], LISTED + 5);
    }
}
