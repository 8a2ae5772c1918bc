//! What systemd is told: when the daemon is ready, when it stops, and one sentence on how things are.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::status::Sources;
use crate::model::status::{Status, SubscriptionState, TokenState};

/// How often the sentence is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// One sentence on how things are.
pub(super) fn sentence(status: &Status) -> String {
    let enabled = status.subscriptions.iter().filter(|s| s.state == SubscriptionState::Enabled).count();
    let counts = format!("{enabled} of {} subscriptions enabled", status.subscriptions.len());
    match status.problems.first() {
        Some(problem) => format!("{counts}; {}: {}", problem.part, problem.message),
        None => match status.reconcile.progress {
            Some(progress) => format!("{counts}; {} of {} changes made", progress.done, progress.total),
            None => counts,
        },
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd was not told");
    }
}

/// Tells systemd that the daemon stops.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Keeps systemd told until cancelled. Ready is the daemon once it is converged for the first time, or
/// once it is certain that Twitch cannot be had for now: it will go on trying by itself.
pub(super) async fn keep_told(sources: Sources, cancel: CancellationToken) {
    let mut ready = false;
    let mut last = String::new();
    while !cancel.is_cancelled() {
        let status = sources.snapshot();
        if !ready && (status.ready || status.token.state == TokenState::Unavailable) {
            ready = true;
            tell(&[NotifyState::Ready]);
        }
        let sentence = sentence(&status);
        if sentence != last {
            tell(&[NotifyState::Status(&sentence)]);
            last = sentence;
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}
