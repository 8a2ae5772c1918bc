//! The loop: takes what happens to the owners of the parts, starts what is due, and publishes how things are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::super::age::Age;
use super::super::ask::Asked;
use super::super::assign::Work;
use super::super::assigner::Assigner;
use super::super::clock::{now, wall};
use super::super::gate::Gate;
use super::super::lease::{Answer, Moment};
use super::super::nats::{Connection, KeyChange};
use super::super::own_keys::{Condition, HostFacts, OwnKeys};
use super::super::parts::PARTED;
use super::super::places::PlacesIn;
use super::super::presence::{HostValue, Hosts};
use super::super::report::Report;
use super::super::saving::{SaveError, SaveStep, Saving};
use super::super::self_binding::SelfBindingIn;
use super::super::sessions::PartValue;
use super::super::shared::SharedIn;
use super::super::standing::{Candidacy, Standing, Which};
use super::super::values::{GAPS, SharedValues};
use super::bucket::{BucketDriver, Done, Happened, KeyOf, assignment, seen};
use super::handle::Request;
use super::requests::{Requests, Responsible};
use crate::model::cluster::{Assigned, ClusterOptions, ClusterStatus, LeaderRequest, Leadership, Role};
use crate::telemetry::Publish;

/// How often the status is worked out anew when nothing happens.
const LOOK: Duration = Duration::from_secs(1);

/// The values that other parts of this host read.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) status: watch::Sender<ClusterStatus>,
    pub(super) assigned: watch::Sender<Assigned>,
    pub(super) gate: Gate,
    pub(super) places: PlacesIn,
    pub(super) shards: SharedIn,
    pub(super) self_binding: SelfBindingIn,
}

/// Everything that reaches the task from this host.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) facts: watch::Receiver<HostFacts>,
    pub(super) work: watch::Receiver<Work>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) asked: mpsc::Receiver<Asked<LeaderRequest>>,
}

/// Callers that wait for the task.
#[derive(Debug, Default)]
struct Waiting {
    /// The caller of the save in hand.
    save: Option<oneshot::Sender<Result<(), SaveError>>>,
    resign: Vec<oneshot::Sender<()>>,
}

/// The driver of the cluster's task.
#[derive(Debug)]
pub(super) struct Driver {
    options: ClusterOptions,
    sources: Sources,
    outputs: Outputs,
    bucket: BucketDriver,
    standing: Standing,
    own: OwnKeys,
    hosts: Hosts,
    assigner: Assigner,
    requests: Requests,
    saving: Saving,
    gap_age: Age,
    /// Fingerprint of the file in force.
    fingerprint: String,
    waiting: Waiting,
}

impl Driver {
    pub(super) fn new(
        options: ClusterOptions,
        sources: Sources,
        outputs: Outputs,
        bucket: BucketDriver,
        own: OwnKeys,
        requests: Requests,
        saving: Saving,
    ) -> Self {
        let fingerprint = sources.facts.borrow().fingerprint.clone();
        let mut assigner = Assigner::default();
        assigner.handle_work(sources.work.borrow().clone());
        let standing = Standing::new(own.holder().clone(), now());
        Self {
            options,
            sources,
            outputs,
            bucket,
            standing,
            own,
            hosts: Hosts::default(),
            assigner,
            requests,
            saving,
            gap_age: Age::default(),
            fingerprint,
            waiting: Waiting::default(),
        }
    }

    /// Runs until cancelled. `changed` wakes it when the connection has changed.
    pub(super) async fn run(mut self, changed: Arc<Notify>, cancel: CancellationToken) {
        loop {
            self.act();
            self.publish();
            let pause = self.poll_timeout().saturating_sub(now());
            tokio::select! {
                () = cancel.cancelled() => break,
                happened = self.bucket.next() => match happened {
                    Happened::Done(done) => self.handle_done(done),
                    Happened::Changed(change) => self.handle_change(&change),
                },
                // One save after the other.
                Some(request) = self.sources.requests.recv(), if self.saving.is_idle() => {
                    self.handle_request(request);
                }
                Some(asked) = self.sources.asked.recv() => self.handle_asked(asked),
                Ok(()) = self.sources.facts.changed() => self.handle_facts(),
                Ok(()) = self.sources.work.changed() => {
                    let work = self.sources.work.borrow_and_update().clone();
                    self.assigner.handle_work(work);
                }
                () = self.requests.run() => {}
                () = changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.outputs.gate.open_until(None);
        self.outputs.self_binding.end();
    }

    fn poll_timeout(&self) -> Moment {
        let now = now();
        let soon = now + LOOK;
        if !self.bucket.is_open() {
            return soon;
        }
        let lead_after = Some(self.bucket.lead_after()).filter(|after| *after > now);
        [self.standing.poll_timeout(now), lead_after].into_iter().flatten().fold(soon, Moment::min)
    }

    /// Starts what is due.
    fn act(&mut self) {
        let at = now();
        self.save(at);
        if !self.bucket.is_open() {
            return;
        }
        self.bucket.watch();
        self.look_at_twitch(at);
        let candidacy = Candidacy {
            hands_over: self.hands_over(at),
            another_may_lead: self.standing.is_blind() && self.hosts.another_may_lead(&self.options.host, at),
            lead_after: self.bucket.lead_after(),
        };
        self.standing.update_candidacy(candidacy, at);
        self.write_own_keys(at);
        if let Some(write) = self.standing.poll(Which::Leader, at) {
            self.bucket.write_leader(write, self.own.holder());
        }
        if let Some(epoch) = self.standing.must_claim(at)
            && self.saving.is_idle()
            && self.bucket.is_synced()
        {
            self.saving.claim(epoch, &self.fingerprint);
            self.save(at);
        }
        self.assign(at);
        if self.standing.has_resigned() {
            for reply in self.waiting.resign.drain(..) {
                // The caller may have given up waiting.
                let _ = reply.send(());
            }
        }
    }

    /// Writes the keys of this host that are due.
    fn write_own_keys(&mut self, at: Moment) {
        let times = (at, Instant::now());
        if let Some(write) = self.standing.poll(Which::Host, at) {
            let condition = Condition {
                is_leaving: self.standing.is_leaving(),
                is_blind: self.standing.is_blind(),
                all_read_parts: self.hosts.all_know(PARTED),
            };
            let value = self.own.host_value(&self.sources.facts.borrow(), condition, times);
            self.bucket.write_host(write, &value);
        }
        if self.standing.has_name(at)
            && let Some((part, value)) = self.own.poll_part(&self.sources.facts.borrow(), times)
        {
            self.bucket.write_part(part, &value);
        }
    }

    fn look_at_twitch(&mut self, at: Moment) {
        let is_failing = self.sources.facts.borrow().is_failing;
        let has_shards = self.assigner.has_shards(&self.options.host);
        if !self.standing.update_sight(is_failing, has_shards, at) {
            return;
        }
        if self.standing.is_blind() {
            warn!(
                "this host cannot reach Twitch; it leaves the lead and its shards to another host, if there is one"
            );
        } else {
            info!("this host may lead and have shards again");
        }
    }

    /// Whether this host hands over its work, and another one can take it.
    fn hands_over(&self, at: Moment) -> bool {
        self.assigner.hands_over(&self.options.host, &self.hosts, at)
    }

    /// Takes the next step of the save in hand.
    fn save(&mut self, at: Moment) {
        match self.saving.poll(self.standing.epoch(at)) {
            Some(SaveStep::Write(write)) => self.bucket.save(write),
            Some(SaveStep::End(outcome)) => {
                if let Some(reply) = self.waiting.save.take() {
                    // The caller may have been cancelled.
                    let _ = reply.send(outcome);
                }
            }
            None => {}
        }
    }

    /// Brings the assignment up to date, if this host leads.
    fn assign(&mut self, at: Moment) {
        self.requests.handle_edited(self.assigner.take_edited());
        let Some(epoch) = self.standing.leads(at) else {
            // The watch may have told of a write, such as one that drains this host, before its answer comes.
            if !self.assigner.is_writing() {
                self.assigner.drop_edits();
                self.requests.refuse_edits();
            }
            return;
        };
        if let Some(step) = self.assigner.poll(epoch, &self.hosts, (at, wall())) {
            self.bucket.assign(step, epoch);
        }
    }

    fn handle_done(&mut self, done: Done) {
        match done {
            Done::Opened(opened) => {
                let has_led = self.standing.role() != Role::Standby;
                if let Some(bucket) = self.bucket.handle_opened(opened, has_led) {
                    self.outputs.places.handle_opened(bucket);
                }
            }
            Done::Looked(look) => {
                if let Some(was_synced) = self.bucket.handle_looked(look) {
                    self.begin_anew(was_synced);
                }
            }
            Done::Written(which, answer, newest) => self.handle_written(which, answer, newest),
            Done::Read(which, Some(seen)) => self.standing.handle_read(which, seen, now()),
            Done::Read(_, None) => {}
            Done::Saved(write, answer, state) => {
                let state = state.as_ref().map(|(revision, value)| (*revision, value.as_deref()));
                if let Some(claimed) = self.saving.handle_answer(write, answer, state) {
                    self.standing.handle_claim(claimed, now());
                }
            }
            Done::Assigned(answer) => {
                self.bucket.record_answer(answer);
                self.assigner.handle_answer(answer, now());
            }
            Done::AssignmentRead(found, epoch) => self.assigner.handle_read(found, epoch),
            Done::PartWritten(is_written) => self.own.handle_part_written(is_written, now()),
        }
    }

    /// Takes the answer to a write of a lease.
    fn handle_written(&mut self, which: Which, answer: Answer, newest: u64) {
        let at = now();
        self.bucket.record_written(answer, newest);
        if answer != Answer::Unknown {
            self.outputs.self_binding.handle_answer(at);
        }
        if let (Which::Host, Answer::Done(_)) = (which, answer) {
            self.own.handle_written();
        }
        self.standing.handle_answer(which, answer, at);
        if answer == Answer::Refused {
            self.bucket.read(which);
        }
    }

    /// Begins anew in another bucket, as this one was deleted; `was_synced` if all of it was known. What the hosts share is
    /// remembered, for the first leader to write it again.
    fn begin_anew(&mut self, was_synced: bool) {
        self.saving.handle_new_bucket(was_synced);
        self.outputs.places.handle_gone();
        (self.hosts, self.gap_age) = (Hosts::default(), Age::default());
        self.assigner.handle_new_bucket();
        self.own.handle_new_bucket();
        self.standing.handle_new_bucket(now());
    }

    fn handle_change(&mut self, change: &KeyChange) {
        let at = now();
        let KeyChange { key, revision, date, .. } = change;
        let (revision, value) = (*revision, change.value.as_deref());
        self.gap_age.handle_change(key == GAPS, *date, at);
        match KeyOf::of(key) {
            KeyOf::Leader => self.standing.handle_watch(Which::Leader, seen(revision, value), at),
            KeyOf::Host(name) => self.handle_host(name, revision, value, at),
            KeyOf::Part(name, part) => {
                let value = value.and_then(|value| serde_json::from_slice::<PartValue>(value).ok());
                if let Some(value) = value {
                    self.outputs.shards.handle_part(name, part, revision, &value, at);
                }
            }
            KeyOf::Assignment => self.assigner.handle_change(assignment(revision, value)),
            KeyOf::Other if PlacesIn::has(key) => self.outputs.places.handle_change(key, revision, value),
            KeyOf::Other if SharedValues::has(key) => self.saving.handle_change(key, revision, value),
            KeyOf::Other => {}
        }
    }

    fn handle_host(&mut self, name: &str, revision: u64, value: Option<&[u8]>, at: Moment) {
        let is_own = *name == self.options.host;
        if is_own {
            self.standing.handle_watch(Which::Host, seen(revision, value), at);
        }
        match value.and_then(|value| serde_json::from_slice::<HostValue>(value).ok()) {
            Some(value) => {
                self.outputs.shards.handle_host(name, revision, &value, at);
                let is_own = is_own && value.holder == *self.own.holder();
                self.hosts.handle_value(name, revision, value, is_own, (at, wall()));
            }
            None => {
                self.outputs.shards.handle_end(name, revision, at);
                self.hosts.handle_end(name, revision);
            }
        }
    }

    fn handle_facts(&mut self) {
        let fingerprint = self.sources.facts.borrow_and_update().fingerprint.clone();
        self.standing.renew_now(now());
        if fingerprint != self.fingerprint {
            self.fingerprint = fingerprint;
            self.standing.handle_new_file();
        }
    }

    fn handle_request(&mut self, request: Request) {
        let at = now();
        match request {
            // The caller may have given up waiting.
            Request::Load { prefix, reply } => {
                let values = self.bucket.is_synced().then(|| self.saving.values().load(&prefix));
                let _ = reply.send(values);
            }
            Request::GapAge { reply } => {
                let _ = reply.send(self.gap_age.of_key(at));
            }
            Request::Save { changes, reply } => match self.standing.leads(at) {
                Some(epoch) => {
                    self.saving.save(changes, epoch, &self.fingerprint);
                    self.waiting.save = Some(reply);
                }
                None => drop(reply.send(Err(SaveError::NotLeading))),
            },
            Request::Leave => self.standing.leave(at),
            Request::Resign { reply } => {
                self.standing.resign(at);
                self.waiting.resign.push(reply);
            }
        }
    }

    fn handle_asked(&mut self, asked: Asked<LeaderRequest>) {
        let at = now();
        let responsible = Responsible {
            is_leader: self.standing.leads(at).is_some(),
            leader: self.outputs.status.borrow().leader.clone(),
            assigned: &self.outputs.assigned.borrow(),
            connection: self.bucket.connection(),
        };
        let (assigner, hosts) = (&mut self.assigner, &self.hosts);
        self.requests.handle(asked, &responsible, |request| assigner.edit(request, hosts, at));
    }

    fn publish(&mut self) {
        let at = now();
        if let Some(before) = self.standing.update_role(at) {
            self.log_role(before, at);
        }
        let takes_part = !self.standing.is_leaving() && !self.standing.is_name_taken();
        self.outputs.shards.publish(self.saving.values(), at);
        self.outputs.self_binding.publish(takes_part, at);
        self.outputs.gate.open_until(self.standing.leads_until());
        self.outputs.places.publish_presence(self.standing.present_until());
        let report = Report {
            options: &self.options,
            standing: &self.standing,
            hosts: &self.hosts,
            assigner: &self.assigner,
            failure: self.bucket.failure(),
            nats_version: self.bucket.connection().and_then(Connection::version),
            known: self.saving.known(),
            fingerprint: &self.fingerprint,
            now: at,
        };
        self.outputs.status.publish(report.status());
        if let Some(assigned) = report.assigned() {
            self.outputs.assigned.publish(assigned);
        }
        self.outputs.leadership.publish(report.leadership());
    }

    fn log_role(&self, before: Role, at: Moment) {
        let term = self.standing.terms().term();
        match self.standing.role() {
            Role::Leader if before == Role::CutOff => info!(term, "this host leads again"),
            Role::Leader => info!(term, "this host leads now"),
            Role::Standby => info!(term, "this host does not lead any more; it stands by"),
            Role::CutOff if self.hands_over(at) => {
                info!("this host gives its lease up, as it hands its work over");
            }
            Role::CutOff => warn!(
                "the lease cannot be renewed: this host keeps its sockets, and changes nothing at Twitch until NATS answers"
            ),
        }
    }
}
