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
mod desired;
mod error;
mod handle;
mod hints;
mod memory;
mod needs;
mod options;
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

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::bind::alone_binder::{AloneBinder, AloneEnds, AloneInputs, alone_binder};
pub use self::bind::reach::Reach;
pub use self::decide::action::{Action, Blocked, DeleteReason, Plan};
pub use self::decide::park::{Obstacle, RetryTimes};
pub use self::desired::Desired;
pub use self::error::{ErrorKind, RunError};
pub use self::handle::ReconcileHandle;
pub use self::memory::{Memory, MemoryError};
pub use self::needs::{Needs, UserNeeds, who_must_grant};
pub use self::options::ReconcileOptions;
pub use self::preview::{Preview, PreviewConduit, PreviewError, preview};
use self::run::engine::{self, Engine};
use crate::helix::Helix;
pub use crate::model::mode::{Method, Policy};
use crate::model::shard::Sessions;
pub use crate::model::webhook::InUse;

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
