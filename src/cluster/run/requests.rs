//! Requests of people to the cluster: carried out here if this host is the one, else passed on to the host that is.

use std::collections::VecDeque;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tracing::info;

use super::super::ask::{self, Asked, Reply};
use super::super::nats::Connection;
use crate::model::cluster::{Assigned, ClusterOptions, DaemonRequest, HostRequest, LeaderRequest};

/// The hosts that requests are for, as they are known now.
#[derive(Debug)]
pub(super) struct Responsible<'a> {
    /// Whether this host leads.
    pub(super) is_leader: bool,
    /// The host that leads, as far as is known.
    pub(super) leader: Option<String>,
    pub(super) assigned: &'a Assigned,
    pub(super) connection: Option<&'a Connection>,
}

/// The requests that are not answered yet.
#[derive(Debug)]
pub(super) struct Requests {
    cluster: String,
    host: String,
    /// Takes requests to the daemon of this host.
    daemon: mpsc::Sender<Asked<DaemonRequest>>,
    /// The way back of each change of a host that is not in the bucket yet, with what is said then.
    edits: VecDeque<(oneshot::Sender<Reply>, String)>,
    /// Requests that other hosts work on.
    passed_on: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Requests {
    pub(super) fn new(options: &ClusterOptions, daemon: mpsc::Sender<Asked<DaemonRequest>>) -> Self {
        let (cluster, host) = (options.name.clone(), options.host.clone());
        Self { cluster, host, daemon, edits: VecDeque::new(), passed_on: FuturesUnordered::new() }
    }

    /// Works on the requests that were passed on; never ends by itself.
    pub(super) async fn run(&mut self) {
        while self.passed_on.next().await.is_some() {}
        std::future::pending::<()>().await;
    }

    /// Takes a request. `edit` makes a change of a host, and returns what is said once it is in the bucket.
    pub(super) fn handle(
        &mut self,
        asked: Asked<LeaderRequest>,
        responsible: &Responsible<'_>,
        edit: impl FnOnce(&HostRequest) -> Result<String, String>,
    ) {
        let Asked { request, is_passed_on, reply } = asked;
        let is_here = match request.sink() {
            Some(sink) => responsible.assigned.has_sink(&self.host, sink),
            None => responsible.is_leader,
        };
        if !is_here {
            return self.pass_on(request, is_passed_on, reply, responsible);
        }
        match request {
            LeaderRequest::Host(request) => match edit(&request) {
                Ok(said) => {
                    info!("asked by a person: {said}");
                    self.edits.push_back((reply, said));
                }
                Err(why) => refuse(reply, why),
            },
            LeaderRequest::Daemon(request) => {
                let asked = Asked { request, is_passed_on, reply };
                if let Err(busy) = self.daemon.try_send(asked) {
                    refuse(busy.into_inner().reply, "that host is busy: try again".to_owned());
                }
            }
        }
    }

    /// Passes a request on to the host that leads, or that works its sink.
    fn pass_on(
        &self,
        request: LeaderRequest,
        is_passed_on: bool,
        reply: oneshot::Sender<Reply>,
        responsible: &Responsible<'_>,
    ) {
        if is_passed_on {
            let moved_on = ask::moved_on(&request, &self.host);
            return refuse(reply, format!("{moved_on}: see `eventsubd hosts`, and try again"));
        }
        let to = match request.sink() {
            Some(sink) => responsible.assigned.sinks.get(sink).map(ToString::to_string),
            None => responsible.leader.clone(),
        };
        match (to.filter(|to| *to != self.host), responsible.connection) {
            (Some(to), Some(connection)) => {
                let (connection, cluster) = (connection.clone(), self.cluster.clone());
                self.passed_on.push(Box::pin(async move {
                    // The person may have given up waiting.
                    let _ = reply.send(ask::pass_on(connection, cluster, to, request).await);
                }));
            }
            _ => refuse(
                reply,
                match request.sink() {
                    Some(sink) => format!("no host works sink {sink} now: see `eventsubd hosts`"),
                    None => "no host leads now: see `eventsubd hosts`".to_owned(),
                },
            ),
        }
    }

    /// Answers the earliest changes of hosts, as so many are in the bucket now.
    pub(super) fn handle_edited(&mut self, count: usize) {
        for (reply, said) in self.edits.drain(..count.min(self.edits.len())) {
            // The person may have given up waiting.
            let _ = reply.send(Ok(serde_json::Value::from(said).to_string()));
        }
    }

    /// Refuses the changes of hosts that are not in the bucket, as this host does not lead any more.
    pub(super) fn refuse_edits(&mut self) {
        for (reply, _) in self.edits.drain(..) {
            let why = "this host does not lead any more: see `eventsubd hosts`, and try again";
            refuse(reply, why.to_owned());
        }
    }
}

fn refuse(reply: oneshot::Sender<Reply>, why: String) {
    // The person may have given up waiting.
    let _ = reply.send(Err(why));
}
