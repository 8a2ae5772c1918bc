//! The bucket over its replacements: opens it, watches its keys, and runs the operations on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::super::assign::Assignment;
use super::super::assigner::{ASSIGNMENT, Found, Step};
use super::super::clock::now;
use super::super::era::{Era, Look};
use super::super::lease::{Answer, Holder, Moment, Seen, Times, Write};
use super::super::nats::{Bucket, ClusterError, Connection, KeyChange, KeyState, change};
use super::super::parts;
use super::super::presence::HostValue;
use super::super::sessions::PartValue;
use super::super::standing::Which;
use super::super::values::GroupWrite;
use crate::model::cluster::ClusterOptions;
use crate::model::text::chain;

/// Pause after a bucket that could not be opened, and after a watch that ended.
const REOPEN: Duration = Duration::from_secs(1);
/// Changes of keys that wait for the task.
const CHANGES: usize = 256;
/// The key of the lease of the leader.
const LEADER: &str = "leader";
/// How the keys of hosts begin.
const HOST: &str = "host.";

/// The end of an operation.
#[derive(Debug)]
pub(super) enum Done {
    Opened(Result<Arc<Bucket>, ClusterError>),
    Looked(Look),
    /// With the newest revision that was known when it was sent.
    Written(Which, Answer, u64),
    /// A lease as it was read after a refused write, if there was an answer.
    Read(Which, Option<Seen>),
    /// A write of shared values; the state of its key if it was refused.
    Saved(GroupWrite, Answer, Option<KeyState>),
    /// A write of the assignment.
    Assigned(Answer),
    /// The assignment as it was read, under this lease.
    AssignmentRead(Option<Found>, u64),
    /// A further key with sockets of this host was written, or not.
    PartWritten(bool),
}

/// Something that has happened in or to the bucket.
#[derive(Debug)]
pub(super) enum Happened {
    Done(Done),
    Changed(KeyChange),
}

/// The owner of a key, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyOf<'a> {
    Leader,
    /// The presence of the host of this name.
    Host(&'a str),
    /// The further key of a host with this number.
    Part(&'a str, u32),
    Assignment,
    Other,
}

impl<'a> KeyOf<'a> {
    pub(super) fn of(key: &'a str) -> Self {
        match key.strip_prefix(HOST) {
            Some(name) => Self::Host(name),
            None if key == LEADER => Self::Leader,
            None if key == ASSIGNMENT => Self::Assignment,
            None => parts::read_key(key).map_or(Self::Other, |(host, part)| Self::Part(host, part)),
        }
    }
}

/// Aborts the task that reads the watch.
#[derive(Debug)]
struct Watching(JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The driver of the bucket.
#[derive(Debug)]
pub(super) struct BucketDriver {
    options: ClusterOptions,
    connection: Result<Connection, ClusterError>,
    bucket: Option<Arc<Bucket>>,
    /// Why there is no bucket.
    failure: Option<ClusterError>,
    watching: Option<Watching>,
    /// The other end of the watch.
    told: mpsc::Receiver<KeyChange>,
    /// Whether all keys that there were at the start are known.
    is_synced: bool,
    era: Era,
    /// Operations under way, each with the number of the bucket that it is about.
    running: FuturesUnordered<BoxFuture<'static, (u64, Done)>>,
}

impl BucketDriver {
    /// Begins to open the bucket.
    pub(super) fn start(options: ClusterOptions, connection: Result<Connection, ClusterError>) -> Self {
        if let Err(failure) = &connection {
            error!(error = chain(failure), "the cluster cannot be used; this host stands by");
        }
        let driver = Self {
            options,
            connection,
            bucket: None,
            failure: None,
            watching: None,
            told: mpsc::channel(1).1,
            is_synced: false,
            era: Era::default(),
            running: FuturesUnordered::new(),
        };
        driver.open(Duration::ZERO);
        driver
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref().ok()
    }

    /// Why NATS or the bucket cannot be used.
    pub(super) fn failure(&self) -> Option<ClusterError> {
        match &self.connection {
            Err(failure) => Some(failure.clone()),
            Ok(connection) => connection.problem().or_else(|| self.failure.clone()),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.bucket.is_some()
    }

    /// Whether all keys that there were when the bucket was opened are known.
    pub(super) fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// When this host may contend for the lease of the leader.
    pub(super) fn lead_after(&self) -> Moment {
        self.era.lead_after()
    }

    /// Returns the next thing that happens. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Happened {
        loop {
            tokio::select! {
                Some((era, done)) = self.running.next() => {
                    if era == self.era.number() {
                        return Happened::Done(done);
                    }
                }
                Some(change) = self.told.recv() => {
                    self.is_synced |= change.is_current;
                    self.era.record_revision(change.revision);
                    return Happened::Changed(change);
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Runs an operation on the bucket, if it is open.
    fn spawn<F>(&self, operation: impl FnOnce(Arc<Bucket>) -> F)
    where
        F: Future<Output = Done> + Send + 'static,
    {
        if let Some(bucket) = &self.bucket {
            let (era, done) = (self.era.number(), operation(Arc::clone(bucket)));
            self.running.push(Box::pin(async move { (era, done.await) }));
        }
    }

    fn open(&self, pause: Duration) {
        let Ok(connection) = &self.connection else { return };
        let (connection, options) = (connection.clone(), self.options.clone());
        let (era, newest) = (self.era.number(), self.era.newest());
        self.running.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            connection.tried().await;
            (era, Done::Opened(Bucket::open(connection, options, newest).await.map(Arc::new)))
        }));
    }

    /// Takes the end of an attempt to open the bucket; `has_led` if this host leads, or did when it was cut off. Returns the
    /// bucket if it is open now.
    pub(super) fn handle_opened(
        &mut self,
        opened: Result<Arc<Bucket>, ClusterError>,
        has_led: bool,
    ) -> Option<&Arc<Bucket>> {
        match opened {
            Ok(bucket) => {
                info!(bucket = self.options.name, host = self.options.host, "joined the cluster");
                let (made, age) = bucket.made();
                self.era.handle_opened(made, age, has_led, now());
                self.failure = None;
                Some(self.bucket.insert(bucket))
            }
            Err(failure) => {
                if self.failure.as_ref() != Some(&failure) {
                    warn!(error = chain(&failure), "the cluster cannot be used; this host stands by");
                }
                self.failure = Some(failure);
                self.open(REOPEN);
                None
            }
        }
    }

    /// Looks whether the bucket is still the same, as a write has failed.
    fn look(&mut self) {
        if self.bucket.is_some() && self.era.begin_look(now()) {
            self.spawn(|bucket| async move { Done::Looked(bucket.look().await) });
        }
    }

    /// Takes the end of a look. If the bucket was deleted, begins anew in another one, and returns whether all keys of the
    /// deleted one were known.
    pub(super) fn handle_looked(&mut self, look: Look) -> Option<bool> {
        if !self.era.handle_look(look, now()) {
            return None;
        }
        let failure = ClusterError::Gone { bucket: self.options.name.clone() };
        warn!(error = chain(&failure), "the bucket is made again");
        (self.bucket, self.watching, self.failure) = (None, None, Some(failure));
        self.told = mpsc::channel(1).1;
        self.open(Duration::ZERO);
        Some(std::mem::take(&mut self.is_synced))
    }

    /// Notes the answer to a write of a lease, with the newest revision that was known when it was sent. If the answer's own
    /// is not above that, the bucket has older data than before, and is deleted: what the hosts remember is newer.
    pub(super) fn record_written(&mut self, answer: Answer, newest: u64) {
        self.record_answer(answer);
        let is_older = matches!(answer, Answer::Done(revision) if revision <= newest);
        if is_older && self.era.begin_look(now()) {
            warn!("the bucket has lost its newest changes, or older data were restored; it is deleted");
            self.spawn(|bucket| async move { Done::Looked(bucket.remove().await) });
        }
    }

    /// Notes the answer to a write of a lease or of the assignment.
    pub(super) fn record_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Done(revision) => self.era.record_revision(revision),
            Answer::Refused | Answer::Unknown => self.look(),
        }
    }

    /// Watches the keys of the bucket, again if the last watch has ended.
    pub(super) fn watch(&mut self) {
        let Some(bucket) = &self.bucket else { return };
        if self.watching.as_ref().is_none_or(|watching| watching.0.is_finished()) {
            let (changes, told) = mpsc::channel(CHANGES);
            self.told = told;
            self.watching = Some(Watching(tokio::spawn(watch_keys(Arc::clone(bucket), changes))));
        }
    }

    /// Writes the key of this host.
    pub(super) fn write_host(&self, write: Write, value: &HostValue) {
        self.write(Which::Host, write, json(value));
    }

    /// Writes the key of the leader.
    pub(super) fn write_leader(&self, write: Write, holder: &Holder) {
        self.write(Which::Leader, write, json(holder));
    }

    fn write(&self, which: Which, write: Write, value: Bytes) {
        let (key, newest) = (self.key(which), self.era.newest());
        self.spawn(|bucket| async move {
            let answer = match write {
                Write::Put { expected } => bucket.put(key, value, Some(Times::DEFAULT.ttl), expected).await,
                Write::Purge { expected } => bucket.purge(key, expected).await,
            };
            Done::Written(which, answer, newest)
        });
    }

    /// Reads the key of a lease.
    pub(super) fn read(&self, which: Which) {
        let key = self.key(which);
        self.spawn(|bucket| async move {
            Done::Read(
                which,
                bucket.read(&key).await.map(|(revision, value)| seen(revision, value.as_deref())),
            )
        });
    }

    fn key(&self, which: Which) -> String {
        match which {
            Which::Host => format!("{HOST}{}", self.options.host),
            Which::Leader => LEADER.to_owned(),
        }
    }

    /// Writes a further key with sockets of this host.
    pub(super) fn write_part(&self, part: u32, value: &PartValue) {
        let (key, value) = (parts::key(&self.options.host, part), json(value));
        self.spawn(|bucket| async move { Done::PartWritten(bucket.put_own(key, value, parts::TTL).await) });
    }

    /// Writes a key of shared values, and reads it if that is refused.
    pub(super) fn save(&self, write: GroupWrite) {
        self.spawn(|bucket| async move {
            let GroupWrite { key, expected, group } = &write;
            let answer = bucket.put(key.clone(), json(group), None, *expected).await;
            let state = if answer == Answer::Refused { bucket.read(key).await } else { None };
            Done::Saved(write, answer, state)
        });
    }

    /// Takes the next step with the key of the assignment, under the lease `epoch`.
    pub(super) fn assign(&self, step: Step, epoch: u64) {
        match step {
            Step::Write { expected, value } => self.spawn(|bucket| async move {
                Done::Assigned(bucket.put(ASSIGNMENT.to_owned(), json(&value), None, expected).await)
            }),
            Step::Read => self.spawn(move |bucket| async move {
                let state = bucket.read(ASSIGNMENT).await;
                Done::AssignmentRead(
                    state.map(|(revision, value)| assignment(revision, value.as_deref())),
                    epoch,
                )
            }),
        }
    }
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("texts and numbers always make JSON").into()
}

/// A state of a key whose value names its holder.
pub(super) fn seen(revision: u64, value: Option<&[u8]>) -> Seen {
    // A value that cannot be read is held by somebody unknown.
    let unknown = || Holder { instance: String::new(), run: String::new() };
    let holder = value.map(|value| serde_json::from_slice(value).unwrap_or_else(|_| unknown()));
    Seen { revision, holder }
}

/// A state of the key of the assignment. One that cannot be read is written anew by the leader.
pub(super) fn assignment(revision: u64, value: Option<&[u8]>) -> Found {
    (revision, value.and_then(|value| serde_json::from_slice::<Assignment>(value).ok()))
}

/// Reads the watch until it ends; then another one is begun.
async fn watch_keys(bucket: Arc<Bucket>, changes: mpsc::Sender<KeyChange>) {
    if let Some(mut watch) = bucket.watch().await {
        while let Some(Ok(entry)) = watch.next().await {
            if changes.send(change(entry)).await.is_err() {
                return;
            }
        }
    }
    tokio::time::sleep(REOPEN).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_owner() {
        for (key, owner) in [
            ("leader", KeyOf::Leader),
            ("host.web-1", KeyOf::Host("web-1")),
            ("host.leader", KeyOf::Host("leader")),
            ("sockets.web.1.2", KeyOf::Part("web.1", 2)),
            ("sockets.web.0", KeyOf::Other),
            ("assign", KeyOf::Assignment),
            ("set.places", KeyOf::Other),
        ] {
            assert_eq!(KeyOf::of(key), owner, "{key}");
        }
    }

    #[test]
    fn values_of_strangers_are_held_by_somebody_unknown() {
        let found = seen(4, Some(b"{"));
        assert_eq!(found.holder.map(|holder| holder.run), Some(String::new()));
        assert_eq!(seen(5, None), Seen { revision: 5, holder: None });
        assert_eq!(assignment(6, Some(b"[]")), (6, None));
    }
}
