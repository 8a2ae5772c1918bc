//! Requests to the leader, or to the host that works a sink, from any host: as requests over NATS, so that a lost one is
//! told to the person.
//!
//! Every host takes them on a subject of its own, and refuses them if it is not the one.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Client, Message};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::nats::Connection;
use crate::model::cluster::LeaderRequest;

/// Time limit of one request, over NATS or not.
const LIMIT: Duration = Duration::from_secs(5);
/// Largest request, in bytes.
const LARGEST_REQUEST: usize = 4 << 10;
/// Largest answer, in bytes: NATS carries messages of up to 1 MiB.
const LARGEST_ANSWER: usize = 1_000_000;
/// Requests that are worked on at once.
const AT_ONCE: usize = 16;
/// Pause after a subscription that has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The answer: JSON, or why the request was refused.
pub type Reply = Result<String, String>;

/// A request with the way back.
#[derive(Debug)]
pub struct Asked<R> {
    pub request: R,
    /// Whether another host has passed it on: it goes no further.
    pub is_passed_on: bool,
    pub reply: oneshot::Sender<Reply>,
}

/// An answer on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Done(String),
    Refused(String),
}

/// The subject on which a host takes requests.
pub(super) fn subject(cluster: &str, host: &str) -> String {
    format!("{cluster}.ask.{host}")
}

/// Hands a request to the task of the cluster, and returns its answer.
pub(super) async fn hand_in(
    asked: &mpsc::Sender<Asked<LeaderRequest>>,
    request: LeaderRequest,
    is_passed_on: bool,
) -> Reply {
    let (reply, answer) = oneshot::channel();
    let stopping = || "the daemon is stopping".to_owned();
    asked.send(Asked { request, is_passed_on, reply }).await.map_err(|_| stopping())?;
    // One that is passed on has a limit of its own, which ends first.
    match tokio::time::timeout(LIMIT + PAUSE, answer).await {
        Ok(answer) => answer.map_err(|_| stopping())?,
        Err(_) => Err(no_answer("the cluster")),
    }
}

/// The reason why a host is the one that a request is for.
fn standing(request: &LeaderRequest) -> String {
    match request.sink() {
        Some(sink) => format!("which works sink {sink}"),
        None => "which leads".to_owned(),
    }
}

/// Says that a host is not the one for a request any more.
pub(super) fn moved_on(request: &LeaderRequest, host: &str) -> String {
    match request.sink() {
        Some(sink) => format!("{host} does not work sink {sink} any more"),
        None => format!("{host} does not lead any more"),
    }
}

fn no_answer(who: &str) -> String {
    format!(
        "no answer from {who} within {} s: it may have been carried out all the same; see `eventsubd hosts`",
        LIMIT.as_secs()
    )
}

/// Sends a request to the host that it is for.
pub(super) async fn pass_on(
    connection: Connection,
    cluster: String,
    host: String,
    request: LeaderRequest,
) -> Reply {
    let (subject, standing) = (subject(&cluster, &host), standing(&request));
    let text = serde_json::to_vec(&request).expect("texts and flags always make JSON");
    let client = connection.client();
    let sent = client.request(subject.clone(), text.into());
    match tokio::time::timeout(LIMIT, sent).await {
        Ok(Ok(message)) => match serde_json::from_slice(&message.payload) {
            Ok(Answer::Done(text)) => Ok(text),
            Ok(Answer::Refused(why)) => Err(why),
            Err(_) => Err(format!("{host}, {standing}, runs another version: run the command there")),
        },
        Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Err(format!(
            "{host}, {standing}, takes no requests from other hosts. If NATS has only just come back, try again in a few \
             seconds; else run the command there: its release is older, or its user in NATS may not subscribe to \
             `{subject}`"
        )),
        Ok(Err(_)) | Err(_) => Err(no_answer(&host)),
    }
}

/// Takes requests of other hosts, for ever.
pub(super) async fn serve(
    connection: Connection,
    subject: String,
    asked: mpsc::Sender<Asked<LeaderRequest>>,
) {
    let client = connection.client();
    loop {
        if let Ok(mut messages) = client.subscribe(subject.clone()).await {
            let mut answers = FuturesUnordered::new();
            loop {
                tokio::select! {
                    message = messages.next(), if answers.len() < AT_ONCE => match message {
                        Some(message) => answers.push(answer(&client, message, &asked)),
                        None => break,
                    },
                    Some(()) = answers.next() => {}
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn answer(client: &Client, message: Message, asked: &mpsc::Sender<Asked<LeaderRequest>>) {
    let Some(way_back) = message.reply else { return };
    let request = if message.payload.len() > LARGEST_REQUEST {
        None
    } else {
        serde_json::from_slice::<LeaderRequest>(&message.payload).ok()
    };
    let answer = match request {
        Some(request) => hand_in(asked, request, true).await,
        None => Err("the other host runs another version: run the command there".to_owned()),
    };
    let answer = match answer {
        Ok(text) if text.len() > LARGEST_ANSWER => {
            Answer::Refused("the answer is too long for NATS: run the command on that host".to_owned())
        }
        Ok(text) => Answer::Done(text),
        Err(why) => Answer::Refused(why),
    };
    let text = serde_json::to_vec(&answer).expect("texts always make JSON");
    // Without an answer the other host says that there is none.
    let _ = client.publish(way_back, text.into()).await;
}
