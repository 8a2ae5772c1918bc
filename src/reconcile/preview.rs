//! What a run would do, for `eventsubd plan`: reads everything, changes nothing at Twitch and
//! nothing that is remembered.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::action::{Action, Blocked, DeleteReason, Plan};
use super::api::{Api, Failure};
use super::conduit::{self, Choice};
use super::engine::recall_one;
use super::grants::Grants;
use super::logins::{Logins, USERS_PER_CALL};
use super::look::{is_unused, look_at_grants, look_up};
use super::memory::{
    Intent, LOGIN_PREFIX, Memory, MemoryError, conduit_name, hold_name, intent_name, parse_urls, urls_name,
};
use super::park::{Obstacle, ParkTable, RetryTimes};
use super::place::{Place, Places};
use super::plan::{Input, plan};
use super::publish::wall;
use super::run::login_not_found;
use super::{Desired, Method, wanted};
use crate::helix::{Helix, MAX_GRANTS, SubscriptionList};
use crate::model::grants::{self, Scopes};
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
    let SubscriptionList { rows, total_cost, max_total_cost } = list.clone().unwrap_or_default();
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
    look_at_grants(api, &mut table, creates(), &logins.by_id(), now).await;
    let ungranted = table.refusals(creates(), &logins.by_id());
    let grants = table.status(creates(), &logins.by_id());
    if !ungranted.is_empty() {
        planned = plan(&Input { ungranted: &ungranted, ..input });
    }
    let mut planned = planned.plan;
    for (key, login) in wanted.unresolved {
        let reason = login_not_found(&login);
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
        warnings: logins.warnings(),
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

/// Asks for the ids of the logins that are not known.
async fn find_logins<A: Api>(
    api: &A,
    logins: &mut Logins,
    desired: &Desired,
    now: std::time::Instant,
) -> Result<(), Failure> {
    let missing = logins.missing(desired.specs.iter().flat_map(super::SubscriptionSpec::logins), now);
    for asked in missing.chunks(USERS_PER_CALL) {
        let users = look_up(api, asked).await?;
        logins.answered(asked, &users, now, wall());
    }
    Ok(())
}

/// What a user has granted, and what the file's subscriptions need of that user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserNeeds {
    /// Twitch's id.
    pub user_id: Box<str>,
    /// The login, when Twitch knows it.
    pub login: Option<Box<str>>,
    /// The fewest scopes that serve all subscriptions.
    pub scopes: Scopes,
    /// What is granted.
    pub granted: Scopes,
    /// The fewest scopes that are missing for certain.
    pub missing: Scopes,
}

/// Who must have granted what for the file's subscriptions; of these logins only, when given. By login.
///
/// # Errors
/// Twitch does not say.
pub async fn who_must_grant(
    helix: &Helix,
    desired: &Desired,
    only: Option<&[String]>,
) -> Result<Vec<UserNeeds>, PreviewError> {
    let now = Instant::now().into_std();
    let mut logins = Logins::new(Duration::from_secs(86_400), RetryTimes::default());
    find_logins(helix, &mut logins, desired, now).await?;
    let wanted = wanted::resolve(&desired.specs, &logins);
    let mut ids: BTreeMap<&str, Vec<grants::Need<'_>>> = BTreeMap::new();
    for need in wanted.keys.iter().flat_map(grants::needs) {
        ids.entry(need.user_id).or_default().push(need);
    }
    let by_id = logins.by_id();
    let nameless: Vec<&str> = ids.keys().copied().filter(|id| !by_id.contains_key(id)).collect();
    let mut names: HashMap<Box<str>, Box<str>> = HashMap::new();
    for asked in nameless.chunks(USERS_PER_CALL) {
        let users = Api::users_by_id(helix, asked).await?;
        names.extend(users.into_iter().map(|user| (user.id, user.login)));
    }
    let login_of = |id: &str| by_id.get(id).copied().or_else(|| names.get(id).map(|login| &**login));
    if let Some(only) = only {
        ids.retain(|id, _| login_of(id).is_some_and(|login| only.iter().any(|wanted| *wanted == *login)));
    }
    let asked: Vec<&str> = ids.keys().copied().collect();
    let mut granted: HashMap<Box<str>, Scopes> = HashMap::new();
    for part in asked.chunks(MAX_GRANTS) {
        let rows = Api::grants(helix, part).await?;
        granted.extend(rows.into_iter().map(|row| (row.user.id, row.scopes)));
    }
    let mut users: Vec<UserNeeds> = ids
        .into_iter()
        .map(|(id, needs)| {
            let granted = granted.remove(id).unwrap_or_default();
            let all = needs.iter().flat_map(|need| need.groups).map(Vec::as_slice);
            let missing = needs.iter().filter(|need| need.certain).flat_map(|need| need.missing(&granted));
            UserNeeds {
                user_id: id.into(),
                login: login_of(id).map(Into::into),
                scopes: grants::smallest(all, &granted),
                missing: grants::smallest(missing, &granted),
                granted,
            }
        })
        .collect();
    users.sort_unstable_by(|a, b| (&a.login, &a.user_id).cmp(&(&b.login, &b.user_id)));
    Ok(users)
}

fn shown_ids(plan: &Plan, by_id: &std::collections::HashMap<&str, &str>) -> BTreeMap<String, String> {
    let keys =
        plan.actions.iter().chain(&plan.held).map(Action::key).chain(plan.blocked.iter().map(|b| &b.key));
    keys.flat_map(|key| key.condition.iter())
        .filter_map(|(_, id)| Some((id.to_owned(), (*by_id.get(id)?).to_owned())))
        .collect()
}

/// The colours of a sign.
const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";

impl Preview {
    /// Whether Twitch differs from what is wanted, so far as a run could change it (held deletes
    /// among them).
    pub fn has_changes(&self) -> bool {
        !matches!(self.conduit, None | Some(PreviewConduit::Keep { .. }))
            || !self.plan.actions.is_empty()
            || !self.plan.held.is_empty()
    }

    /// Writes it for people, with a last line that says how much of each there is.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn render(&self, out: &mut dyn Write, color: bool) -> io::Result<()> {
        let sign = |code: &str, sign: &str| {
            if color { format!("\x1b[{code}m{sign}\x1b[0m") } else { sign.to_owned() }
        };
        match &self.conduit {
            None | Some(PreviewConduit::Keep { .. }) => {}
            Some(PreviewConduit::Resize { id, from, to }) => {
                writeln!(out, "{} conduit {id}: {from} shards -> {to}", sign(YELLOW, "~"))?;
            }
            Some(PreviewConduit::Make { gone, shards }) => {
                let gone =
                    gone.as_ref().map(|id| format!(", in place of {id}, which is gone")).unwrap_or_default();
                writeln!(out, "{} conduit with {shards} shards{gone}", sign(GREEN, "+"))?;
            }
        }
        for action in &self.plan.actions {
            match action {
                Action::Create { key, worst_cost, moves, .. } => {
                    let cost = if *worst_cost > 0 {
                        format!(" (costs at most {worst_cost})")
                    } else {
                        String::new()
                    };
                    let own = if self.own.contains(key) { " (the daemon's own)" } else { "" };
                    let moves = if *moves {
                        " (in place of an older one, which goes once this one delivers)"
                    } else {
                        ""
                    };
                    writeln!(out, "{} {}{own}{cost}{moves}", sign(GREEN, "+"), self.name(key))?;
                }
                Action::Delete { key, reason, .. } => {
                    writeln!(out, "{} {} ({})", sign(RED, "-"), self.name(key), why(reason))?;
                }
            }
        }
        for action in &self.plan.held {
            writeln!(
                out,
                "{} {} (not in the file; waits for `eventsubd apply --allow-deletes`)",
                sign(YELLOW, "!"),
                self.name(action.key())
            )?;
        }
        for blocked in &self.plan.blocked {
            writeln!(out, "{} {}: {}", sign(YELLOW, "!"), self.name(&blocked.key), blocked.reason)?;
        }
        for user in &self.grants {
            let name = user.login.as_deref().unwrap_or(&user.user_id);
            if !user.missing.is_empty() {
                writeln!(
                    out,
                    "{} {name} must allow {}: `eventsubd authorize --user {name}`",
                    sign(YELLOW, "!"),
                    grants::list(&user.missing)
                )?;
            } else {
                writeln!(out, "  {name} has allowed {}", grants::list(&user.granted))?;
            }
        }
        for warning in &self.warnings {
            writeln!(out, "{} {warning}", sign(YELLOW, "!"))?;
        }
        if self.plan.keep > 0 {
            writeln!(out, "  keep {}", self.plan.keep)?;
        }
        if let (Some(total), Some(max)) = (self.total_cost, self.max_total_cost) {
            writeln!(out, "  cost {total} of {max}, and at most {} more", self.added_cost())?;
        }
        writeln!(out, "{}", self.summary())
    }

    /// `Plan: 3 to create, 1 to delete, 120 to keep, 2 parked.`
    pub fn summary(&self) -> String {
        let creates = self.plan.actions.iter().filter(|action| action.is_create()).count();
        let mut text = format!(
            "Plan: {creates} to create, {} to delete, {} to keep, {} parked",
            self.plan.actions.len() - creates,
            self.plan.keep,
            self.plan.blocked.len()
        );
        if !self.plan.held.is_empty() {
            text.push_str(&format!(", {} deletes held", self.plan.held.len()));
        }
        text.push('.');
        text
    }

    fn added_cost(&self) -> u64 {
        let costs = self.plan.actions.iter().map(|action| match action {
            Action::Create { worst_cost, .. } => *worst_cost,
            Action::Delete { .. } => 0,
        });
        costs.sum()
    }

    /// `channel.follow v2 broadcaster ninja (19571641) moderator ninja (19571641)`
    fn name(&self, key: &SubscriptionKey) -> String {
        let mut text = format!("{} v{}", key.subscription_type, key.version);
        for (field, value) in key.condition.iter() {
            text.push(' ');
            text.push_str(field.strip_suffix("_user_id").unwrap_or(field));
            text.push(' ');
            match self.logins.get(value).filter(|_| field.ends_with("user_id")) {
                Some(login) => text.push_str(&format!("{login} ({value})")),
                None => text.push_str(value),
            }
        }
        text
    }
}

fn why(reason: &DeleteReason) -> String {
    match reason {
        DeleteReason::Dead(status) => format!("dead: {status}"),
        DeleteReason::Duplicate => "an equal one stays".to_owned(),
        DeleteReason::Unwanted => "not in the file".to_owned(),
        DeleteReason::Moved => "moved".to_owned(),
    }
}
