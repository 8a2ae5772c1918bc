//! The loop: when to run.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::RunEnd;
use super::engine::Engine;
use crate::model::text::chain;
use crate::reconcile::Requests;
use crate::reconcile::api::Api;
use crate::reconcile::decide::wanted;

/// A page of the list takes so long of a rate limit of 800 requests a minute.
const PAGE_TIME: Duration = Duration::from_millis(75);

/// Runs that only retry what is parked take at most a tenth of the rate limit.
const RETRY_SHARE: u32 = 10;

/// Runs after revocations take at most a quarter of it.
const REVOKED_SHARE: u32 = 4;

/// Grants that come in a row lead to one run.
const GRANT_PAUSE: Duration = Duration::from_millis(200);

/// Challenges that are answered in a row lead to one run.
const VERIFIED_PAUSE: Duration = Duration::from_millis(300);

/// From one run to the next while subscriptions wait for their challenge, or are moved.
const UNSETTLED_PAUSE: Duration = Duration::from_secs(3);

impl<A: Api> Engine<A> {
    /// Runs until cancelled.
    pub(in crate::reconcile) async fn run(mut self, cancel: CancellationToken) {
        let Some(binder) = self.binder.take() else { return };
        // Shards stay watched until the last request of a stopped run is answered.
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let mut binder = tokio::spawn(binder.run(stop));
        tokio::select! {
            () = self.main(&cancel) => {}
            ended = &mut binder => {
                tracing::error!(error = ?ended.err(), "the task that binds shards ended");
                return;
            }
        }
        drop(guard);
        if let Err(error) = binder.await {
            tracing::error!(%error, "the task that binds shards failed");
        }
    }

    async fn main(&mut self, cancel: &CancellationToken) {
        let mut failures = 0;
        while let Err(error) = self.recall().await {
            self.pulse.beat();
            let pause = self.backoff(&mut failures);
            tracing::warn!(error = chain(&error), "what is remembered could not be read");
            self.publisher.status.problem = Some(chain(&error));
            self.publisher.flush();
            tokio::select! {
                () = cancel.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
        let desired = self.desired.borrow().clone();
        let wanted = wanted::of(&desired, &self.logins, &self.options.client_id);
        self.publish_routes(&wanted);
        self.publisher.rebase(&wanted);
        self.publisher.flush();

        failures = 0;
        loop {
            self.pulse.beat();
            let end = Box::pin(self.run_once(cancel)).await;
            self.publisher.status.progress = None;
            let now = Instant::now();
            let next = match end {
                Ok(RunEnd::Cancelled) => {
                    self.publisher.flush();
                    return;
                }
                Ok(RunEnd::Cut) => None,
                Ok(RunEnd::Complete) => {
                    failures = 0;
                    Some(self.next_run(now))
                }
                Err(stop) => {
                    let pause = self.backoff(&mut failures);
                    tracing::warn!(
                        error = stop.0,
                        retry_in_ms = pause.as_millis(),
                        "reconciling ended early"
                    );
                    self.publisher.status.problem = Some(stop.0);
                    Some(now + pause)
                }
            };
            self.compose_warnings();
            self.publisher.flush();
            if let Some(next) = next {
                self.answered.send_replace(self.seen.1.asked);
                if !self.idle(cancel, next, failures > 0).await {
                    return;
                }
            }
        }
    }

    /// Grows with each failure, up to the longest; a quarter more or less.
    fn backoff(&self, failures: &mut u32) -> Duration {
        let (first, longest) = self.options.backoff;
        let pause = first.saturating_mul(1 << (*failures).min(20)).min(longest);
        *failures = failures.saturating_add(1);
        pause.mul_f64(0.75 + fastrand::f64() / 2.0)
    }

    /// When to run next after a complete run.
    fn next_run(&self, now: Instant) -> Instant {
        let interval = now + self.desired.borrow().interval;
        let due = [self.parked.next_due(), self.logins.next_due()].into_iter().flatten().min();
        let due = due.map(|due| Instant::from_std(due).max(self.spaced(RETRY_SHARE, Duration::from_secs(5))));
        let soon = self.unsettled.then(|| self.spaced(2, UNSETTLED_PAUSE));
        [due, soon].into_iter().flatten().fold(interval, Instant::min).max(now)
    }

    /// The earliest time for a run whose cause may come again and again.
    fn spaced(&self, share: u32, least: Duration) -> Instant {
        let now = Instant::now();
        self.listed.map_or(now, |(at, pages)| at + (PAGE_TIME * pages * share).max(least)).max(now)
    }

    /// Waits for a reason to run; false when cancelled.
    async fn idle(&mut self, cancel: &CancellationToken, mut next: Instant, failing: bool) -> bool {
        let seen = self.seen.1.asked;
        loop {
            self.pulse.beat();
            let event = tokio::select! {
                biased;
                () = cancel.cancelled() => return false,
                Ok(()) = self.desired.changed() => return true,
                () = asked(&mut self.requests, seen) => return true,
                () = self.revoked.notified() => Event::Revoked,
                () = self.trouble.notified() => Event::Trouble,
                () = self.hints.grants.notified() => Event::Grants,
                () = self.hints.verified.notified() => Event::Verified,
                Ok(()) = self.report.changed() => Event::Report,
                () = sleep_until(next) => return true,
                () = sleep_until(self.next_refresh) => Event::Refresh,
            };
            match event {
                // While runs fail, the next one comes soon anyway, and not sooner.
                Event::Revoked | Event::Trouble | Event::Verified if failing => {}
                Event::Grants => {
                    self.take_hints();
                    if !failing {
                        next = next.min(self.spaced(1, GRANT_PAUSE));
                    }
                }
                // The last run has seen them enabled already.
                Event::Verified if self.unverified.is_empty() => {}
                Event::Verified => next = next.min(self.spaced(1, VERIFIED_PAUSE)),
                Event::Revoked => next = next.min(self.spaced(REVOKED_SHARE, Duration::from_secs(1))),
                Event::Trouble => next = next.min(self.spaced(1, Duration::from_secs(1))),
                Event::Report => {
                    self.compose_warnings();
                    self.publisher.flush();
                }
                Event::Refresh => {
                    tokio::select! {
                        () = cancel.cancelled() => return false,
                        () = self.refresh_logins() => {}
                    }
                }
            }
        }
    }

    /// What is known of users whose grants have changed is looked up again, and what waits for them is due.
    fn take_hints(&mut self) {
        let changed = std::mem::take(&mut *self.hints.lock());
        if changed.all {
            self.grants.forget_all();
        }
        for user in &changed.ids {
            self.grants.forget(user);
        }
        let users = (!changed.all).then_some(&changed.ids);
        self.parked.release_users(users, Instant::now().into_std());
    }
}

/// Why the loop stirs between runs.
enum Event {
    Revoked,
    Grants,
    Verified,
    Trouble,
    Report,
    Refresh,
}

/// Returns once more was asked than had been seen.
async fn asked(requests: &mut watch::Receiver<Requests>, seen: u64) {
    if requests.wait_for(|requests| requests.asked != seen).await.is_err() {
        std::future::pending::<()>().await;
    }
}
