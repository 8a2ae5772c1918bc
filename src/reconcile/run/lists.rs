//! Owner of Twitch's list: what is known of it, and its reading, by a run or in the background.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::helix::{Background, Filter, HelixError, SubscriptionList};
use crate::model::subscription::SubscriptionRow;
use crate::reconcile::api::Api;
use crate::reconcile::decide::ledger::{Known, Ledger};
use crate::reconcile::decide::place::Places;
use crate::reconcile::decide::wanted::Wanted;
use crate::reconcile::error::RunError;

/// Rows that are looked up by their ids at a time.
const LOOKUPS: usize = 8;

/// Rows that are looked up by their ids, at least, before the whole list is read instead.
const LEAST_LOOKUPS: usize = 20;

const UNLISTED: &str = "the subscriptions could not be listed";

/// A list that is read in the background. Dropping it stops the reading.
#[derive(Debug)]
struct Reading {
    filter: Filter,
    begun: Instant,
    background: Background,
    task: JoinHandle<Result<SubscriptionList, HelixError>>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Twitch's list, as far as it is known.
#[derive(Debug, Default)]
pub(in crate::reconcile) struct Lists {
    ledger: Ledger,
    reading: Option<Reading>,
    /// Something happened that only a whole list shows.
    is_stale: bool,
    due: Due,
    /// No first list is put off any more: one was, or something happened that needs it.
    has_waited: bool,
    /// Owner of the keys that the rows share.
    wanted: Arc<Wanted>,
}

/// Work of the next run with the list.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::reconcile) struct Due {
    /// The run compares with the whole list.
    pub(in crate::reconcile) is_comparison: bool,
    /// The list has been read in the background, and the run compares with it.
    pub(in crate::reconcile) is_read: bool,
}

/// Lets a row share the key of the file.
fn intern(wanted: &Wanted, row: &mut SubscriptionRow) {
    if let Ok(at) = wanted.keys.binary_search(&row.key) {
        row.key = wanted.keys[at].clone();
    }
}

impl Lists {
    /// Has the rows of lists share these keys.
    pub(in crate::reconcile) fn share_keys(&mut self, wanted: &Arc<Wanted>) {
        self.wanted = Arc::clone(wanted);
    }

    /// Records what is known without a list.
    pub(in crate::reconcile) fn record(&mut self, change: Known) {
        self.ledger.record(change);
    }

    /// Records the totals of Twitch's newest answer.
    pub(in crate::reconcile) fn record_costs(&mut self, total: u64, max: u64) {
        self.ledger.record_costs(total, max);
    }

    /// Records that only a whole list can tell how things are.
    pub(in crate::reconcile) fn distrust(&mut self) {
        self.is_stale = true;
    }

    /// Has the next run compare with the whole list.
    pub(in crate::reconcile) fn require_comparison(&mut self) {
        self.due.is_comparison = true;
    }

    /// Returns what this run has to do about the list; the next one begins anew.
    pub(in crate::reconcile) fn take_due(&mut self) -> Due {
        std::mem::take(&mut self.due)
    }

    /// Has the first list read as soon as it is needed.
    pub(in crate::reconcile) fn refuse_wait(&mut self) {
        self.has_waited = true;
    }

    /// Returns whether the first list may be put off; true at most once.
    pub(in crate::reconcile) fn may_wait(&mut self) -> bool {
        !std::mem::replace(&mut self.has_waited, true)
    }

    /// Whether a run can plan from what is known.
    pub(in crate::reconcile) fn is_usable(&self, places: &Places, life: Duration) -> bool {
        !self.is_stale && self.ledger.is_usable(&places.filter(), life, Instant::now().into_std())
    }

    /// When the reading of the list that is known began.
    pub(in crate::reconcile) fn begun(&self) -> Option<std::time::Instant> {
        self.ledger.begun()
    }

    /// Pages of the list that is known; 0 if none is.
    pub(in crate::reconcile) fn pages(&self) -> usize {
        self.ledger.pages()
    }

    /// Whether the next run plans from what is known, as far as that does not lie with its places.
    pub(in crate::reconcile) fn is_short(&self, small: usize) -> bool {
        !self.is_stale && self.pages() > small
    }

    /// The list that is known, with what was done and heard since; empty before the first one.
    pub(in crate::reconcile) fn known(&mut self) -> &SubscriptionList {
        const NOTHING: &SubscriptionList =
            &SubscriptionList { rows: Vec::new(), unread: Vec::new(), total_cost: 0, max_total_cost: 0 };
        self.ledger.list().unwrap_or(NOTHING)
    }

    /// Begins to read a long list again in the background; false if it is short, or not known.
    pub(in crate::reconcile) fn read_again<A: Api>(&mut self, api: &A, small: usize) -> bool {
        let filter = self.ledger.filter().filter(|_| self.pages() > small).cloned();
        filter.is_some_and(|filter| {
            self.read_filtered(api, filter);
            true
        })
    }

    /// Begins to read the list in the background, unless it is being read.
    pub(in crate::reconcile) fn read_in_background<A: Api>(&mut self, api: &A, places: &Places) {
        self.read_filtered(api, places.filter());
    }

    fn read_filtered<A: Api>(&mut self, api: &A, filter: Filter) {
        if self.reading.as_ref().is_some_and(|reading| reading.filter == filter) {
            return;
        }
        let background = Background::default();
        let (api, asked) = (api.in_background(&background), filter.clone());
        let wanted = Arc::clone(&self.wanted);
        let task = tokio::spawn(async move { api.subscriptions(&asked, |row| intern(&wanted, row)).await });
        self.ledger.begin_reading();
        self.is_stale = false;
        self.reading = Some(Reading { filter, begun: Instant::now(), background, task });
    }

    /// Waits until the list is read in the background, and takes it for the next run; pending while none is.
    pub(in crate::reconcile) async fn read_ahead(&mut self) -> Result<(), RunError> {
        self.read().await?;
        self.due.is_read = true;
        Ok(())
    }

    async fn read(&mut self) -> Result<(), RunError> {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let list = match (&mut reading.task).await {
            Ok(list) => list,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(HelixError::Unreachable { message: "the reading was stopped".into() }),
            },
        };
        let (filter, begun) = (reading.filter.clone(), reading.begun);
        self.reading = None;
        match list {
            Ok(list) => {
                self.ledger.replace(filter, begun.into_std(), list);
                Ok(())
            }
            Err(error) => {
                self.ledger.end_reading();
                Err(RunError::api(UNLISTED, error))
            }
        }
    }

    /// Reads the whole list now. A reading in the background is hurried up, unless the list has to be a `new` one.
    pub(in crate::reconcile) async fn read_now<A: Api>(
        &mut self,
        api: &A,
        places: &Places,
        new: bool,
    ) -> Result<(), RunError> {
        let filter = places.filter();
        if let Some(reading) = self.reading.as_ref().filter(|reading| !new && reading.filter == filter) {
            reading.background.end();
            return self.read().await;
        }
        self.reading = None;
        self.ledger.begin_reading();
        self.is_stale = false;
        let begun = Instant::now();
        let list = match places.is_nowhere() {
            true => SubscriptionList::default(),
            false => {
                let list = api.subscriptions(&filter, |row| intern(&self.wanted, row)).await;
                list.map_err(|error| RunError::api(UNLISTED, error))?
            }
        };
        self.ledger.replace(filter, begun.into_std(), list);
        Ok(())
    }

    /// Looks up the rows that wait for their challenge, one by one. Returns false if they are so many that the whole
    /// list costs less.
    pub(in crate::reconcile) async fn look_at_unverified<A: Api>(
        &mut self,
        api: &A,
        places: &Places,
    ) -> Result<bool, RunError> {
        let ids = self.ledger.unverified(places);
        if ids.len() > LEAST_LOOKUPS.max(self.pages() / 4) {
            return Ok(false);
        }
        let mut looks = futures_util::stream::iter(ids)
            .map(|id| async move {
                let list = api.subscriptions(&Filter::Id(id.to_string()), |_| {}).await;
                (id, list)
            })
            .buffer_unordered(LOOKUPS);
        let mut found = Vec::new();
        while let Some((id, list)) = looks.next().await {
            let list = list.map_err(|error| RunError::api(UNLISTED, error))?;
            let is_unread = !list.unread.is_empty();
            let row: Option<SubscriptionRow> = list.rows.into_iter().find(|row| row.id == id);
            match row {
                Some(row) => found.push(Known::There(row)),
                None if is_unread => return Ok(false),
                None => found.push(Known::Gone(id)),
            }
        }
        drop(looks);
        found.into_iter().for_each(|change| self.record(change));
        Ok(true)
    }

    /// Reads the totals of costs anew if they leave little room.
    pub(in crate::reconcile) async fn refresh_costs<A: Api>(&mut self, api: &A) -> Result<(), RunError> {
        let list = self.known();
        let (total, max) = (list.total_cost, list.max_total_cost);
        if max == 0 || total.saturating_mul(10) < max.saturating_mul(9) {
            return Ok(());
        }
        let costs = api.costs().await;
        let (total, max) = costs.map_err(|error| RunError::api("the costs could not be read", error))?;
        self.record_costs(total, max);
        Ok(())
    }
}
