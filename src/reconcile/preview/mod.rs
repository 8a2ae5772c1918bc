//! The preview of a run, for `eventsubd plan`: reads everything, changes nothing at Twitch and nothing that is
//! remembered.

mod limits;
mod render;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use self::limits::apply_cost_limit;
use super::api::Api;
use super::decide::action::{Action, Blocked, Plan};
use super::decide::conduit;
use super::decide::park::Obstacle;
use super::decide::reason;
use super::error::RunError;
use super::memory::{Memory, MemoryHandle};
use super::remembered::{Found, RememberedPlaces};
use super::run::observe::observe_wanted;
use super::run::tables::{Observed, Tables};
use super::{Desired, Method, ReconcileOptions};
use crate::helix::{Helix, SubscriptionList};
use crate::model::mode::ShardCount;
use crate::model::status::GrantStatus;
use crate::model::subscription::SubscriptionKey;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PreviewConduit {
    Keep {
        id: String,
        shards: u32,
    },
    Resize {
        id: String,
        from: u32,
        to: u32,
    },
    Make {
        /// The one that we had, and that does not exist any more.
        gone: Option<String>,
        shards: u32,
    },
}

impl PreviewConduit {
    fn of(found: &Found, wanted: ShardCount) -> Self {
        let shards = match (wanted, found) {
            // The daemon alone knows how many hosts there are.
            (ShardCount::Auto, Found::Ours(conduit) | Found::Recovered(conduit)) => {
                wanted.for_hosts(conduit.shard_count)
            }
            (wanted, _) => wanted.for_hosts(1),
        };
        match found {
            Found::Ours(conduit) | Found::Recovered(conduit) if conduit.shard_count == shards => {
                Self::Keep { id: conduit.id.clone(), shards }
            }
            Found::Ours(conduit) | Found::Recovered(conduit) => {
                Self::Resize { id: conduit.id.clone(), from: conduit.shard_count, to: shards }
            }
            Found::Missing { gone } => Self::Make { gone: gone.clone(), shards },
        }
    }

    /// Twitch's id; empty for a conduit that is still to be made.
    fn id(&self) -> &str {
        match self {
            Self::Keep { id, .. } | Self::Resize { id, .. } => id,
            Self::Make { .. } => "",
        }
    }
}

/// The outcome that a run would have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The conduit; `None` when subscriptions call by themselves.
    pub conduit: Option<PreviewConduit>,
    /// The callback of the subscriptions, if they call by themselves.
    pub callback: Option<String>,
    /// The subscriptions. What the running daemon has parked is not known here, and shows as to be
    /// created.
    #[serde(flatten)]
    pub plan: Plan,
    /// Sum of the costs of the client's subscriptions; `None` when there is no conduit to ask about.
    pub total_cost: Option<u64>,
    pub max_total_cost: Option<u64>,
    /// Why a run would end before it changes anything.
    pub stops: Option<String>,
    /// Things that a person should know.
    pub warnings: Vec<String>,
    /// The logins of the ids that are shown.
    pub logins: BTreeMap<String, String>,
    /// The known grants of the users that the missing subscriptions need.
    pub grants: Vec<GrantStatus>,
    /// Subscriptions that the file does not have: the daemon's own.
    pub own: Vec<SubscriptionKey>,
    /// Requests that a catch-up makes after a gap, in words.
    pub catch_up: Vec<String>,
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

/// Reads both sides and plans, as a run does. `client_id` is the one whose conduit is remembered.
///
/// # Errors
/// A run would end early.
pub async fn preview(
    helix: &Helix,
    memory: Arc<dyn Memory>,
    client_id: &str,
    desired: &Desired,
) -> Result<Preview, PreviewError> {
    let mut done = Vec::new();
    match preview_with(helix, memory, client_id, desired, &mut done).await {
        Ok(preview) => Ok(preview),
        Err(error) => Err(PreviewError { error, done }),
    }
}

/// Why there is no preview, and what worked before.
#[derive(Debug)]
pub struct PreviewError {
    pub error: RunError,
    /// One line for each step.
    pub done: Vec<String>,
}

pub(super) async fn preview_with<A: Api>(
    api: &A,
    memory: Arc<dyn Memory>,
    client_id: &str,
    desired: &Desired,
    done: &mut Vec<String>,
) -> Result<Preview, RunError> {
    let unread = |source| RunError::Memory { what: "what is remembered could not be read", source };
    let memory = MemoryHandle::read_only(memory);
    let mut remembered = RememberedPlaces::new(memory.clone(), client_id.to_owned());
    remembered.recall().await.map_err(unread)?;
    let mut tables = Tables::new(memory, &ReconcileOptions::new(client_id));
    tables.recall().await.map_err(unread)?;

    let mut stops = None;
    let (conduit, places) = match desired.method {
        Method::Webhook => (None, remembered.on_callback(desired)?),
        Method::Conduit => {
            let (found, existing) = remembered.find_conduit(api, desired).await?;
            done.push(format!("conduits read: {} there", existing.len()));
            if matches!(found, Found::Missing { .. }) && existing.len() >= conduit::MAX_CONDUITS {
                stops = Some(format!(
                    "a conduit has to be made, and Twitch allows {}: {}; adopt one with `transport.conduit.id`, or \
                     delete one",
                    conduit::MAX_CONDUITS,
                    conduit::list(&existing)
                ));
            }
            let conduit = PreviewConduit::of(&found, desired.shards);
            let places = remembered.on_conduit(conduit.id());
            (Some(conduit), places)
        }
    };
    let wanted = observe_wanted(api, &mut tables, desired).await?;
    done.push(match wanted.unresolved.len() {
        0 => "logins looked up".to_owned(),
        unknown => format!("logins looked up; {unknown} subscriptions name one that Twitch does not know"),
    });
    let list = match places.is_nowhere() {
        true => {
            let costs = api.costs().await;
            let (total_cost, max_total_cost) =
                costs.map_err(|failure| RunError::api("the costs could not be read", failure))?;
            SubscriptionList { total_cost, max_total_cost, ..SubscriptionList::default() }
        }
        false => {
            let list = api.subscriptions(&places.filter(), |_| {}).await;
            list.map_err(|failure| RunError::api("the subscriptions could not be listed", failure))?
        }
    };
    done.push(format!("subscriptions read: {}", list.rows.len()));
    let (no_challenges, reachable) = (HashSet::new(), std::future::ready(None));
    let observed = Observed { wanted: &wanted, list: &list, is_fresh: true };
    let decided = tables.decide(api, desired, &places, observed, &no_challenges, reachable).await;
    let grants = tables.grants_of_absent(&wanted, &decided.planned);
    let (mut plan, mut remarks) = (decided.planned.plan, decided.remarks);
    tables.exact_costs(api, &mut plan, &mut remarks).await;
    apply_cost_limit(&mut plan, list.total_cost, list.max_total_cost);
    for (key, login) in &wanted.unresolved {
        plan.blocked.push(Blocked {
            key: key.clone(),
            obstacle: Obstacle::Login,
            reason: reason::login_not_found(login),
            retry_in: None,
            delivers: false,
        });
    }
    let mut own: Vec<SubscriptionKey> = wanted.own.iter().cloned().collect();
    own.sort_unstable();
    let logins = shown_ids(&plan, &tables.logins_by_id());
    Ok(Preview {
        conduit,
        callback: desired
            .webhook
            .as_ref()
            .filter(|_| places.current.is_webhook())
            .map(|webhook| webhook.url.to_string()),
        plan,
        total_cost: Some(list.total_cost),
        max_total_cost: Some(list.max_total_cost).filter(|max| *max > 0),
        stops,
        warnings: tables.warnings().into_iter().chain(remarks).collect(),
        logins,
        grants,
        own,
        catch_up: Vec::new(),
    })
}

fn shown_ids(plan: &Plan, by_id: &HashMap<&str, &str>) -> BTreeMap<String, String> {
    let keys =
        plan.actions.iter().chain(&plan.held).map(Action::key).chain(plan.blocked.iter().map(|b| &b.key));
    keys.flat_map(|key| key.condition.iter())
        .filter_map(|(_, id)| Some((id.to_owned(), (*by_id.get(id)?).to_owned())))
        .collect()
}
