//! Carries out a plan, several requests at a time. Makes no choices: it does not retry, and what
//! Twitch answers is handed back.
//!
//! A request whose answer is lost, or that is cut off, may have been carried out: the next run lists
//! and sees.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use crate::helix::{Filter, HelixError, HelixErrorKind};
use crate::model::subscription::{SubscriptionKey, SubscriptionRow};
use crate::reconcile::api::Api;
use crate::reconcile::decide::action::Action;
use crate::reconcile::decide::place::Place;
use crate::reconcile::decide::reason;

/// Failures in a row that end a run.
const FAILURES_IN_A_ROW: u32 = 5;

/// Requests handed to the API client beyond those that may be in flight, so that it never waits for us.
const WAITING: usize = 6;

/// Sum of the costs of the client's subscriptions, as far as it is known during a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::reconcile) struct Costs {
    /// From the list, less what was deleted and more what was created since.
    counted: u64,
    /// The highest total that Twitch has reported since.
    reported: u64,
    /// 0 when it is not known.
    pub(in crate::reconcile) max: u64,
    /// Twitch has refused one for its cost.
    full: bool,
}

impl Costs {
    pub(in crate::reconcile) fn new(total: u64, max: u64) -> Self {
        Self { counted: total, reported: 0, max, full: false }
    }

    pub(in crate::reconcile) fn total(&self) -> u64 {
        self.counted.max(self.reported)
    }

    /// The cost that may still be added; `None` if the limit is not known.
    fn room(&self) -> Option<u64> {
        if self.full {
            return Some(0);
        }
        (self.max > 0).then(|| self.max.saturating_sub(self.total()))
    }
}

/// Outcome of one action.
#[derive(Clone, Debug)]
pub(in crate::reconcile) enum Outcome {
    /// The subscription exists now, created or adopted.
    There {
        row: SubscriptionRow,
        adopted: bool,
    },
    Deleted,
    /// Twitch refuses it, for a reason that lies in the action.
    Refused(HelixError),
    /// Twitch says that an equal one exists, and it is not usable.
    Conflicted(String),
    /// Not sent: there is no room for its cost.
    NoRoom,
    /// Neither done nor refused, as far as we know.
    Failed,
}

/// The end of an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum End {
    /// Every action was carried out or refused.
    Complete,
    Stopped,
    /// The conduit is gone.
    ConduitGone,
    /// At least one action failed.
    Failed(HelixError),
}

/// Settings of an execution.
pub(in crate::reconcile) struct Job<'a, A> {
    pub(in crate::reconcile) api: &'a A,
    pub(in crate::reconcile) place: &'a Place,
    /// Least number of actions under way at a time.
    pub(in crate::reconcile) concurrency: usize,
    /// Time that requests in hand may take once the execution is stopped.
    pub(in crate::reconcile) drain: Duration,
}

enum Done {
    Outcome(Outcome),
    Created { row: SubscriptionRow, total: u64, max: u64 },
    ConduitGone,
    Failed(HelixError),
}

/// Carries out the actions in order; groups of creates and of deletes do not overlap. Nothing new is
/// begun once `stop` is ready. `report` hears of every action that was begun or held back.
pub(in crate::reconcile) async fn execute<A: Api>(
    job: &Job<'_, A>,
    actions: &[Action],
    costs: &mut Costs,
    stop: impl Future<Output = ()>,
    mut report: impl FnMut(&Action, Outcome, &Costs),
) -> End {
    let mut stop = pin!(stop);
    let mut deadline = None;
    let mut failed: Option<HelixError> = None;
    let mut over = false;
    let mut in_a_row = 0;
    for group in actions.chunk_by(|a, b| a.is_create() == b.is_create()) {
        let mut queue = group.iter().peekable();
        let mut flight = FuturesUnordered::new();
        let mut costly_in_flight: u64 = 0;
        loop {
            while !over && flight.len() < job.concurrency.max(job.api.window() + WAITING) {
                let Some(action) = queue.peek() else { break };
                if is_costly(action)
                    && let Some(room) = costs.room()
                    && room <= costly_in_flight
                {
                    if costly_in_flight > 0 {
                        break;
                    }
                    report(action, Outcome::NoRoom, costs);
                    queue.next();
                    continue;
                }
                costly_in_flight += u64::from(is_costly(action));
                let action = *action;
                flight.push(async move { (action, perform(job, action).await) });
                queue.next();
            }
            if flight.is_empty() {
                break;
            }
            let (action, done) = tokio::select! {
                biased;
                Some(done) = flight.next() => done,
                () = &mut stop, if deadline.is_none() => {
                    deadline = Some(Instant::now() + job.drain);
                    over = true;
                    continue;
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return End::Stopped;
                }
            };
            costly_in_flight -= u64::from(is_costly(action));
            let outcome = match done {
                Done::Outcome(outcome) => {
                    in_a_row = 0;
                    if let (Outcome::Deleted, Action::Delete { cost, .. }) = (&outcome, action) {
                        costs.counted = costs.counted.saturating_sub(*cost);
                    }
                    costs.full |=
                        matches!(&outcome, Outcome::Refused(failure) if reason::is_cost_limit(failure));
                    outcome
                }
                Done::Created { row, total, max } => {
                    in_a_row = 0;
                    costs.counted = costs.counted.saturating_add(row.cost);
                    costs.reported = costs.reported.max(total);
                    costs.max = if max > 0 { max } else { costs.max };
                    Outcome::There { row, adopted: false }
                }
                Done::ConduitGone => return End::ConduitGone,
                Done::Failed(failure) => {
                    in_a_row += 1;
                    over |= in_a_row >= FAILURES_IN_A_ROW || failure.kind() == HelixErrorKind::Credentials;
                    failed.get_or_insert(failure);
                    Outcome::Failed
                }
            };
            report(action, outcome, costs);
        }
        if over {
            break;
        }
    }
    match failed {
        Some(failure) => End::Failed(failure),
        None if deadline.is_some() => End::Stopped,
        None => End::Complete,
    }
}

fn is_costly(action: &Action) -> bool {
    matches!(action, Action::Create { worst_cost: 1.., .. })
}

async fn perform<A: Api>(job: &Job<'_, A>, action: &Action) -> Done {
    match action {
        Action::Delete { id, .. } => match job.api.delete_subscription(&id.to_string()).await {
            Ok(()) | Err(HelixError::NotFound { .. }) => Done::Outcome(Outcome::Deleted),
            Err(failure) => failed_or_refused(failure),
        },
        Action::Create { key, batching, .. } => create(job, key, *batching).await,
    }
}

fn failed_or_refused(failure: HelixError) -> Done {
    match failure.kind() {
        HelixErrorKind::Credentials | HelixErrorKind::Unavailable => Done::Failed(failure),
        HelixErrorKind::Refused => Done::Outcome(Outcome::Refused(failure)),
    }
}

async fn create<A: Api>(job: &Job<'_, A>, key: &SubscriptionKey, batching: bool) -> Done {
    let failure = match job.api.create_subscription(key, &job.place.transport(), batching).await {
        Ok(created) => {
            return Done::Created {
                row: created.row,
                total: created.total_cost,
                max: created.max_total_cost,
            };
        }
        Err(failure) => failure,
    };
    match &failure {
        HelixError::Conflict { id } => adopt(job, key, id.as_deref()).await,
        // The conduit, or something that the condition names? One request tells.
        HelixError::NotFound { .. } => conduit_gone_or(job, failure).await,
        HelixError::Invalid { message } if message.to_ascii_lowercase().contains("conduit") => {
            conduit_gone_or(job, failure).await
        }
        _ => failed_or_refused(failure),
    }
}

async fn conduit_gone_or<A: Api>(job: &Job<'_, A>, refused: HelixError) -> Done {
    let Place::Conduit(id) = job.place else { return failed_or_refused(refused) };
    match job.api.conduits().await {
        Ok(conduits) if conduits.iter().any(|conduit| *conduit.id == **id) => {
            Done::Outcome(Outcome::Refused(refused))
        }
        Ok(_) => Done::ConduitGone,
        Err(failure) => Done::Failed(failure),
    }
}

/// 409: an equal one is there. It is ours if it is in the right place and alive.
async fn adopt<A: Api>(job: &Job<'_, A>, key: &SubscriptionKey, id: Option<&str>) -> Done {
    let filter = match id {
        Some(id) => Filter::Id(id.to_owned()),
        None => match user_of(key) {
            Some(user) => Filter::User(user.to_owned()),
            None => Filter::Type(key.subscription_type.to_string()),
        },
    };
    let rows = match job.api.subscriptions(&filter, |_| {}).await {
        Ok(list) => list.rows,
        Err(failure) if failure.is_outage() => return Done::Failed(failure),
        Err(_) => Vec::new(),
    };
    let ours = |row: &&SubscriptionRow| row.key == *key && job.place.holds(&row.target);
    if let Some(row) = rows.iter().filter(ours).find(|row| row.status.is_live()) {
        return Done::Outcome(Outcome::There { row: row.clone(), adopted: true });
    }
    // Dead ones do not conflict, says Twitch; one that does all the same is in the way.
    for row in rows.iter().filter(ours) {
        if let Err(failure) = job.api.delete_subscription(&row.id.to_string()).await
            && failure.is_outage()
        {
            return Done::Failed(failure);
        }
    }
    Done::Outcome(Outcome::Conflicted(reason::conflict(id)))
}

/// A user in the condition, by whom Twitch can be asked.
fn user_of(key: &SubscriptionKey) -> Option<&str> {
    key.condition.iter().find(|(field, _)| field.ends_with("user_id")).map(|(_, value)| value)
}
