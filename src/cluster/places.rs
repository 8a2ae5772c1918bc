//! The keys with the places of sinks: what is known of them, and the driver of a worker's place.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::clock::now;
use super::gate::Gate;
use super::lease::{Answer, Moment};
use super::nats::Bucket;
use super::place::{Ownership, PlaceStep, PlaceValue, Progress};
use crate::model::cluster::{Assigned, ClusterStatus, HostState};
use crate::model::event::Seq;
use crate::model::route::SinkName;
use crate::telemetry::Publish;

/// How the keys begin.
const PREFIX: &str = "place.";
/// Time for the last write of a place.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// Attempts to set a place back while workers write it.
const ATTEMPTS: usize = 20;

/// The key of a sink: characters that a key cannot have are written as `=2e`.
fn key(sink: &SinkName) -> String {
    let mut key = PREFIX.to_owned();
    for byte in sink.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"_-".contains(&byte) {
            key.push(char::from(byte));
        } else {
            // A text takes whatever is written to it.
            let _ = write!(key, "={byte:02x}");
        }
    }
    key
}

/// The places that the watch has told, by their keys, each with its revision; 0 if it was told of an earlier bucket.
pub(super) type Known = BTreeMap<String, (u64, PlaceValue)>;

/// The end of the task of the cluster.
#[derive(Debug)]
pub(super) struct PlacesIn {
    bucket: watch::Sender<Option<Arc<Bucket>>>,
    known: watch::Sender<Arc<Known>>,
    is_present: watch::Sender<bool>,
    gate: Gate,
}

/// The places of the sinks of the cluster; cheap to clone.
#[derive(Clone, Debug)]
pub struct Places {
    host: Arc<str>,
    bucket: watch::Receiver<Option<Arc<Bucket>>>,
    known: watch::Receiver<Arc<Known>>,
    is_present: watch::Receiver<bool>,
    gate: Gate,
    status: watch::Receiver<ClusterStatus>,
    assigned: watch::Receiver<Assigned>,
}

/// Builds both ends for the host of this name.
pub(super) fn places(
    host: &str,
    status: watch::Receiver<ClusterStatus>,
    assigned: watch::Receiver<Assigned>,
) -> (PlacesIn, Places) {
    let (bucket_in, bucket) = watch::channel(None);
    let (known_in, known) = watch::channel(Arc::default());
    let (present_in, is_present) = watch::channel(false);
    let gate = Gate::default();
    let task = PlacesIn { bucket: bucket_in, known: known_in, is_present: present_in, gate: gate.clone() };
    (task, Places { host: host.into(), bucket, known, is_present, gate, status, assigned })
}

impl PlacesIn {
    /// Whether the key belongs here.
    pub(super) fn has(key: &str) -> bool {
        key.starts_with(PREFIX)
    }

    /// Takes a bucket that was opened.
    pub(super) fn handle_opened(&self, bucket: &Arc<Bucket>) {
        self.bucket.send_replace(Some(Arc::clone(bucket)));
    }

    /// Takes the end of the bucket. The places are remembered for the next one.
    pub(super) fn handle_gone(&self) {
        self.bucket.send_replace(None);
        self.known.send_modify(|known| {
            let known = Arc::make_mut(known);
            known.values_mut().for_each(|(revision, _)| *revision = 0);
        });
    }

    /// Takes a change of a key. A person may delete one, to have the sink begin anew.
    pub(super) fn handle_change(&self, key: &str, revision: u64, value: Option<&[u8]>) {
        let Some(value) = value else {
            self.known.send_modify(|known| drop(Arc::make_mut(known).remove(key)));
            return;
        };
        let Ok(value) = serde_json::from_slice::<PlaceValue>(value) else { return };
        self.known.send_if_modified(|known| {
            let is_newer = known.get(key).is_none_or(|(before, _)| *before < revision);
            if is_newer {
                Arc::make_mut(known).insert(key.to_owned(), (revision, value));
            }
            is_newer
        });
    }

    /// Takes the end of the time for which the other hosts count this one as alive for sure.
    pub(super) fn publish_presence(&self, until: Option<Moment>) {
        self.gate.open_until(until);
        self.is_present.publish(self.gate.is_open());
    }
}

impl Places {
    /// Whether this host may work sinks now. The others take over what it has once it may not.
    pub fn may_work(&self) -> bool {
        self.gate.is_open()
    }

    /// Changes when [`Self::may_work`] does.
    pub fn presence(&self) -> watch::Receiver<bool> {
        self.is_present.clone()
    }

    pub fn assigned(&self) -> watch::Receiver<Assigned> {
        self.assigned.clone()
    }

    /// Whether the sink is assigned to this host.
    pub fn is_assigned(&self, sink: &SinkName) -> bool {
        self.assigned.borrow().has_sink(&self.host, sink)
    }

    /// The event up to which each assigned sink is done with everything.
    pub fn cursors(&self) -> BTreeMap<SinkName, Seq> {
        let sinks = Arc::clone(&self.assigned.borrow().sinks);
        let cursor = |sink: &SinkName| Some((sink.clone(), self.known(sink)?.cursor));
        sinks.keys().filter_map(cursor).collect()
    }

    /// The last known place of a sink.
    pub fn known(&self, sink: &SinkName) -> Option<PlaceValue> {
        self.known.borrow().get(&key(sink)).map(|(_, value)| value.clone())
    }

    fn bucket(&self) -> Option<Arc<Bucket>> {
        self.bucket.borrow().clone()
    }

    async fn put(&self, sink: &SinkName, value: &PlaceValue, expected: u64) -> Answer {
        let Some(bucket) = self.bucket() else { return Answer::Unknown };
        let text = serde_json::to_vec(value).expect("texts and numbers always make JSON");
        bucket.put(key(sink), text.into(), None, expected).await
    }

    /// Reads a place from the leader of the bucket; `None` if there was no answer.
    async fn read(&self, sink: &SinkName) -> Option<(u64, Option<PlaceValue>)> {
        let (revision, value) = self.bucket()?.read(&key(sink)).await?;
        Some((revision, value.and_then(|value| serde_json::from_slice(&value).ok())))
    }

    /// Gives a sink its first place, unless it has one. Returns whether it has one now.
    pub async fn found(&self, sink: &SinkName, place: &PlaceValue) -> bool {
        match self.read(sink).await {
            Some((_, Some(_))) => true,
            Some((revision, None)) => {
                let place = self.known(sink).unwrap_or_else(|| place.clone());
                matches!(self.put(sink, &place, revision).await, Answer::Done(_))
            }
            None => false,
        }
    }

    /// Sets the place of a sink back, so that it gets the events after `to` again. Its worker begins anew.
    ///
    /// # Errors
    /// The problem, as a sentence.
    pub async fn set_back(&self, sink: &SinkName, to: Seq) -> Result<(), String> {
        for _ in 0..ATTEMPTS {
            match self.read(sink).await {
                Some((revision, Some(value))) => {
                    match self.put(sink, &value.set_back(to), revision).await {
                        Answer::Done(_) => return Ok(()),
                        // The worker has written meanwhile.
                        Answer::Refused => {}
                        Answer::Unknown => break,
                    }
                }
                Some((_, None)) => {
                    return Err(format!(
                        "sink {sink} has no place in the shared log yet: no host has worked it; see `eventsubd hosts`"
                    ));
                }
                None => break,
            }
        }
        Err("NATS did not answer: try again; `eventsubd status` shows whether this host reaches it"
            .to_owned())
    }

    /// A worker's hold on the place of a sink that was assigned to this host.
    pub fn keeper(&self, sink: &SinkName) -> PlaceKeeper {
        let worker = uuid::Uuid::new_v4().to_string();
        let revision = self.assigned.borrow().revision;
        let core = Ownership::new(Arc::clone(&self.host), worker, revision);
        PlaceKeeper { places: self.clone(), sink: sink.clone(), core }
    }
}

/// The driver of one worker's place.
#[derive(Debug)]
pub struct PlaceKeeper {
    places: Places,
    sink: SinkName,
    core: Ownership,
}

impl PlaceKeeper {
    /// Gets hold of the place. `first` works out the place of a sink that never had one. Returns `None` when `stop` is
    /// cancelled.
    pub async fn claim<F>(&mut self, stop: &CancellationToken, first: impl Fn() -> F) -> Option<PlaceValue>
    where
        F: Future<Output = Option<PlaceValue>>,
    {
        loop {
            if let Some(held) = self.core.held() {
                return Some(held.clone());
            }
            if stop.is_cancelled() || self.core.is_over() {
                return None;
            }
            match self.poll() {
                Some(step) => self.carry_out(step, &first).await,
                None => self.wait(stop).await,
            }
        }
    }

    /// Writes the worker's progress until `ended`, or until somebody else has written the place.
    pub async fn keep(&mut self, mut progress: watch::Receiver<Progress>, ended: &CancellationToken) {
        let first = || std::future::ready(None);
        while !ended.is_cancelled() && !self.core.is_over() {
            self.core.record(&progress.borrow_and_update());
            match self.poll() {
                Some(step) => self.carry_out(step, &first).await,
                None => tokio::select! {
                    Ok(()) = progress.changed() => {}
                    () = self.wait(ended) => {}
                },
            }
        }
        self.core.record(&progress.borrow_and_update());
    }

    /// Gives the place up with the last progress, for the next worker.
    pub async fn release(mut self) {
        self.core.end();
        let first = || std::future::ready(None);
        let never = CancellationToken::new();
        let work = async {
            while !self.core.is_over() {
                match self.poll() {
                    Some(step) => self.carry_out(step, &first).await,
                    None => self.wait(&never).await,
                }
            }
        };
        if tokio::time::timeout(LAST_WRITE, work).await.is_err() {
            warn!("NATS did not take the sink's place; the last events are sent again by the next worker");
        }
    }

    fn poll(&mut self) -> Option<PlaceStep> {
        if self.places.is_assigned(&self.sink) {
            self.core.handle_assigned(self.places.assigned.borrow().revision);
        }
        let status = self.places.status.borrow();
        let is_up = |host: &str| {
            status.hosts.iter().any(|known| known.name == host && known.state != HostState::Down)
        };
        self.core.poll(now(), is_up)
    }

    async fn carry_out<F>(&mut self, step: PlaceStep, first: &impl Fn() -> F)
    where
        F: Future<Output = Option<PlaceValue>>,
    {
        match step {
            PlaceStep::Read => {
                let found = match self.places.read(&self.sink).await {
                    Some((revision, Some(value))) => Some((revision, value)),
                    // A bucket that was deleted is made again: the last place of the earlier one counts.
                    Some((revision, None)) => match self.places.known(&self.sink) {
                        Some(known) => {
                            let (host, worker) = (String::new(), String::new());
                            Some((revision, PlaceValue { host, worker, ..known }))
                        }
                        None => first().await.map(|value| (revision, value)),
                    },
                    None => None,
                };
                self.core.handle_read(found, now());
            }
            PlaceStep::Write { expected, value } => {
                let answer = self.places.put(&self.sink, &value, expected).await;
                self.core.handle_answer(answer, now());
            }
        }
    }

    /// Waits until there may be a step, or `stop` is cancelled.
    async fn wait(&mut self, stop: &CancellationToken) {
        let key = key(&self.sink);
        if let Some((revision, value)) = self.places.known.borrow_and_update().get(&key) {
            self.core.handle_change(*revision, value, now());
        }
        if self.core.is_over() {
            return;
        }
        let due = self.core.poll_timeout().map(|at| at.saturating_sub(now()));
        let sleep = async {
            match due {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep => {}
            Ok(()) = self.places.known.changed() => {}
            Ok(()) = self.places.bucket.changed() => self.core.doubt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_outlive_their_bucket_and_not_their_deletion() {
        let (_status, status) = watch::channel(ClusterStatus::default());
        let (_assigned, assigned) = watch::channel(Assigned::default());
        let (task, places) = places("web-1", status, assigned);
        let sink = SinkName::new("log");
        let cursor = || places.known(&sink).map(|place| place.cursor.0);
        let value = |cursor: u64| format!("{{\"cursor\":{cursor}}}").into_bytes();
        task.handle_change("place.log", 7, Some(&value(5)));
        task.handle_change("place.log", 6, Some(&value(4)));
        assert_eq!(cursor(), Some(5), "an older revision changes nothing");
        task.handle_change("place.log", 8, Some(b"no place"));
        assert_eq!(cursor(), Some(5));
        task.handle_gone();
        assert_eq!(cursor(), Some(5));
        task.handle_change("place.log", 2, Some(&value(9)));
        assert_eq!(cursor(), Some(9), "the next bucket counts anew");
        task.handle_change("place.log", 3, None);
        assert_eq!(cursor(), None);
    }

    #[test]
    fn every_name_of_a_sink_makes_a_key() {
        for (name, expected) in
            [("log", "place.log"), ("my.sink.", "place.my=2esink=2e"), ("ü", "place.=c3=bc")]
        {
            assert_eq!(key(&SinkName::new(name)), expected);
        }
    }
}
