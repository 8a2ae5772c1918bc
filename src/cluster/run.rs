//! The driver: keeps the keys of this host, watches those of the others, and writes the shared values.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::age::Age;
use super::ask::{self, Asked, Reply};
use super::assign::{Assignment, Work};
use super::assigner::{ASSIGNMENT, Assigner, Found, Step};
use super::era::{Era, Look};
use super::gate::Gate;
use super::hints::{HintExchange, HintSender, hints};
use super::lease::{Answer, Holder, Lease, Moment, Seen, Times, Write};
use super::nats::{Bucket, ClusterError, Connection, KeyChange, KeyState, change};
use super::parts::{self, PARTED, PartWriter};
use super::places::{Places, PlacesIn, places};
use super::presence::{ASSIGN, HostValue, Hosts};
use super::self_binding::{SelfBinding, SelfBindingIn, self_binding};
use super::sessions::{HostSockets, PartValue, SocketsValue};
use super::shared::{Shared, SharedIn, shared};
use super::sight::Sight;
use super::term::Terms;
use super::values::{GAPS, Group, GroupWrite, PLACES, SharedValues};
use crate::model::cluster::{
    Assigned, ClusterOptions, ClusterStatus, DaemonRequest, ForwardStatus, HostRequest, LeaderRequest,
    Leadership, Role,
};
use crate::model::hint::Hint;
use crate::model::shard::HandedOver;
use crate::model::text::{chain, duration};
use crate::model::time::Timestamp;
use crate::store::since_boot;
use crate::telemetry::Publish;

/// The key of the lease of the leader.
const LEADER: &str = "leader";
/// How the keys of hosts begin.
const HOST: &str = "host.";
/// Pause after a bucket that could not be opened, and after a watch that ended.
const REOPEN: Duration = Duration::from_secs(1);
/// How often the status is worked out anew when nothing happens.
const LOOK: Duration = Duration::from_secs(1);
/// Changes of keys that wait for the task.
const CHANGES: usize = 256;

/// Facts about this host that the others are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Fingerprint of the file, without what belongs to one host.
    pub fingerprint: String,
    /// Shards whose sockets are open here.
    pub shards: Vec<u32>,
    /// Sinks that are worked here.
    pub sinks: Vec<String>,
    /// Events that are stored here, and that the shared log does not have.
    pub forward_lag: u64,
    /// The sockets that are read here.
    pub sockets: Arc<HostSockets>,
    /// Sessions that were replaced by others' and that were read to their end here.
    pub handed_over: HandedOver,
    /// Whether no shard delivers here, and Twitch cannot be reached for it.
    pub is_failing: bool,
}

/// Values that other parts of this host publish for the cluster.
#[derive(Clone, Debug)]
pub struct Inputs {
    pub facts: watch::Receiver<HostFacts>,
    /// The work that this host assigns if it leads.
    pub work: watch::Receiver<Work>,
    /// Takes requests to the daemon that leads.
    pub daemon: mpsc::Sender<Asked<DaemonRequest>>,
}

/// The shared values could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaveError {
    /// This host does not lead, or does not any more.
    #[error(
        "this host does not lead the cluster any more, and the next leader goes on; `eventsubd hosts` shows who leads"
    )]
    NotLeading,
    /// NATS has not answered; the write may have been carried out.
    #[error(
        "NATS did not answer, and the write is tried again; if this lasts, look at `eventsubd status` here and at \
         `systemctl status nats-server` on the hosts of NATS"
    )]
    NoAnswer,
    /// The task has ended.
    #[error("the daemon is stopping")]
    Stopping,
}

enum Request {
    Load {
        prefix: String,
        reply: oneshot::Sender<Option<Vec<(String, String)>>>,
    },
    /// The age of what the watch over gaps knows.
    GapAge {
        reply: oneshot::Sender<Option<Duration>>,
    },
    Save {
        changes: Vec<(String, Option<String>)>,
        reply: oneshot::Sender<Result<(), SaveError>>,
    },
    Leave,
    Resign {
        reply: oneshot::Sender<()>,
    },
}

/// Asks the task; cheap to clone.
#[derive(Clone, Debug)]
pub struct ClusterHandle {
    /// Orders for the parts that only the leader runs.
    pub leadership: watch::Receiver<Leadership>,
    pub status: watch::Receiver<ClusterStatus>,
    /// Which host has which work.
    pub assigned: watch::Receiver<Assigned>,
    pub gate: Gate,
    /// The places of sinks.
    pub places: Places,
    hints: HintSender,
    pub(super) shards: Shared,
    pub(super) self_binding: SelfBinding,
    requests: mpsc::Sender<Request>,
    asked: mpsc::Sender<Asked<LeaderRequest>>,
}

impl ClusterHandle {
    /// Asks the leader, which may be this host.
    ///
    /// # Errors
    /// The reason, as a sentence.
    pub async fn ask(&self, request: LeaderRequest) -> Reply {
        ask::hand_in(&self.asked, request, false).await
    }

    /// The shared values whose names begin with `prefix`; `None` if they are not known, as NATS was never reached.
    pub async fn load(&self, prefix: &str) -> Option<Vec<(String, String)>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Load { prefix: prefix.to_owned(), reply }).await.ok()?;
        answer.await.ok()?
    }

    /// The time since the shared memory of the watch over gaps was written, by the clock of the NATS servers; `None` if
    /// there is none.
    pub async fn gap_age(&self) -> Option<Duration> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::GapAge { reply }).await.ok()?;
        answer.await.ok()?
    }

    /// Open while this host may bind its own shards itself, as no leader can be expected to.
    pub fn self_binding_gate(&self) -> Gate {
        self.self_binding.gate.clone()
    }

    /// Tells the other hosts a hint that has reached this one.
    pub fn hint(&self, hint: Hint) {
        self.hints.send(hint);
    }

    /// Changes shared values, if this host leads; a name without a value is removed.
    ///
    /// # Errors
    /// See [`SaveError`].
    pub async fn save(&self, changes: Vec<(String, Option<String>)>) -> Result<(), SaveError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Save { changes, reply };
        self.requests.send(request).await.map_err(|_| SaveError::Stopping)?;
        answer.await.unwrap_or(Err(SaveError::Stopping))
    }

    /// Says that this host is leaving, so that its work goes to others. The leader goes on leading meanwhile.
    pub async fn leave(&self) {
        // An error is the end of the task, which other hosts notice as well.
        let _ = self.requests.send(Request::Leave).await;
    }

    /// Says that this host is leaving, and gives the lease up if it has it. Returns once it is given up.
    pub async fn resign(&self) {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::Resign { reply }).await.is_ok() {
            // An error is the end of the task, and with it of the lease.
            let _ = answer.await;
        }
    }
}

/// The task; see [`cluster`].
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    tls: rustls::ClientConfig,
    holder: Holder,
    inputs: Inputs,
    /// Values that this host remembered before the cluster had any.
    own_values: Vec<(String, String)>,
    requests: mpsc::Receiver<Request>,
    ask: mpsc::Sender<Asked<LeaderRequest>>,
    asked: mpsc::Receiver<Asked<LeaderRequest>>,
    leadership: watch::Sender<Leadership>,
    status: watch::Sender<ClusterStatus>,
    assigned: watch::Sender<Assigned>,
    gate: Gate,
    hints: HintExchange,
    places: PlacesIn,
    shards: SharedIn,
    self_binding: SelfBindingIn,
}

/// Builds the task; nothing happens until it is run.
///
/// `instance` names the state directory. `own_values` are what the first leader of a new cluster gives it. The last value
/// has the hints that other hosts tell.
pub fn cluster(
    options: ClusterOptions,
    tls: rustls::ClientConfig,
    instance: String,
    inputs: Inputs,
    own_values: Vec<(String, String)>,
) -> (Cluster, ClusterHandle, mpsc::Receiver<Hint>) {
    let (leadership, leadership_out) = watch::channel(Leadership::default());
    let status =
        ClusterStatus { name: options.name.clone(), host: options.host.clone(), ..ClusterStatus::default() };
    let (status, status_out) = watch::channel(status);
    let (assigned, assigned_out) = watch::channel(Assigned::default());
    let (requests_in, requests) = mpsc::channel(16);
    let (ask, asked) = mpsc::channel(16);
    let gate = Gate::default();
    let (hints, sender, heard) = hints();
    let (shards, shared) = shared(options.host.clone());
    let (self_binding_in, self_binding) = self_binding();
    let (places_in, places) = places(&options.host, status_out.clone(), assigned_out.clone());
    let run = uuid::Uuid::new_v4().to_string();
    let holder = Holder { instance, run };
    let handle = ClusterHandle {
        leadership: leadership_out,
        status: status_out,
        assigned: assigned_out,
        gate: gate.clone(),
        places,
        hints: sender,
        shards: shared,
        self_binding,
        requests: requests_in,
        asked: ask.clone(),
    };
    let task = Cluster {
        options,
        tls,
        holder,
        inputs,
        own_values,
        requests,
        ask,
        asked,
        leadership,
        status,
        assigned,
        gate,
        hints,
        places: places_in,
        shards,
        self_binding: self_binding_in,
    };
    (task, handle, heard)
}

impl Cluster {
    /// Runs until cancelled. The keys of this host are not removed: see [`ClusterHandle::resign`].
    pub async fn run(self, cancel: CancellationToken) {
        let changed = Arc::new(Notify::new());
        let Cluster { options, tls, .. } = &self;
        let connection = Connection::start(options, tls.clone(), Arc::clone(&changed)).await;
        let (subject, asked) = (ask::subject(&options.name, &options.host), self.ask.clone());
        let (name, own, connected) = (options.name.clone(), self.holder.run.clone(), connection.clone());
        let (driver, hints) = Driver::new(self, connection);
        let exchange = async {
            match &connected {
                Ok(connection) => {
                    tokio::join!(
                        hints.run(connection, &name, &own),
                        ask::serve(connection.clone(), subject, asked)
                    );
                }
                // The driver says why.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = driver.run(changed, cancel) => {}
            () = exchange => {}
        }
    }
}

fn now() -> Moment {
    Duration::from_millis(since_boot())
}

fn wall() -> Timestamp {
    Timestamp(SystemTime::now())
}

/// Which of the two leases of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Host,
    Leader,
}

/// The end of something that was started.
enum Done {
    Opened(Result<Arc<Bucket>, ClusterError>),
    Looked(Look),
    Written(Which, Answer),
    Read(Which, Option<Seen>),
    /// A write of shared values; the state of its key if it was refused.
    Saved(GroupWrite, Answer, Option<KeyState>),
    /// A write of the assignment.
    Assigned(Answer),
    /// The assignment as it was read, under this lease.
    AssignmentRead(Option<KeyState>, u64),
    /// A request of this host was answered by the leader, or not.
    PassedOn,
    /// A further key with sockets of this host was written, or not.
    PartWritten(bool),
}

/// The writes of one [`Request::Save`], or of a claim.
struct Save {
    /// Under which lease.
    epoch: u64,
    writes: Vec<GroupWrite>,
    /// `None` for a claim.
    reply: Option<oneshot::Sender<Result<(), SaveError>>>,
    /// For a claim, the lease under which the places were written last, and whether that leader had the same file. Taken
    /// before the write: the watch may tell of the write itself before its answer comes.
    before: Option<(u64, bool)>,
}

/// Aborts the task that reads the watch.
struct Watching(JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Driver {
    options: ClusterOptions,
    holder: Holder,
    inputs: Inputs,
    own_values: Vec<(String, String)>,
    requests: mpsc::Receiver<Request>,
    asked: mpsc::Receiver<Asked<LeaderRequest>>,
    /// The way back of each change of a host that is not in the bucket yet, with what is said then.
    edits: VecDeque<(oneshot::Sender<Reply>, String)>,
    leadership: watch::Sender<Leadership>,
    status: watch::Sender<ClusterStatus>,
    assigned: watch::Sender<Assigned>,
    gate: Gate,
    places: PlacesIn,
    shards: SharedIn,
    self_binding: SelfBindingIn,
    connection: Result<Connection, ClusterError>,
    bucket: Option<Arc<Bucket>>,
    /// Why there is no bucket.
    failure: Option<ClusterError>,
    watching: Option<Watching>,
    /// The other end of the watch.
    told: mpsc::Receiver<KeyChange>,
    /// Whether all keys that there were at the start are known.
    is_synced: bool,
    host: Lease,
    /// Further keys with sockets of this host.
    parts: PartWriter,
    leader: Lease,
    hosts: Hosts,
    assigner: Assigner,
    values: SharedValues,
    gap_age: Age,
    /// Count of changes of shared values by others.
    known: u64,
    terms: Terms,
    save: Option<Save>,
    is_leaving: bool,
    resigning: Vec<oneshot::Sender<()>>,
    since: Timestamp,
    /// Fingerprint of the file in force.
    fingerprint: String,
    era: Era,
    sight: Sight,
    /// Whether Twitch counts as out of reach from here.
    is_blind: bool,
    /// Operations under way, each with the number of the bucket that it is about.
    running: FuturesUnordered<BoxFuture<'static, (u64, Done)>>,
}

impl Driver {
    fn new(task: Cluster, connection: Result<Connection, ClusterError>) -> (Self, HintExchange) {
        let Cluster {
            options,
            holder,
            inputs,
            own_values,
            requests,
            asked,
            leadership,
            status,
            assigned,
            gate,
            hints,
            places,
            shards,
            self_binding,
            ..
        } = task;
        let at = now();
        let host = Lease::new(holder.clone(), Times::DEFAULT, at);
        let mut leader = Lease::new(holder.clone(), Times::DEFAULT, at);
        // Only a host whose name is its own may lead.
        leader.resign(at);
        let (_, told) = mpsc::channel(1);
        let fingerprint = inputs.facts.borrow().fingerprint.clone();
        let mut assigner = Assigner::default();
        assigner.handle_work(inputs.work.borrow().clone());
        let driver = Self {
            options,
            holder,
            inputs,
            own_values,
            requests,
            asked,
            edits: VecDeque::new(),
            leadership,
            status,
            assigned,
            gate,
            places,
            shards,
            self_binding,
            connection,
            bucket: None,
            failure: None,
            watching: None,
            told,
            is_synced: false,
            host,
            parts: PartWriter::default(),
            leader,
            hosts: Hosts::default(),
            assigner,
            values: SharedValues::default(),
            gap_age: Age::default(),
            known: 0,
            terms: Terms::default(),
            save: None,
            is_leaving: false,
            resigning: Vec::new(),
            since: wall(),
            fingerprint,
            era: Era::default(),
            sight: Sight::default(),
            is_blind: false,
            running: FuturesUnordered::new(),
        };
        (driver, hints)
    }

    async fn run(mut self, changed: Arc<Notify>, cancel: CancellationToken) {
        if let Err(failure) = &self.connection {
            error!(error = chain(failure), "the cluster cannot be used; this host stands by");
        }
        self.open_bucket(Duration::ZERO);
        loop {
            self.act();
            self.publish();
            let pause = self.next_poll().saturating_sub(now());
            tokio::select! {
                () = cancel.cancelled() => break,
                Some((era, done)) = self.running.next() => {
                    if era == self.era.number() {
                        self.handle(done);
                    }
                }
                Some(change) = self.told.recv() => self.handle_change(change),
                // One save after the other.
                Some(request) = self.requests.recv(), if self.save.is_none() => self.handle_request(request),
                Some(asked) = self.asked.recv() => self.handle_asked(asked),
                Ok(()) = self.inputs.facts.changed() => self.handle_facts(),
                Ok(()) = self.inputs.work.changed() => {
                    let work = self.inputs.work.borrow_and_update().clone();
                    self.assigner.handle_work(work);
                }
                () = changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.gate.open_until(None);
        self.self_binding.end();
    }

    fn open_bucket(&mut self, pause: Duration) {
        let Ok(connection) = &self.connection else { return };
        let (connection, options, newest) = (connection.clone(), self.options.clone(), self.era.newest());
        self.spawn(async move {
            tokio::time::sleep(pause).await;
            connection.tried().await;
            Done::Opened(Bucket::open(connection, options, newest).await.map(Arc::new))
        });
    }

    fn spawn(&self, work: impl Future<Output = Done> + Send + 'static) {
        let era = self.era.number();
        self.running.push(Box::pin(async move { (era, work.await) }));
    }

    /// Looks whether the bucket is still the same, as a write has failed.
    fn look(&mut self) {
        if let Some(bucket) = self.bucket.clone()
            && self.era.begin_look(now())
        {
            self.spawn(async move { Done::Looked(bucket.look().await) });
        }
    }

    /// Begins anew in another bucket: this one was deleted. What the hosts share is remembered, for the first leader to
    /// write it again.
    fn replace_bucket(&mut self) {
        let at = now();
        let failure = ClusterError::Gone { bucket: self.options.name.clone() };
        warn!(error = chain(&failure), "the bucket is made again");
        if self.is_synced {
            self.own_values = self.values.load("");
        }
        self.end_save(Err(SaveError::NoAnswer));
        (self.bucket, self.watching, self.failure) = (None, None, Some(failure));
        self.places.handle_gone();
        (_, self.told) = mpsc::channel(1);
        (self.is_synced, self.hosts, self.values) = (false, Hosts::default(), SharedValues::default());
        self.gap_age = Age::default();
        self.assigner.handle_new_bucket();
        self.parts.handle_new_bucket();
        (self.host, self.leader) = (self.host.anew(at), self.leader.anew(at));
        self.leader.resign(at);
        self.open_bucket(Duration::ZERO);
    }

    fn next_poll(&self) -> Moment {
        let soon = now() + LOOK;
        let Some(_) = self.bucket else { return soon };
        let end = self.leader.good_until().filter(|end| *end > now());
        let lead_after = Some(self.era.lead_after()).filter(|after| *after > now());
        [self.host.next_poll(), self.leader.next_poll(), end, lead_after]
            .into_iter()
            .flatten()
            .fold(soon, Moment::min)
    }

    /// Starts what is due.
    fn act(&mut self) {
        let Some(bucket) = self.bucket.clone() else { return };
        let at = now();
        if self.watching.as_ref().is_none_or(|watching| watching.0.is_finished()) {
            let (changes, told) = mpsc::channel(CHANGES);
            self.told = told;
            self.watching = Some(Watching(tokio::spawn(watch_keys(Arc::clone(&bucket), changes))));
        }
        self.look_at_twitch(at);
        let yields = self.is_blind && self.hosts.another_may_lead(&self.options.host, at);
        let hands_over = self.assigner.hands_over(&self.options.host, &self.hosts, at);
        if !self.is_leaving && (hands_over || yields || self.host.is_taken()) {
            self.leader.resign(at);
        } else if self.host.epoch(at).is_some() && !self.is_leaving && at >= self.era.lead_after() {
            self.leader.contend(at);
        }
        if let Some(write) = self.host.poll(at) {
            let value = self.host_value();
            self.start(&bucket, Which::Host, write, value);
        }
        self.write_part(&bucket, at);
        if let Some(write) = self.leader.poll(at) {
            let value = json(&self.holder);
            self.start(&bucket, Which::Leader, write, value);
        }
        if self.save.is_none() && self.is_synced && self.terms.must_claim(self.leader.epoch(at)) {
            self.claim();
        }
        self.assign(&bucket);
        if self.is_leaving && self.leader.is_given_up() {
            for reply in self.resigning.drain(..) {
                // The caller may have given up waiting.
                let _ = reply.send(());
            }
        }
    }

    /// The lease under which this host leads, if it does.
    fn leads(&self, at: Moment) -> Option<u64> {
        self.leader.epoch(at).filter(|epoch| self.terms.leads(Some(*epoch)))
    }

    /// Brings the assignment up to date, if this host leads.
    fn assign(&mut self, bucket: &Arc<Bucket>) {
        let (bucket, at) = (Arc::clone(bucket), now());
        for _ in 0..self.assigner.take_edited() {
            self.end_edit(|said| Ok(serde_json::Value::from(said).to_string()));
        }
        let Some(epoch) = self.leads(at) else {
            // The watch may have told of a write, such as one that drains this host, before its answer comes.
            if self.assigner.is_writing() {
                return;
            }
            self.assigner.drop_edits();
            while !self.edits.is_empty() {
                self.end_edit(|_| {
                    Err("this host does not lead any more: see `eventsubd hosts`, and try again".to_owned())
                });
            }
            return;
        };
        match self.assigner.poll(epoch, &self.hosts, (at, wall())) {
            Some(Step::Write { expected, value }) => self.spawn(async move {
                Done::Assigned(bucket.put(ASSIGNMENT.to_owned(), json(&value), None, expected).await)
            }),
            Some(Step::Read) => {
                self.spawn(async move { Done::AssignmentRead(bucket.read(ASSIGNMENT).await, epoch) });
            }
            None => {}
        }
    }

    fn end_edit(&mut self, outcome: impl Fn(String) -> Reply) {
        if let Some((reply, said)) = self.edits.pop_front() {
            // The person may have given up waiting.
            let _ = reply.send(outcome(said));
        }
    }

    fn handle_asked(&mut self, asked: Asked<LeaderRequest>) {
        let Asked { request, is_passed_on, reply } = asked;
        let at = now();
        let is_here = match request.sink() {
            Some(sink) => self.assigned.borrow().has_sink(&self.options.host, sink),
            None => self.leads(at).is_some(),
        };
        if !is_here {
            return self.pass_on(request, is_passed_on, reply);
        }
        let refused = match request {
            LeaderRequest::Host(request) => match self.edit(&request, at) {
                Ok(said) => return self.edits.push_back((reply, said)),
                Err(why) => Some((reply, why)),
            },
            LeaderRequest::Daemon(request) => {
                let asked = Asked { request, is_passed_on, reply };
                let busy = self.inputs.daemon.try_send(asked).err();
                busy.map(|error| (error.into_inner().reply, "that host is busy: try again".to_owned()))
            }
        };
        if let Some((reply, why)) = refused {
            // The person may have given up waiting.
            let _ = reply.send(Err(why));
        }
    }

    fn edit(&mut self, request: &HostRequest, at: Moment) -> Result<String, String> {
        let said = self.assigner.edit(request, &self.hosts, at)?;
        info!("asked by a person: {said}");
        Ok(said)
    }

    /// Passes a request on to the host that leads, or that works its sink.
    fn pass_on(&self, request: LeaderRequest, is_passed_on: bool, reply: oneshot::Sender<Reply>) {
        let host = &self.options.host;
        let to = match request.sink() {
            Some(sink) => self.assigned.borrow().sinks.get(sink).map(ToString::to_string),
            None => self.status.borrow().leader.clone(),
        };
        let refused = match (to.filter(|to| to != host), &self.connection) {
            _ if is_passed_on => {
                format!("{}: see `eventsubd hosts`, and try again", ask::moved_on(&request, host))
            }
            (Some(to), Ok(connection)) => {
                let (connection, cluster) = (connection.clone(), self.options.name.clone());
                self.spawn(async move {
                    // The person may have given up waiting.
                    let _ = reply.send(ask::pass_on(connection, cluster, to, request).await);
                    Done::PassedOn
                });
                return;
            }
            _ => match request.sink() {
                Some(sink) => format!("no host works sink {sink} now: see `eventsubd hosts`"),
                None => "no host leads now: see `eventsubd hosts`".to_owned(),
            },
        };
        let _ = reply.send(Err(refused));
    }

    fn look_at_twitch(&mut self, at: Moment) {
        // Without a leader nobody binds a socket, and it closes: that is no fault of the way to Twitch.
        let is_led = self.host.epoch(at).is_some() && self.leader.is_taken();
        let has_shards = is_led && self.assigner.has_shards(&self.options.host);
        let is_needed = self.terms.role() == Role::Leader || has_shards;
        let is_blind = self.sight.update(is_needed.then(|| self.inputs.facts.borrow().is_failing), at);
        if is_blind == self.is_blind {
            return;
        }
        self.is_blind = is_blind;
        self.host.renew_now(at);
        if is_blind {
            warn!(
                "this host cannot reach Twitch; it leaves the lead and its shards to another host, if there is one"
            );
        } else {
            info!("this host may lead and have shards again");
        }
    }

    fn key(&self, which: Which) -> String {
        match which {
            Which::Host => format!("{HOST}{}", self.options.host),
            Which::Leader => LEADER.to_owned(),
        }
    }

    fn lease(&mut self, which: Which) -> &mut Lease {
        match which {
            Which::Host => &mut self.host,
            Which::Leader => &mut self.leader,
        }
    }

    fn start(&self, bucket: &Arc<Bucket>, which: Which, write: Write, value: Bytes) {
        let (bucket, key) = (Arc::clone(bucket), self.key(which));
        self.spawn(async move {
            let answer = match write {
                Write::Put { expected } => bucket.put(key, value, Some(Times::DEFAULT.ttl), expected).await,
                Write::Purge { expected } => bucket.purge(key, expected).await,
            };
            Done::Written(which, answer)
        });
    }

    /// Writes the next of the further keys with sockets of this host, if one is due.
    fn write_part(&mut self, bucket: &Arc<Bucket>, at: Moment) {
        if self.host.epoch(at).is_none() {
            return;
        }
        let all = Arc::clone(&self.inputs.facts.borrow().sockets);
        let Some(part) = self.parts.poll(&all, at) else { return };
        let sockets = SocketsValue::of(&parts::share(&all, part), (at, std::time::Instant::now()));
        let value = json(&PartValue { run: self.holder.run.clone(), sockets });
        let (bucket, key) = (Arc::clone(bucket), parts::key(&self.options.host, part));
        self.spawn(async move { Done::PartWritten(bucket.put_own(key, value, parts::TTL).await) });
    }

    fn host_value(&mut self) -> Bytes {
        let facts = self.inputs.facts.borrow();
        // A host of an earlier release knows one key for each host.
        let named =
            if self.hosts.all_know(PARTED) { parts::parts(&facts.sockets) } else { Default::default() };
        let times = (now(), std::time::Instant::now());
        let sockets = match named.is_empty() {
            true => SocketsValue::of(&facts.sockets, times),
            false => SocketsValue::of(&parts::share(&facts.sockets, 0), times).with_parts(named.clone()),
        };
        self.parts.handle_naming(named);
        json(&HostValue {
            holder: self.holder.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            fingerprint: self.fingerprint.clone(),
            since: self.since,
            leaving: self.is_leaving,
            blind: self.is_blind,
            shards: facts.shards.clone(),
            sinks: facts.sinks.clone(),
            formats: [ASSIGN, PARTED].map(str::to_owned).into(),
            forward_lag: facts.forward_lag,
            sockets,
            handed_over: facts.handed_over.iter().cloned().collect(),
        })
    }

    fn handle(&mut self, done: Done) {
        match done {
            Done::Opened(Ok(bucket)) => {
                info!(bucket = self.options.name, host = self.options.host, "joined the cluster");
                let (made, age) = bucket.made();
                self.era.handle_opened(made, age, self.terms.role() != Role::Standby, now());
                self.places.handle_opened(&bucket);
                self.bucket = Some(bucket);
                self.failure = None;
            }
            Done::Opened(Err(failure)) => {
                if self.failure.as_ref() != Some(&failure) {
                    warn!(error = chain(&failure), "the cluster cannot be used; this host stands by");
                }
                self.failure = Some(failure);
                self.open_bucket(REOPEN);
            }
            Done::Looked(look) => {
                if self.era.handle_look(look, now()) {
                    self.replace_bucket();
                }
            }
            Done::Written(which, answer) => {
                let at = now();
                match answer {
                    Answer::Done(revision) => self.era.record_revision(revision),
                    Answer::Refused | Answer::Unknown => self.look(),
                }
                if answer != Answer::Unknown {
                    self.self_binding.handle_answer(at);
                }
                if let (Which::Host, Answer::Done(_)) = (which, answer) {
                    self.parts.handle_named();
                }
                self.lease(which).handle_answer(answer, at);
                if answer == Answer::Refused
                    && let Some(bucket) = self.bucket.clone()
                {
                    let key = self.key(which);
                    self.spawn(async move {
                        Done::Read(which, bucket.read(&key).await.map(|state| seen(&state)))
                    });
                }
            }
            Done::Read(which, Some(seen)) => {
                let at = now();
                self.lease(which).handle_read(seen, at);
            }
            Done::Read(_, None) => {}
            Done::Saved(write, answer, state) => self.handle_saved(write, answer, state.as_ref()),
            Done::Assigned(answer) => {
                if matches!(answer, Answer::Refused | Answer::Unknown) {
                    self.look();
                }
                self.assigner.handle_answer(answer, now());
            }
            Done::PassedOn => {}
            Done::PartWritten(is_written) => self.parts.handle_answer(is_written, now()),
            Done::AssignmentRead(state, epoch) => {
                self.assigner.handle_read(state.as_ref().map(assignment), epoch);
            }
        }
    }

    fn handle_change(&mut self, change: KeyChange) {
        let at = now();
        self.is_synced |= change.is_current;
        let KeyChange { key, revision, value, date, .. } = change;
        self.era.record_revision(revision);
        self.gap_age.handle_change(key == GAPS, date, at);
        let state = (revision, value);
        if key == LEADER {
            self.leader.handle_watch(seen(&state), at);
        } else if let Some(name) = key.strip_prefix(HOST) {
            let is_own = *name == self.options.host;
            if is_own {
                self.host.handle_watch(seen(&state), at);
            }
            match state.1.as_deref().and_then(|value| serde_json::from_slice::<HostValue>(value).ok()) {
                Some(value) => {
                    self.shards.handle_host(name, revision, &value, at);
                    let is_own = is_own && value.holder == self.holder;
                    self.hosts.handle_value(name, revision, value, is_own, (at, wall()));
                }
                None => {
                    self.shards.handle_end(name, revision, at);
                    self.hosts.handle_end(name, revision);
                }
            }
        } else if let Some((name, part)) = parts::read_key(&key) {
            let value = state.1.as_deref().and_then(|value| serde_json::from_slice::<PartValue>(value).ok());
            if let Some(value) = value {
                self.shards.handle_part(name, part, revision, &value, at);
            }
        } else if key == ASSIGNMENT {
            self.assigner.handle_change(assignment(&state));
        } else if PlacesIn::has(&key) {
            self.places.handle_change(&key, revision, state.1.as_deref());
        } else if SharedValues::has(&key) {
            self.take_group(&key, &state);
        }
    }

    fn take_group(&mut self, key: &str, (revision, value): &KeyState) {
        let group = value.as_deref().and_then(|value| serde_json::from_slice::<Group>(value).ok());
        if self.values.insert(key, *revision, group.unwrap_or_default()) && !SharedValues::is_busy(key) {
            self.known += 1;
        }
    }

    fn handle_facts(&mut self) {
        let fingerprint = self.inputs.facts.borrow_and_update().fingerprint.clone();
        self.host.renew_now(now());
        if fingerprint != self.fingerprint {
            self.fingerprint = fingerprint;
            self.terms.handle_new_file();
        }
    }

    fn handle_request(&mut self, request: Request) {
        let at = now();
        match request {
            // The caller may have given up waiting.
            Request::Load { prefix, reply } => {
                let _ = reply.send(self.is_synced.then(|| self.values.load(&prefix)));
            }
            Request::GapAge { reply } => {
                let _ = reply.send(self.gap_age.of_key(at));
            }
            Request::Save { changes, reply } => {
                let epoch = self.leader.epoch(at).filter(|epoch| self.terms.leads(Some(*epoch)));
                match epoch {
                    Some(epoch) => {
                        let writes = self.values.writes(changes, epoch, &self.fingerprint);
                        self.save = Some(Save { epoch, writes, reply: Some(reply), before: None });
                        self.save_next();
                    }
                    None => drop(reply.send(Err(SaveError::NotLeading))),
                }
            }
            Request::Leave => {
                self.leave(at);
                if self.leader.epoch(at).is_none() {
                    self.leader.resign(at);
                }
            }
            Request::Resign { reply } => {
                self.leave(at);
                self.leader.resign(at);
                self.resigning.push(reply);
            }
        }
    }

    fn leave(&mut self, at: Moment) {
        self.is_leaving = true;
        self.host.renew_now(at);
    }

    /// Writes the places under the new lease, with what this host remembers if the cluster has nothing yet.
    fn claim(&mut self) {
        let Some(epoch) = self.leader.epoch(now()) else { return };
        let fingerprint = self.fingerprint.clone();
        let mut writes = if self.values.get(PLACES).is_some() {
            Vec::new()
        } else {
            let own = self.own_values.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
            self.values.writes(own.collect(), epoch, &fingerprint)
        };
        if !writes.iter().any(|write| write.key == PLACES) {
            let (expected, group) =
                self.values.get(PLACES).map_or_else(Default::default, |(r, group)| (r, group.clone()));
            let group = Group { epoch, fingerprint, ..group };
            writes.push(GroupWrite { key: PLACES.to_owned(), expected, group });
        }
        let before = self.values.get(PLACES);
        let before = before.map(|(_, group)| (group.epoch, group.fingerprint == self.fingerprint));
        self.save = Some(Save { epoch, writes, reply: None, before });
        self.save_next();
    }

    /// Starts the next write of the save in hand, or ends it.
    fn save_next(&mut self) {
        let at = now();
        let Some(save) = &mut self.save else { return };
        if self.leader.epoch(at) != Some(save.epoch) {
            return self.end_save(Err(SaveError::NotLeading));
        }
        if save.writes.is_empty() {
            return self.end_save(Ok(()));
        }
        let Some(bucket) = self.bucket.clone() else { return };
        let write = save.writes.remove(0);
        self.spawn(async move {
            let GroupWrite { key, expected, group } = &write;
            let answer = bucket.put(key.clone(), json(group), None, *expected).await;
            let state = if answer == Answer::Refused { bucket.read(key).await } else { None };
            Done::Saved(write, answer, state)
        });
    }

    fn end_save(&mut self, outcome: Result<(), SaveError>) {
        if let Some(Save { reply: Some(reply), .. }) = self.save.take() {
            // The caller may have been cancelled.
            let _ = reply.send(outcome);
        }
    }

    fn handle_saved(&mut self, write: GroupWrite, answer: Answer, state: Option<&KeyState>) {
        let Some(save) = &self.save else { return };
        let (is_claim, epoch) = (save.reply.is_none(), save.epoch);
        match answer {
            Answer::Done(revision) => {
                if is_claim && write.key == PLACES {
                    let before = save.before;
                    self.terms.handle_claim(epoch, before, now());
                }
                self.values.insert(&write.key, revision, write.group);
                self.save_next();
            }
            Answer::Refused => {
                if let Some(state) = state {
                    self.take_group(&write.key, state);
                }
                let known = self.values.get(&write.key).map(|(revision, group)| (revision, group.epoch));
                match known {
                    // A later leader has written: this lease is over, whatever the clock says.
                    Some((_, newer)) if newer > epoch => self.end_save(Err(SaveError::NotLeading)),
                    _ if is_claim => self.end_save(Ok(())),
                    // The answer to a write of ours was lost.
                    Some((revision, _)) if state.is_some() => {
                        let again = GroupWrite { expected: revision, ..write };
                        self.save.iter_mut().for_each(|save| save.writes.insert(0, again.clone()));
                        self.save_next();
                    }
                    _ => self.end_save(Err(SaveError::NoAnswer)),
                }
            }
            // A claim is tried again as long as the lease is held.
            Answer::Unknown => self.end_save(Err(SaveError::NoAnswer)),
        }
    }

    fn publish(&mut self) {
        let at = now();
        let epoch = self.leader.epoch(at);
        let role_before = self.terms.role();
        if self.terms.update(epoch, self.leader.is_taken(), self.is_leaving) {
            self.log_role(role_before);
        }
        let leads = self.terms.role() == Role::Leader;
        self.shards.publish(&self.values, at);
        self.self_binding.publish(!self.is_leaving && !self.host.is_taken(), at);
        self.gate.open_until(self.leader.good_until().filter(|_| leads));
        self.places.publish_presence(self.host.good_until().filter(|_| !self.host.is_taken()));
        let no_deletes = self.no_deletes(at);
        let leader = if leads {
            Some(self.options.host.clone())
        } else {
            let holder = self.leader.holder().filter(|_| self.leader.is_taken());
            holder.and_then(|holder| self.hosts.name_of(holder)).map(str::to_owned)
        };
        let failure = self.failure();
        let connected = failure.is_none();
        let failure = failure.or_else(|| self.blindness());
        let new = ClusterStatus {
            name: self.options.name.clone(),
            host: self.options.host.clone(),
            role: self.terms.role(),
            connected,
            nats_version: self.connection.as_ref().ok().and_then(Connection::version),
            takeovers: self.terms.takeovers(),
            hosts: self.hosts.statuses(&self.fingerprint, leader.as_deref(), self.assigner.applied(), at),
            leader: leader.clone(),
            forward: ForwardStatus::default(),
            no_deletes: no_deletes.clone(),
            problem: failure.as_ref().map(|(problem, _)| problem.clone()),
            hint: failure.map(|(_, hint)| hint),
        };
        self.status.publish(new);
        // Work that is assigned to this name is another host's if the name is.
        if !self.host.is_taken() {
            self.assigned.publish(self.assigner.assigned(&self.hosts, leader.as_deref()));
        }
        let orders = Leadership {
            role: self.terms.role(),
            term: self.terms.term(),
            no_deletes: no_deletes.map(Into::into),
            known: self.known,
            fingerprint: self.fingerprint.as_str().into(),
            hosts: self.assigner.host_count(),
        };
        self.leadership.publish(orders);
    }

    fn no_deletes(&self, at: Moment) -> Option<String> {
        let differing = self.hosts.differing(&self.fingerprint, at);
        if !differing.is_empty() {
            return Some(format!("the file of {} is another one than here", differing.join(", ")));
        }
        let until = self.terms.cautious_until(at)?;
        Some(format!(
            "the leader before had another file; for {} nothing is deleted, as it may come back",
            duration(until.saturating_sub(at))
        ))
    }

    /// The problem and what to do about it.
    fn failure(&self) -> Option<(String, String)> {
        let host = &self.options.host;
        let failure = match &self.connection {
            Err(failure) => Some(failure.clone()),
            Ok(connection) => connection.problem().or_else(|| self.failure.clone()),
        };
        if let Some(failure) = failure {
            return Some((failure.to_string(), failure.hint().to_owned()));
        }
        if self.host.is_doubled() || self.leader.is_doubled() {
            return Some((
                format!("another daemon runs as {host} with a copy of this state directory"),
                "stop one of them; give each host a state directory of its own, never a copy".to_owned(),
            ));
        }
        if self.host.is_taken() {
            return Some((
                format!("another host is called {host} too, so this one does not take part"),
                "give each host a name of its own: `host` in `[cluster]`, or EVENTSUBD_CLUSTER__HOST"
                    .to_owned(),
            ));
        }
        None
    }

    /// The problem of a host that has made room for another one.
    fn blindness(&self) -> Option<(String, String)> {
        let text =
            "this host could not reach Twitch, so it leaves the lead and its shards to others for 5 minutes";
        let hint = "see whether this machine reaches api.twitch.tv and eventsub.wss.twitch.tv";
        (self.is_blind && self.terms.role() != Role::Leader).then(|| (text.to_owned(), hint.to_owned()))
    }

    fn log_role(&self, before: Role) {
        let term = self.terms.term();
        match self.terms.role() {
            Role::Leader if before == Role::CutOff => info!(term, "this host leads again"),
            Role::Leader => info!(term, "this host leads now"),
            Role::Standby => info!(term, "this host does not lead any more; it stands by"),
            Role::CutOff if self.assigner.hands_over(&self.options.host, &self.hosts, now()) => {
                info!("this host gives its lease up, as it hands its work over");
            }
            Role::CutOff => warn!(
                "the lease cannot be renewed: this host keeps its sockets, and changes nothing at Twitch until NATS answers"
            ),
        }
    }
}

fn json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).expect("texts and numbers always make JSON").into()
}

/// A state of a key whose value names its holder.
fn seen((revision, value): &KeyState) -> Seen {
    // A value that cannot be read is held by somebody unknown.
    let unknown = || Holder { instance: String::new(), run: String::new() };
    let holder = value.as_deref().map(|value| serde_json::from_slice(value).unwrap_or_else(|_| unknown()));
    Seen { revision: *revision, holder }
}

/// A state of the key of the assignment. One that cannot be read is written anew by the leader.
fn assignment((revision, value): &KeyState) -> Found {
    (*revision, value.as_deref().and_then(|value| serde_json::from_slice::<Assignment>(value).ok()))
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
