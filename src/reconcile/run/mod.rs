//! The loop and its runs. A run sees to the conduit, reads what it needs to know, plans, and carries the plan out.

mod carry_out;
pub(super) mod engine;
mod execute;
mod lists;
pub(super) mod observe;
pub(super) mod out;
mod places;
mod standby;
pub(super) mod tables;
mod wakeups;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::engine::{Engine, RunEnd};
use self::execute::Costs;
use self::observe::observe_wanted;
use self::out::Out;
use self::places::PreparedPlaces;
use self::tables::{Observed, Tables};
use self::wakeups::Order;
use crate::model::status::HeldDeletes;
use crate::model::webhook::KeyId;
use crate::reconcile::Desired;
use crate::reconcile::api::Api;
use crate::reconcile::decide::action::Action;
use crate::reconcile::decide::ledger::{Known, PAGE};
use crate::reconcile::decide::place::Places;
use crate::reconcile::decide::plan::Planned;
use crate::reconcile::decide::wanted::Wanted;
use crate::reconcile::error::RunError;

/// Time in which the conduit is looked up before anything else is done.
const HEAD_START: Duration = Duration::from_millis(500);

/// A plan that is ready to be carried out.
#[derive(Debug)]
struct Prepared {
    places: Places,
    wanted: Arc<Wanted>,
    planned: Planned,
    costs: Costs,
    /// The secrets that subscriptions call us with.
    keys: BTreeSet<KeyId>,
    /// Number of deletes that are left out of the plan.
    withheld: usize,
}

impl<A: Api> Engine<A> {
    pub(super) async fn run_once(&mut self, cancel: &CancellationToken) -> Result<RunEnd, RunError> {
        let order = self.wake_ups.begin_run();
        let desired = Arc::clone(&order.desired);
        if order.is_requested {
            self.tables.release();
            self.places.forget_proofs();
        }
        if order.allows_deletes {
            self.tables.allow_deletes(desired.generation);
        }
        self.out.begin_run();
        let (ended, too_many) = self.wake_ups.take_ended();
        if too_many || !ended.is_empty() {
            self.lists.refuse_wait();
        }
        ended.into_iter().for_each(|(id, status)| self.lists.record(Known::Ended { id, status }));
        if too_many {
            self.lists.distrust();
        }

        let Some(places) = self.prepare_places(&desired, cancel).await? else {
            return Ok(RunEnd::Cancelled);
        };

        let newer = self.wake_ups.newer();
        tokio::pin!(newer);
        let prepared = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(RunEnd::Cancelled),
            () = &mut newer => return Ok(RunEnd::Cut),
            prepared = self.prepare(&order, places) => prepared?,
        };
        let Some(prepared) = prepared else { return Ok(RunEnd::Complete { is_settled: true }) };
        let stopped = async {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = &mut newer => {}
            }
        };
        match self.carry_out(&desired, prepared, stopped).await? {
            RunEnd::Cut if cancel.is_cancelled() => Ok(RunEnd::Cancelled),
            end => Ok(end),
        }
    }

    /// Sees to our places, and shows what is wanted. The shards go first: what is wanted may take a second to work out.
    /// An edit does not cut this step: a conduit that it makes must be remembered first. Returns `None` when cancelled.
    async fn prepare_places(
        &mut self,
        desired: &Desired,
        cancel: &CancellationToken,
    ) -> Result<Option<Places>, RunError> {
        let prepare = self.places.prepare(&self.api, desired);
        tokio::pin!(prepare);
        let prepared = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(None),
            prepared = timeout(HEAD_START, &mut prepare) => prepared,
        };
        let shown = show_wanted(&mut self.tables, desired, &mut self.out).await;
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(_) => {
                self.out.flush();
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Ok(None),
                    prepared = prepare => prepared,
                }
            }
        };
        let PreparedPlaces { places, conduit, warning } = prepared?;
        if conduit.is_some() {
            self.out.show_conduit(conduit);
        }
        warning.into_iter().for_each(|warning| self.out.warn(warning));
        shown?;
        Ok(Some(places))
    }

    /// Reads everything, plans, and takes the plan into our own tables. Returns `None` if an earlier process has left
    /// Twitch as the file is, and the list is being read in the background: it is compared when it is there.
    async fn prepare(&mut self, order: &Order, places: Places) -> Result<Option<Prepared>, RunError> {
        let desired = &*order.desired;
        let wanted = observe_wanted(&self.api, &mut self.tables, desired).await?;
        // The list may take minutes to read; whoever asks meanwhile sees what is wanted.
        self.tables.show(&wanted, &mut self.out);
        self.lists.share_keys(&wanted);
        let Some(mut is_fresh) = self.read_list(order, &places, &wanted).await? else {
            return Ok(None);
        };
        let decided = loop {
            let list = self.lists.known();
            if is_fresh {
                self.places.tend_old(&self.api, desired, &places, &list.rows, &mut self.out).await?;
            }
            let overdue = self.tables.track_challenges(&places, &list.rows);
            let registry = &mut self.places;
            let unreachable = async {
                match &desired.webhook {
                    Some(webhook) => registry.unreachable(webhook).await,
                    None => None,
                }
            };
            let observed = Observed { wanted: &wanted, list, is_fresh };
            let decided =
                self.tables.decide(&self.api, desired, &places, observed, &overdue, unreachable).await;
            if !decided.planned.needs_fresh {
                break decided;
            }
            self.read_now(&places, false).await?;
            is_fresh = true;
        };
        decided.remarks.into_iter().for_each(|remark| self.out.warn(remark));
        if let Some(why) = decided.unreachable {
            tracing::warn!(error = why, "the callback cannot be reached; nothing is created");
            self.out.warn(format!("the callback cannot be reached, so nothing is created: {why}"));
        }
        let mut planned = decided.planned;
        let withheld = self.withhold_deletes(&mut planned.plan);
        self.out.show_grants(self.tables.grants_of_absent(&wanted, &planned));
        self.tables.apply_plan(&wanted, &planned, &mut self.out);
        self.out.end_expectation();
        self.out.record_list(self.lists.begun());
        let deletes = planned.plan.held.len() as u64;
        let held = planned.plan.held_of.map(|ours| HeldDeletes { deletes, ours });
        self.out.show_held(held, desired.generation);
        let list = self.lists.known();
        let costs = Costs::new(list.total_cost, list.max_total_cost);
        let keys = places.keys(&list.rows);
        self.out.show_costs(&costs);
        self.tables.remember_hold(&planned).await?;
        self.out.begin_actions(planned.plan.actions.len());
        if planned.plan.actions.iter().any(Action::is_create) && !places.current.is_webhook() {
            self.places.await_shards().await;
        }
        Ok(Some(Prepared { places, wanted, planned, costs, keys, withheld }))
    }

    /// Sees to a list to plan from. Returns whether it has just been read; `None` if nothing is known, and nothing has
    /// to be done before the list is read in the background.
    async fn read_list(
        &mut self,
        order: &Order,
        places: &Places,
        wanted: &Wanted,
    ) -> Result<Option<bool>, RunError> {
        let due = self.lists.take_due();
        let desired = &*order.desired;
        let before = match self.lists.pages() {
            0 => self.tables.recall_compared(desired, wanted, places).await,
            _ => None,
        };
        if let Some(compared) = &before {
            self.out.expect(compared);
        }
        if order.is_applied {
            self.read_now(places, true).await?;
            return Ok(Some(true));
        }
        // A comparison in the background may begin when the interval is over, and takes its time.
        let is_usable = self.lists.is_usable(places, desired.interval.saturating_mul(2));
        if due.is_read && is_usable {
            return Ok(Some(true));
        }
        if is_usable && !due.is_comparison && self.lists.pages() > self.options.small_list {
            if self.lists.look_at_unverified(&self.api, places).await? {
                self.lists.refresh_costs(&self.api).await?;
                return Ok(Some(false));
            }
        } else if let Some(compared) = before
            && compared.rows > (self.options.small_list * PAGE) as u64
        {
            self.out.show_remembered(compared.at);
            self.out.show_planned(desired.generation);
            // A change of leader costs no list: the next one is due an interval after the last one of any host. A run that
            // comes before has a cause, and needs the list.
            let next = self.tables.next_list(&compared, desired.interval);
            match next.filter(|_| self.lists.may_wait()) {
                Some(pause) => self.wake_ups.postpone_list(pause),
                None => {
                    self.lists.read_in_background(&self.api, places);
                    self.wake_ups.record_list(0);
                }
            }
            return Ok(None);
        }
        self.read_now(places, false).await?;
        Ok(Some(true))
    }

    async fn read_now(&mut self, places: &Places, new: bool) -> Result<(), RunError> {
        self.lists.read_now(&self.api, places, new).await?;
        self.wake_ups.record_list(self.lists.pages());
        Ok(())
    }
}

/// Reads what is remembered, once, and shows what is wanted with that.
async fn show_wanted(tables: &mut Tables, desired: &Desired, out: &mut Out) -> Result<(), RunError> {
    let unread = |source| RunError::Memory { what: "what is remembered could not be read", source };
    tables.recall().await.map_err(unread)?;
    tables.retain_logins(desired);
    let wanted = tables.wanted(desired);
    tables.show(&wanted, out);
    Ok(())
}
