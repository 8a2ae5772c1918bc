//! Notifications to systemd: ready, reloading, stopping, the watchdog, and a status line.
//!
//! The daemon is ready after the first reconcile run. It is also ready once Twitch is certainly unavailable: it keeps
//! trying by itself, and units that wait for the start must not wait for Twitch. Until then it asks for more time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::status::Sources;
use super::watchdog::{Hanging, Liveness, Part, Watchdog};
use crate::auth::Tokens;
use crate::model::pulse::Pulse;
use crate::model::rhythm::{BEAT, to_next};
use crate::model::status::{Status, TokenState};
use crate::model::text::one_line;
use crate::reconcile::ReconcileHandle;
use crate::store::{Store, since_start};

/// How often things are looked at without a reason; more often when systemd wants to hear more often, and while somebody
/// waits for the start.
const PERIOD: Duration = Duration::from_millis(3 * BEAT);
/// The same during the start.
const START_PERIOD: Duration = Duration::from_millis(100);
/// Extension that a long start asks for repeatedly.
const MORE_TIME: Duration = Duration::from_secs(30);
/// Maximum length of a problem's text, in characters.
const PROBLEM: usize = 300;

/// Connection to systemd, if there is one. Clones share their state.
#[derive(Clone, Debug)]
pub(super) struct Notifier {
    enabled: bool,
    ready: Arc<AtomicBool>,
}

impl Notifier {
    /// Creates a notifier that sends nothing unless `enabled`.
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, ready: Arc::default() }
    }

    fn notify(&self, states: &[NotifyState<'_>]) {
        if !self.enabled {
            return;
        }
        if let Err(error) = sd_notify::notify(states) {
            debug!(%error, "cannot notify systemd");
        }
    }

    /// Runs a part of the start that may take any time, and asks systemd for more time meanwhile.
    pub(super) async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        with_periodic(work, || {
            self.notify(&[NotifyState::Status(what), more_time()]);
        })
        .await
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
        self.notify(&[NotifyState::Ready]);
    }

    /// Reports that a reload begins. One before the daemon is ready is part of the start.
    pub(super) fn reloading(&self) {
        if self.is_ready() {
            // Newer versions of systemd require the time.
            match NotifyState::monotonic_usec_now() {
                Ok(now) => self.notify(&[NotifyState::Reloading, now]),
                Err(_) => self.notify(&[NotifyState::Reloading]),
            }
        }
    }

    /// Reports that the reload is over, accepted or not.
    pub(super) fn reloaded(&self) {
        if self.is_ready() {
            self.notify(&[NotifyState::Ready]);
        }
    }

    /// Reports that the daemon stops.
    pub(super) fn stopping(&self) {
        self.notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }
}

fn more_time() -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(MORE_TIME.as_micros()).unwrap_or(u32::MAX))
}

/// Runs `work`, and calls `notify` repeatedly meanwhile, often enough for [`MORE_TIME`].
async fn with_periodic<T>(work: impl Future<Output = T>, mut notify: impl FnMut()) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        notify();
        if let Ok(done) = tokio::time::timeout(MORE_TIME / 3, &mut work).await {
            return done;
        }
    }
}

/// Liveness counters of the parts.
#[derive(Debug)]
pub(super) struct LivenessCounters {
    pulses: [(Part, Pulse); 5],
    tokens: Tokens,
}

impl LivenessCounters {
    pub(super) fn new(store: &Store, tokens: Tokens, reconcile: &ReconcileHandle) -> Self {
        let (writer, reader) = store.pulses();
        let pulses = [
            (Part::StoreWriter, writer),
            (Part::StoreReader, reader),
            (Part::Keeper, tokens.pulse()),
            (Part::Reconciler, reconcile.pulse.clone()),
            (Part::Binder, reconcile.binder_pulse.clone()),
        ];
        Self { pulses, tokens }
    }

    fn liveness(&self, status: &Status) -> [Liveness; 5] {
        // A request waits for a token while there is none, and what must be stored for a disk with room.
        let reconciler_waits = self.tokens.is_awaited() || status.store.problem.is_some();
        self.pulses.each_ref().map(|(part, pulse)| Liveness {
            part: *part,
            beats: pulse.count(),
            waits: reconciler_waits && matches!(part, Part::Reconciler | Part::Binder),
        })
    }
}

/// Returns whether the start is over.
fn has_started(status: &Status) -> bool {
    let token = &status.token;
    // A run that failed although there was a token: Twitch is reachable, and the failure is real.
    let failed = status.reconcile.problem.is_some() && token.mints > 0;
    let reconcile = &status.reconcile;
    let matched = reconcile.generation > 0 || reconcile.remembered.is_some();
    matched || status.stands_by() || token.state == TokenState::Unavailable || failed
}

/// Returns the status line: the worst problem first, then counts.
fn status_line(status: &Status, up: bool) -> String {
    let mut parts = Vec::new();
    if !up {
        parts.push("starting".to_owned());
        if status.token.state == TokenState::Minting {
            parts.push("asking for a token".to_owned());
        }
    } else if status.token.state == TokenState::Unavailable {
        parts.push("Twitch cannot be reached, trying again".to_owned());
    }
    if let Some(problem) = status.problems.first() {
        // A line break would start another message to systemd.
        parts.push(one_line(&format!("{}: {}", problem.part, problem.message), PROBLEM));
    }
    let counts = &status.subscription_counts;
    if status.stands_by() {
        let leader = status.cluster.as_ref().and_then(|cluster| cluster.leader.as_deref());
        parts.push(
            leader.map_or_else(|| "standing by".to_owned(), |leader| format!("standing by for {leader}")),
        );
    } else if counts.total > 0 {
        parts.push(format!("{} of {} subscriptions enabled", counts.enabled, counts.total));
    } else if up {
        parts.push("no subscriptions".to_owned());
    }
    if let Some(progress) = status.reconcile.progress.filter(|progress| progress.total > 0) {
        parts.push(format!("{} of {} changes made", progress.done, progress.total));
    }
    parts.join("; ")
}

/// The time to the next turn: all periods end together, so that an idle daemon sleeps in between.
fn pause(period: Duration) -> Duration {
    let millis = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
    // Of a short one that is not in step there are many anyway.
    if millis < BEAT { period } else { to_next(millis - millis % BEAT, since_start()) }
}

/// Notifies systemd, and publishes what hangs, until cancelled.
pub(super) async fn notify_until_cancelled(
    notifier: Notifier,
    counters: LivenessCounters,
    mut sources: Sources,
    hangs: watch::Sender<Hanging>,
    cancel: CancellationToken,
) {
    let wanted = sd_notify::watchdog_enabled();
    let period = wanted.map_or(PERIOD, |limit| (limit / 3).clamp(Duration::from_millis(50), PERIOD));
    let mut watchdog = Watchdog::default();
    let mut reported: Vec<Part> = Vec::new();
    let mut last = String::new();
    let mut more_time_at: Option<Instant> = None;
    while !cancel.is_cancelled() {
        let now = Instant::now();
        let status = sources.snapshot();
        let hanging = watchdog.check(&counters.liveness(&status), now);
        if !hanging.is_empty() || !hangs.borrow().is_empty() {
            hangs.send_replace(hanging.as_slice().into());
        }
        reported.retain(|part| hanging.iter().any(|(hangs, _)| hangs == part));
        for (part, still) in &hanging {
            if !reported.contains(part) {
                reported.push(*part);
                let then =
                    if wanted.is_some() { "systemd restarts the daemon" } else { "restart the daemon" };
                error!(seconds = still.as_secs(), "{} hangs; {then}", part.name());
            }
        }
        let up = notifier.is_ready() || has_started(&status);
        let line = status_line(&status, up);
        if line != last {
            notifier.notify(&[NotifyState::Status(&line)]);
            last = line;
        }
        if up && !notifier.is_ready() {
            notifier.ready();
        }
        if hanging.is_empty() {
            if wanted.is_some() {
                notifier.notify(&[NotifyState::Watchdog]);
            }
            if !up && more_time_at.is_none_or(|at| now.duration_since(at) >= MORE_TIME / 3) {
                more_time_at = Some(now);
                notifier.notify(&[more_time()]);
            }
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(pause(if up { period } else { period.min(START_PERIOD) })) => {}
            Ok(()) = sources.token.changed(), if up => {}
            Ok(()) = sources.reconcile.changed(), if up => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::{Problem, Progress};

    fn status(change: impl FnOnce(&mut Status)) -> Status {
        let time = serde_json::json!("2026-11-02T09:00:01Z");
        let mut status: Status = serde_json::from_value(serde_json::json!({
            "version": "0", "pid": 1, "started_at": time, "now": time, "ready": false, "converged": false, "problems": [],
            "config": {"path": "c", "generation": 1, "loaded_at": time, "refused": null},
            "token": crate::model::status::TokenStatus::default(), "api": crate::model::status::ApiStatus::default(),
            "reconcile": crate::model::status::ReconcileStatus::default(), "shards": [],
            "intake": crate::model::status::IntakeStatus::default(),
            "store": crate::model::status::StoreStatus::default(), "sinks": [],
        }))
        .unwrap();
        change(&mut status);
        status
    }

    #[test]
    fn the_start_is_over_after_the_first_reconcile_or_when_there_is_nothing_to_wait_for() {
        let minted = |status: &mut Status| {
            status.token.state = TokenState::Valid;
            status.token.mints = 1;
        };
        assert!(!has_started(&status(|_| {})), "no token yet");
        assert!(!has_started(&status(minted)), "not reconciled yet");
        let remembered = |status: &mut Status| status.reconcile.remembered = Some(status.now);
        assert!(has_started(&status(remembered)), "an earlier process has left all as it is wanted");
        assert!(has_started(&status(|s| s.token.state = TokenState::Unavailable)));
        assert!(!has_started(&status(|s| {
            s.token.state = TokenState::Refused;
            s.reconcile.problem = Some("credentials".to_owned());
        })));
        assert!(has_started(&status(|s| {
            minted(s);
            s.reconcile.problem = Some("the conduits could not be listed".to_owned());
        })));
        assert!(has_started(&status(|s| {
            minted(s);
            s.reconcile.generation = 1;
        })));
    }

    #[test]
    fn the_status_line_starts_with_the_problem_and_is_one_line() {
        assert_eq!(status_line(&status(|_| {}), false), "starting; asking for a token");
        assert_eq!(status_line(&status(|_| {}), true), "no subscriptions");
        let under_way = status(|s| {
            s.token.state = TokenState::Valid;
            s.reconcile.progress = Some(Progress { done: 3, total: 10 });
        });
        assert_eq!(status_line(&under_way, false), "starting; 3 of 10 changes made");
        let problem = |message: &str| {
            status(|s| {
                s.token.state = TokenState::Unavailable;
                let (part, message, hint) = ("token".to_owned(), message.to_owned(), String::new());
                s.problems.push(Problem { part, message, hint });
            })
        };
        assert_eq!(
            status_line(&problem("no answer\nWATCHDOG=trigger"), true),
            "Twitch cannot be reached, trying again; token: no answer\\nWATCHDOG=trigger; no subscriptions"
        );
        assert!(status_line(&problem(&"long".repeat(1000)), true).chars().count() < PROBLEM + 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_start_asks_for_more_time_until_it_ends() {
        let mut calls = Vec::new();
        let begun = tokio::time::Instant::now();
        let work = async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            7
        };
        assert_eq!(with_periodic(work, || calls.push(begun.elapsed())).await, 7);
        assert_eq!(begun.elapsed(), Duration::from_secs(100));
        assert!(calls.windows(2).all(|pair| pair[1] - pair[0] < MORE_TIME / 2), "{calls:?}");
        assert!((10..13).contains(&calls.len()), "{calls:?}");
    }

    #[test]
    fn reloads_are_reported_once_the_daemon_is_ready() {
        let notifier = Notifier::new(false);
        notifier.reloading();
        assert!(!notifier.is_ready(), "a reload does not end the start");
        notifier.reloaded();
        assert!(!notifier.is_ready());
        notifier.ready();
        assert!(notifier.is_ready());
    }
}
