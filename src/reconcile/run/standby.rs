//! Of several hosts one leads: when this one runs, and what it does while it stands by.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::lists::Lists;
use super::show_wanted;
use super::tables::Tables;
use crate::model::cluster::{Leadership, Role};
use crate::model::text::{chain, counted};
use crate::reconcile::api::Api;
use crate::reconcile::decide::action::{Action, Plan};

/// Time for which sockets stay after another host has begun to lead: it binds its own meanwhile.
const SUCCESSOR: Duration = Duration::from_secs(5);

/// Longest pause between two signs of life.
const BEAT: Duration = Duration::from_secs(30);

/// Pause after a memory that could not be read.
const RETRY: Duration = Duration::from_secs(1);

impl<A: Api> Engine<A> {
    /// Runs while this host leads, until cancelled. A host without others always leads.
    pub(super) async fn take_turns(&mut self, cancel: &CancellationToken) {
        let Some(mut leadership) = self.options.leadership.clone() else { return self.main(cancel).await };
        let mut term = 0;
        while self.stand_by(&mut leadership, cancel).await {
            let order = leadership.borrow_and_update().clone();
            if order.term != term {
                self.forget();
                term = order.term;
            }
            self.wake_ups.begin_term();
            let stop = cancel.child_token();
            let lost = self.follow_orders(leadership.clone(), order, stop.clone());
            tokio::select! {
                () = self.main(&stop) => {}
                never = lost => match never {},
            }
            if cancel.is_cancelled() {
                return;
            }
        }
    }

    /// Stops the runs once this host does not lead any more, and wakes them when deletes are allowed again, or there
    /// are more hosts or fewer.
    fn follow_orders(
        &self,
        mut leadership: watch::Receiver<Leadership>,
        mut order: Leadership,
        stop: CancellationToken,
    ) -> impl Future<Output = std::convert::Infallible> + use<A> {
        let trouble = self.wake_ups.trouble();
        async move {
            while leadership.changed().await.is_ok() {
                let new = leadership.borrow_and_update().clone();
                if (new.role, new.term) != (Role::Leader, order.term) {
                    stop.cancel();
                    break;
                }
                let parts =
                    |order: &Leadership| (order.no_deletes.clone(), order.fingerprint.clone(), order.hosts);
                if parts(&new) != parts(&order) {
                    trouble.notify_one();
                }
                order = new;
            }
            std::future::pending().await
        }
    }

    /// Waits until this host leads; false when cancelled. Meanwhile it shows what is wanted, and writes nothing.
    async fn stand_by(
        &mut self,
        leadership: &mut watch::Receiver<Leadership>,
        cancel: &CancellationToken,
    ) -> bool {
        let (mut shown, mut close_at) = (None, None);
        loop {
            self.pulse.beat();
            let order = leadership.borrow_and_update().clone();
            let mut wake = Instant::now() + BEAT;
            match order.role {
                Role::Leader => return true,
                // Nobody else is known to have the shards: the sockets stay.
                Role::CutOff => close_at = None,
                Role::Standby => {
                    let known = (self.wake_ups.desired().generation, order.known);
                    if shown != Some(known) {
                        match self.show_known().await {
                            Ok(()) => shown = Some(known),
                            Err(_) => wake = Instant::now() + RETRY,
                        }
                    }
                    let at = *close_at.get_or_insert(Instant::now() + SUCCESSOR);
                    if at <= Instant::now() {
                        self.places.close_sockets();
                    } else {
                        wake = wake.min(at);
                    }
                }
            }
            let answered = self.wake_ups.take_requests();
            self.out.publish_answered(answered);
            tokio::select! {
                () = cancel.cancelled() => return false,
                Ok(()) = leadership.changed() => {}
                () = self.wake_ups.asked_or_edited() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Shows what the file wants, with what other hosts know: the sinks of this host need it.
    async fn show_known(&mut self) -> Result<(), ()> {
        let desired = self.wake_ups.desired();
        self.tables = Tables::new(self.memory.clone(), &self.options);
        self.out.begin_term();
        let shown = show_wanted(&mut self.tables, &desired, &mut self.out).await;
        self.out.flush();
        shown.map_err(|error| {
            tracing::warn!(error = chain(&error), "what is remembered could not be read; trying again");
        })
    }

    /// Forgets everything that another leader may have changed.
    fn forget(&mut self) {
        self.places.forget();
        self.tables = Tables::new(self.memory.clone(), &self.options);
        self.lists = Lists::default();
        self.out.begin_term();
    }

    /// Takes the deletes out of a plan while none are allowed; returns how many.
    pub(super) fn withhold_deletes(&mut self, plan: &mut Plan) -> usize {
        let Some(leadership) = &self.options.leadership else { return 0 };
        let order = leadership.borrow().clone();
        // After a reload the files of the other hosts are compared with the new one first.
        let is_compared = *order.fingerprint == *self.wake_ups.desired().fingerprint;
        let uncompared = || "the new file is not compared with those of the other hosts yet".into();
        let Some(why) = order.no_deletes.or_else(|| (!is_compared).then(uncompared)) else { return 0 };
        let before = plan.actions.len();
        plan.actions.retain(Action::is_create);
        let withheld = before - plan.actions.len();
        if withheld > 0 {
            let subscriptions = counted(withheld as u64, "subscription");
            self.out.warn(format!("{subscriptions} would be deleted, and nothing is deleted now: {why}"));
        }
        withheld
    }
}
