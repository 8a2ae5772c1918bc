//! Making Twitch match the file: the conduit, its shards, the subscriptions. The only room that
//! writes to Twitch.
//!
//! The reconciler is woken, never fed: each run reads all that is desired and all that there is, makes a plan
//! (`plan`, a pure function) and executes it without making choices. There are no retries inside a
//! run; the next run is the retry. A list that failed or came in part ends the run.
//!
//! Never deletes what is not on our conduit, never deletes a conduit, and never adopts one that
//! the configuration does not name. After a crash at any point the next run finds things as they
//! are and goes on: what was created is in Twitch's list, and a conduit whose id was lost is found by
//! the intent that was saved before it was made.
//!
//! Parked subscriptions are not remembered over a restart: each is tried once more.
//!
//! Of several hosts only the leader runs. The others show what is wanted, so that their sinks know what goes where.

mod api;
mod bind;
mod clock;
mod decide;
mod error;
mod memory;
mod needs;
mod preview;
mod remembered;
mod run;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod short_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod webhook_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use self::bind::reach::Reach;
pub use self::decide::action::{Action, Blocked, DeleteReason, Plan};
pub use self::decide::park::{Obstacle, RetryTimes};
pub use self::error::{ErrorKind, RunError};
pub use self::memory::{Memory, MemoryError};
pub use self::needs::{Needs, UserNeeds, who_must_grant};
pub use self::preview::{Preview, PreviewConduit, PreviewError, preview};
use self::run::engine::{self, Engine};
use crate::helix::Helix;
use crate::model::backoff::Backoff;
use crate::model::cluster::Leadership;
use crate::model::hint::Hint;
use crate::model::invocation::Invocation;
use crate::model::lapse::Lapses;
pub use crate::model::mode::{Method, Policy};
use crate::model::pulse::Pulse;
use crate::model::route::Routes;
use crate::model::shard::{Bindings, Sessions, ShardBindings, ShardId, ShardTarget, WebhookTarget};
use crate::model::status::{ReconcileStatus, ShardStatus};
use crate::model::subscription::{SubscriptionId, SubscriptionSpec, SubscriptionStatus};
use crate::model::subscriptions::Subscriptions;
pub use crate::model::webhook::InUse;

/// Desired state derived from one accepted configuration.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Number of the configuration, from 1; each reload has a higher one.
    pub generation: u64,
    pub specs: Arc<[SubscriptionSpec]>,
    pub policy: Policy,
    /// A plan that deletes more than this part of our live subscriptions, and more than 10, or all of them, holds
    /// its deletes until [`ReconcileHandle::apply`] allows them. 0 to 1.
    pub max_delete: f64,
    /// Longest pause between two runs.
    pub interval: Duration,
    pub method: Method,
    /// Shards of the conduit, 1 to 20,000.
    pub shards: u32,
    /// Whether the shards call, instead of having a WebSocket each.
    pub shards_call: bool,
    /// The callback for webhooks; needed if subscriptions or shards use them.
    pub webhook: Option<WebhookTarget>,
    /// The conduit that the configuration names; else one is made and remembered.
    pub conduit_id: Option<String>,
    /// Whether the daemon keeps subscriptions of its own that tell of grants and of shards.
    pub watch_grants: bool,
}

/// Settings of the reconciler; tests shorten the times.
#[derive(Clone, Debug)]
pub struct ReconcileOptions {
    /// The client id whose conduit is remembered.
    pub client_id: String,
    /// Least and greatest pause between two looks at Twitch's list of shards: 60 to 120 s.
    pub shard_poll: (Duration, Duration),
    /// Time after its welcome in which a session may be bound (Twitch: "Handling WebSocket Events", 4003): 10 s.
    pub bind_window: Duration,
    /// Pause between attempts to bind within that time: 1 s. Later ones take five times as long.
    pub bind_retry: Duration,
    /// Time that new subscriptions wait for the shards to be bound at the start: 15 s.
    pub bind_wait: Duration,
    /// Time that all shards may be unbound before that is a warning: 60 s.
    pub unbound_warning: Duration,
    /// Pauses between tries of what is parked.
    pub retry: RetryTimes,
    /// First and longest pause after a run that failed: 1 s and 60 s.
    pub backoff: Backoff,
    /// Age at which the id of a login is confirmed again: 24 h.
    pub login_refresh: Duration,
    /// Pause between two such looks, of 100 logins each: 10 s.
    pub login_refresh_pause: Duration,
    /// Time that Twitch may take with the challenge of a new webhook: 2 min.
    pub challenge: Duration,
    /// Lifetime of a proof that the callback can be reached: 60 s.
    pub reach_life: Duration,
    /// Least pause between two publications of the status during a run: 500 ms.
    pub publish_pause: Duration,
    /// Creates and deletes handed to the API client at a time, at least: 16. The client bounds the requests itself.
    pub concurrency: usize,
    /// Pages of a list that is read whole by every run: 2. Longer lists are remembered between two comparisons.
    pub small_list: usize,
    /// Time that a stopped run waits for the requests in hand: 3 s.
    pub drain: Duration,
    /// How the log tells people to run commands.
    pub invocation: Invocation,
    /// Whether this host leads its cluster. `None` means that there are no other hosts.
    pub leadership: Option<watch::Receiver<Leadership>>,
}

impl ReconcileOptions {
    /// The defaults for this client.
    pub fn new(client_id: impl Into<String>) -> Self {
        let seconds = Duration::from_secs;
        Self {
            client_id: client_id.into(),
            shard_poll: (seconds(60), seconds(120)),
            bind_window: seconds(10),
            bind_retry: seconds(1),
            bind_wait: seconds(15),
            unbound_warning: seconds(60),
            retry: RetryTimes::default(),
            backoff: Backoff::new(seconds(1), seconds(60)),
            login_refresh: seconds(24 * 3600),
            login_refresh_pause: seconds(10),
            challenge: seconds(120),
            reach_life: seconds(60),
            publish_pause: Duration::from_millis(500),
            concurrency: 16,
            small_list: 2,
            drain: seconds(3),
            invocation: Invocation::default(),
            leadership: None,
        }
    }
}

/// Requests to the reconciler, as counts, so that none is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Requests {
    asked: u64,
    /// Number of `apply` requests seen.
    applies: u64,
    /// Number of requests that allow deletes.
    allows: u64,
}

/// Users whose grants changed, and subscriptions that Twitch ended, that are remembered one by one; beyond that all are
/// looked at.
const MAX_HINTS: usize = 10_000;

/// Hints from events.
#[derive(Debug, Default)]
struct Hints {
    users: Mutex<ChangedUsers>,
    ended: Mutex<EndedSubscriptions>,
    grants: Notify,
    revoked: Notify,
    shards: Notify,
    verified: Notify,
}

impl Hints {
    fn lock(&self) -> MutexGuard<'_, ChangedUsers> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, EndedSubscriptions> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Subscriptions that Twitch has ended.
#[derive(Debug, Default)]
struct EndedSubscriptions {
    /// Id and status.
    rows: Vec<(SubscriptionId, SubscriptionStatus)>,
    /// There were too many to remember each.
    too_many: bool,
}

/// Users whose grants have changed.
#[derive(Debug, Default)]
struct ChangedUsers {
    ids: BTreeSet<Box<str>>,
    /// Too many users to name: all count as changed.
    all: bool,
}

impl ChangedUsers {
    fn add(&mut self, user_id: Box<str>) {
        if self.ids.len() >= MAX_HINTS {
            self.ids.clear();
            self.all = true;
        }
        if !self.all {
            self.ids.insert(user_id);
        }
    }
}

/// Handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct ReconcileHandle {
    /// Which shards there shall be; `None` until the conduit is known.
    pub target: watch::Receiver<Option<ShardTarget>>,
    /// Twitch's answer for each session.
    pub bindings: watch::Receiver<Bindings>,
    /// The shards that call; none when they have WebSockets.
    pub hooks: watch::Receiver<BTreeMap<ShardId, ShardStatus>>,
    /// How long shards are known to have been bound.
    pub tenures: watch::Receiver<ShardBindings>,
    /// Subscriptions that were gone and are back.
    pub lapses: Lapses,
    /// Secrets and callbacks in use; `None` until they are known.
    pub in_use: watch::Receiver<Option<InUse>>,
    /// Which sinks events go to; `None` until what is remembered was read.
    pub routes: watch::Receiver<Option<Arc<Routes>>>,
    pub status: watch::Receiver<ReconcileStatus>,
    /// Every subscription of the file, sorted.
    pub subscriptions: watch::Receiver<Subscriptions>,
    /// The sign of life of the loop: it beats at least once a minute between runs, and in a run as its requests move.
    pub pulse: Pulse,
    /// The sign of life of the task that binds shards: at least every two minutes.
    pub binder_pulse: Pulse,
    requests: Arc<watch::Sender<Requests>>,
    answered: watch::Receiver<u64>,
    hints: Arc<Hints>,
}

impl ReconcileHandle {
    /// Has it run soon.
    pub fn wake(&self) {
        self.requests.send_modify(|requests| requests.asked += 1);
    }

    /// Has it run at once, trying again what is parked; with `allow_deletes` that run, and those
    /// after it until one is complete, may delete more than `max_delete`. The allowance is for the
    /// configuration in force: a reload ends it. Returns a ticket for [`Self::answered`].
    pub fn apply(&self, allow_deletes: bool) -> u64 {
        let mut ticket = 0;
        self.requests.send_modify(|requests| {
            requests.asked += 1;
            requests.applies += 1;
            requests.allows += u64::from(allow_deletes);
            ticket = requests.asked;
        });
        ticket
    }

    /// Returns once a run that began after [`Self::apply`] gave this ticket has ended, complete or
    /// not (the status says which), or the reconciler has.
    pub async fn answered(&self, ticket: u64) {
        // An error is the end of the reconciler: nothing more will be answered.
        let _ = self.answered.clone().wait_for(|answered| *answered >= ticket).await;
    }

    /// Takes what an event tells.
    pub fn hint(&self, hint: Hint) {
        match hint {
            Hint::Grants { user_id } => {
                self.hints.lock().add(user_id);
                self.hints.grants.notify_one();
            }
            Hint::Ended { id, status } => {
                {
                    let mut ended = self.hints.ended();
                    if ended.rows.len() < MAX_HINTS {
                        ended.rows.push((id, SubscriptionStatus::parse(&status)));
                    } else {
                        ended.too_many = true;
                    }
                }
                self.hints.revoked.notify_one();
            }
            Hint::Shards => self.hints.shards.notify_one(),
            Hint::Verified => self.hints.verified.notify_one(),
        }
    }
}

/// The task; see [`reconciler`].
#[derive(Debug)]
pub struct Reconciler {
    engine: Engine<Helix>,
}

impl Reconciler {
    /// Runs until cancelled; then ends once the requests in hand are answered, or after
    /// [`ReconcileOptions::drain`]. Deletes nothing at Twitch on its way out.
    ///
    /// The loop has a thread of its own: working out a plan of 100,000 subscriptions takes a second, in which sockets,
    /// events and the binding of shards must not wait. Its requests and times are the runtime's.
    ///
    /// # Panics
    /// If the loop does, or if the system has no thread left.
    pub async fn run(self, cancel: CancellationToken) {
        let runtime = tokio::runtime::Handle::current();
        let (ended, end) = tokio::sync::oneshot::channel();
        // Ends the thread as well if this future is dropped.
        let stop = cancel.child_token();
        let guard = stop.clone().drop_guard();
        let run = move || {
            runtime.block_on(Box::pin(self.engine.run(stop)));
            let _ = ended.send(());
        };
        let thread = std::thread::Builder::new().name("reconcile".to_owned()).spawn(run);
        let thread = thread.unwrap_or_else(|error| panic!("no thread for the reconciler: {error}"));
        if end.await.is_err()
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
        drop(guard);
    }
}

/// Builds the reconciler; nothing happens until it is run.
///
/// `sessions` are the sessions that the WebSocket shards have. They are bound by a task of its own,
/// which never waits for creates. `reach` proves that a callback can be reached before Twitch is told of it.
pub fn reconciler(
    helix: &Helix,
    memory: Arc<dyn Memory>,
    reach: Arc<dyn Reach>,
    desired: watch::Receiver<Arc<Desired>>,
    sessions: watch::Receiver<Sessions>,
    options: ReconcileOptions,
) -> (Reconciler, ReconcileHandle) {
    let (engine, handle) = engine::build(helix, memory, reach, desired, sessions, options);
    (Reconciler { engine }, handle)
}
