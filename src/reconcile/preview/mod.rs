//! What a run would do, for `eventsubd plan`: reads everything, changes nothing at Twitch and
//! nothing that is remembered.

mod render;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::api::{Api, Failure};
use super::clock::wall;
use super::decide::action::{Action, Blocked, Plan};
use super::decide::conduit::{self, Choice};
use super::decide::grants::Grants;
use super::decide::logins::Logins;
use super::decide::park::{Obstacle, ParkTable, RetryTimes};
use super::decide::place::{Place, Places};
use super::decide::plan::{Input, plan};
use super::decide::reason;
use super::decide::wanted;
use super::memory::{
    Intent, LOGIN_PREFIX, Memory, MemoryError, conduit_name, hold_name, intent_name, parse_urls, recall_one,
    urls_name,
};
use super::run::look::{find_logins, is_unused, look_at_grants, unread_remark};
use super::{Desired, Method};
use crate::helix::{Helix, SubscriptionList};
use crate::model::status::GrantStatus;
use crate::model::subscription::SubscriptionKey;

/// Why there is no preview.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// What is remembered could not be read.
    #[error("what is remembered could not be read")]
    Memory(#[source] MemoryError),
    /// Twitch does not accept the credentials.
    #[error("{0}")]
    Credentials(String),
    /// Twitch cannot be reached, or fails; may work the next time.
    #[error("{0}")]
    Unavailable(String),
    /// A run would end early, for a reason that a person must remove.
    #[error("{0}")]
    Refused(String),
}

impl From<Failure> for PreviewError {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::Credentials { .. } => Self::Credentials(text),
            Failure::Passing { .. } => Self::Unavailable(text),
            _ => Self::Refused(text),
        }
    }
}

/// What happens to the conduit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PreviewConduit {
    /// It stays as it is.
    Keep {
        /// Twitch's id.
        id: String,
        /// Its shards.
        shards: u32,
    },
    /// Its number of shards changes.
    Resize {
        /// Twitch's id.
        id: String,
        /// Shards now.
        from: u32,
        /// Shards then.
        to: u32,
    },
    /// One is made.
    Make {
        /// The one that we had, and that does not exist any more.
        gone: Option<String>,
        /// Its shards.
        shards: u32,
    },
}

/// What a run would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The conduit; `None` when subscriptions call by themselves.
    pub conduit: Option<PreviewConduit>,
    /// What they call then.
    pub callback: Option<String>,
    /// The subscriptions. What the running daemon has parked is not known here, and shows as to be
    /// created.
    #[serde(flatten)]
    pub plan: Plan,
    /// Sum of the costs of the client's subscriptions; `None` when there is no conduit to ask about.
    pub total_cost: Option<u64>,
    /// Its limit.
    pub max_total_cost: Option<u64>,
    /// Things that a person should know.
    pub warnings: Vec<String>,
    /// The logins of the ids that are shown.
    pub logins: BTreeMap<String, String>,
    /// What the users have granted whose grants the subscriptions to create need.
    pub grants: Vec<GrantStatus>,
    /// Subscriptions that the file does not have: the daemon's own.
    pub own: Vec<SubscriptionKey>,
}

impl Preview {
    /// Whether Twitch differs from what is wanted, so far as a run could change it (held deletes
    /// among them).
    pub fn has_changes(&self) -> bool {
        !matches!(self.conduit, None | Some(PreviewConduit::Keep { .. }))
            || !self.plan.actions.is_empty()
            || !self.plan.held.is_empty()
    }
}

/// Observes and plans. `client_id` is the one whose conduit is remembered.
///
/// # Errors
/// When a run would end early: see [`PreviewError`].
pub async fn preview(
    helix: &Helix,
    memory: &dyn Memory,
    client_id: &str,
    desired: &Desired,
) -> Result<Preview, PreviewError> {
    observe(helix, memory, client_id, desired).await
}

pub(super) async fn observe<A: Api>(
    api: &A,
    memory: &dyn Memory,
    client_id: &str,
    desired: &Desired,
) -> Result<Preview, PreviewError> {
    let now = Instant::now().into_std();
    let remembered = recall_one(memory, &conduit_name(client_id)).await.map_err(PreviewError::Memory)?;
    let intent = recall_one(memory, &intent_name(client_id)).await.map_err(PreviewError::Memory)?;
    let held_of = recall_one(memory, &hold_name(client_id)).await.map_err(PreviewError::Memory)?;
    let pairs = memory.load(LOGIN_PREFIX).await.map_err(PreviewError::Memory)?;
    let mut logins = Logins::new(Duration::from_secs(86_400), RetryTimes::default());
    logins.remember(&pairs, now, wall());

    let urls = recall_one(memory, &urls_name(client_id)).await.map_err(PreviewError::Memory)?;
    let urls = parse_urls(urls.as_deref());
    let (conduit, places) = match (desired.method, &desired.webhook) {
        (Method::Webhook, Some(webhook)) => {
            let current = Place::webhook(&webhook.url, webhook.keys.current());
            let conduit = desired.conduit_id.clone().or(remembered).map(Into::into);
            let urls = urls.into_iter().chain([webhook.url.clone()]).collect();
            (None, Places { current, conduit, urls })
        }
        _ => {
            let (conduit, id) = observe_conduit(api, desired, remembered, intent.as_deref()).await?;
            let current = Place::Conduit(id.into());
            (Some(conduit), Places { current, conduit: None, urls })
        }
    };

    find_logins(api, &mut logins, desired, now).await?;
    let wanted = wanted::of(desired, &logins, client_id);

    let nothing = matches!(conduit, Some(PreviewConduit::Make { .. })) && places.urls.is_empty();
    let list = if nothing { None } else { Some(api.subscriptions(&places.filter()).await?) };
    let SubscriptionList { rows, unread, total_cost, max_total_cost } = list.clone().unwrap_or_default();
    let no_park = ParkTable::default();
    let input = Input {
        places: &places,
        overdue: &HashSet::new(),
        unreachable: None,
        wanted: &wanted.keys,
        rows: &rows,
        parked: &no_park,
        ungranted: &HashMap::new(),
        now,
        policy: desired.policy,
        max_delete: desired.max_delete,
        allow_deletes: false,
        held_of: held_of.and_then(|text| text.parse().ok()),
        total_cost,
        max_total_cost,
    };
    let mut planned = plan(&input);
    let creates = || planned.plan.actions.iter().filter(|action| action.is_create()).map(Action::key);
    let mut table = Grants::default();
    let remarks = look_at_grants(api, &mut table, creates(), &logins.by_id(), now).await;
    let ungranted = table.refusals(creates(), &logins.by_id());
    let grants = table.status(creates(), &logins.by_id());
    if !ungranted.is_empty() {
        planned = plan(&Input { ungranted: &ungranted, ..input });
    }
    let mut planned = planned.plan;
    for (key, login) in wanted.unresolved {
        let reason = reason::login_not_found(&login);
        planned.blocked.push(Blocked {
            key,
            obstacle: Obstacle::Login,
            reason,
            retry_in: None,
            delivers: false,
        });
    }
    let mut own: Vec<SubscriptionKey> = wanted.own.into_iter().collect();
    own.sort_unstable();
    let by_id = logins.by_id();
    let shown = shown_ids(&planned, &by_id);
    Ok(Preview {
        conduit,
        callback: desired
            .webhook
            .as_ref()
            .filter(|_| places.current.is_webhook())
            .map(|webhook| webhook.url.to_string()),
        plan: planned,
        total_cost: list.is_some().then_some(total_cost),
        max_total_cost: Some(max_total_cost).filter(|max| *max > 0),
        warnings: logins
            .warnings()
            .into_iter()
            .chain(unread_remark("subscriptions", &unread))
            .chain(remarks)
            .collect(),
        logins: shown,
        grants,
        own,
    })
}

/// What becomes of the conduit, and its id; an empty one when it has to be made.
async fn observe_conduit<A: Api>(
    api: &A,
    desired: &Desired,
    remembered: Option<String>,
    intent: Option<&str>,
) -> Result<(PreviewConduit, String), PreviewError> {
    let existing = api.conduits().await?;
    let intent = intent.and_then(Intent::parse);
    let configured = desired.conduit_id.as_deref();
    let shards = conduit::shard_count(desired.shards);
    let choice = conduit::choose(configured, remembered.as_deref(), intent.as_ref(), &existing, wall());
    let found = match choice {
        Choice::Use(conduit) => Ok(conduit),
        Choice::Recover(conduit) => match is_unused(api, &conduit.id).await {
            Ok(true) => Ok(conduit),
            Ok(false) => Err(remembered),
            Err(stop) => return Err(PreviewError::Unavailable(stop.0)),
        },
        Choice::Make { gone } => Err(gone),
        Choice::Missing { id } => {
            return Err(PreviewError::Refused(format!(
                "the conduit {id} of `transport.conduit.id` does not exist; there are: {}",
                conduit::list(&existing)
            )));
        }
    };
    Ok(match found {
        Ok(found) => {
            let id = found.id.clone();
            let conduit = if found.shard_count == shards {
                PreviewConduit::Keep { id: found.id, shards }
            } else {
                PreviewConduit::Resize { id: found.id, from: found.shard_count, to: shards }
            };
            (conduit, id)
        }
        Err(gone) => (PreviewConduit::Make { gone, shards }, String::new()),
    })
}

fn shown_ids(plan: &Plan, by_id: &std::collections::HashMap<&str, &str>) -> BTreeMap<String, String> {
    let keys =
        plan.actions.iter().chain(&plan.held).map(Action::key).chain(plan.blocked.iter().map(|b| &b.key));
    keys.flat_map(|key| key.condition.iter())
        .filter_map(|(_, id)| Some((id.to_owned(), (*by_id.get(id)?).to_owned())))
        .collect()
}
