//! Owner of what is known between runs: logins, parked subscriptions, grants, open challenges and the hold on deletes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::out::{Change, Out};
use crate::helix::{HelixError, MAX_GRANTS, SubscriptionList, User};
use crate::model::catalog;
use crate::model::hint;
use crate::model::invocation::Invocation;
use crate::model::status::GrantStatus;
use crate::model::subscription::{
    SubscriptionId, SubscriptionKey, SubscriptionRow, SubscriptionSpec, SubscriptionStatus,
};
use crate::model::text::chain;
use crate::reconcile::api::Api;
use crate::reconcile::clock::{timestamp_of, wall};
use crate::reconcile::decide::action::{Action, Plan};
use crate::reconcile::decide::compared::{Absent, Compared, fingerprint};
use crate::reconcile::decide::grants::Grants;
use crate::reconcile::decide::logins::{Changes, Logins, USERS_PER_CALL};
use crate::reconcile::decide::park::{Obstacle, ParkTable};
use crate::reconcile::decide::place::{Places, Side};
use crate::reconcile::decide::plan::{Hold, Input, Planned, plan};
use crate::reconcile::decide::reason;
use crate::reconcile::decide::wanted::{self, Wanted};
use crate::reconcile::error::RunError;
use crate::reconcile::memory::{LOGIN_PREFIX, MemoryError, MemoryHandle, compared_name, hold_name};
use crate::reconcile::{Desired, ReconcileOptions};

/// Lookup calls in flight at most.
const LOOKUPS: usize = 8;

/// Users whose authorization is looked up for nothing but the costs of a preview: 50 requests of the 800 points that
/// Twitch gives a client each minute.
const COST_USERS: usize = 500;

/// Unknown logins that the log names; more are counted.
const NAMED: usize = 10;

/// Parked subscriptions that a run logs one by one at WARN.
const LOGGED: usize = 10;

/// The wanted subscriptions, and Twitch's list.
#[derive(Clone, Copy, Debug)]
pub(in crate::reconcile) struct Observed<'a> {
    pub(in crate::reconcile) wanted: &'a Wanted,
    pub(in crate::reconcile) list: &'a SubscriptionList,
    /// Whether the list has just been read; see [`Input::is_fresh`].
    pub(in crate::reconcile) is_fresh: bool,
}

/// A list after which Twitch matched the file.
#[derive(Debug)]
pub(in crate::reconcile) struct Matched {
    pub(in crate::reconcile) rows: usize,
    /// When it was asked for.
    pub(in crate::reconcile) listed: Option<std::time::Instant>,
    pub(in crate::reconcile) absent: Option<Absent>,
}

/// The resolved subscriptions of a configuration, and what they were resolved with.
#[derive(Debug)]
struct Resolved {
    generation: u64,
    logins: u64,
    wanted: Arc<Wanted>,
}

/// A plan with the facts that it was made from.
#[derive(Debug)]
pub(in crate::reconcile) struct Decided {
    pub(in crate::reconcile) planned: Planned,
    /// Why the callback cannot be reached; nothing is created then.
    pub(in crate::reconcile) unreachable: Option<String>,
    /// Remarks for people about Twitch's answers.
    pub(in crate::reconcile) remarks: Vec<String>,
}

/// The reconciler's tables.
#[derive(Debug)]
pub(in crate::reconcile) struct Tables {
    client_id: String,
    memory: MemoryHandle,
    logins: Logins,
    parked: ParkTable,
    grants: Grants,
    /// When each subscription, by id, was first seen waiting for its challenge.
    unverified: HashMap<SubscriptionId, Instant>,
    /// Time that Twitch may take with a challenge.
    challenge: Duration,
    /// `None` while no deletes are held.
    hold: Option<Hold>,
    /// The generation for which a person has allowed held deletes.
    allowed: Option<u64>,
    /// How the log tells people to run commands.
    invocation: Invocation,
    /// Resolving a long file takes a second: it is done once, until the file or a login's id changes.
    resolved: Option<Resolved>,
    is_recalled: bool,
    /// Whether other hosts share the memory.
    is_shared: bool,
}

impl Tables {
    pub(in crate::reconcile) fn new(memory: MemoryHandle, options: &ReconcileOptions) -> Self {
        Self {
            client_id: options.client_id.clone(),
            memory,
            logins: Logins::new(options.login_refresh, options.retry),
            parked: ParkTable::new(options.retry),
            grants: Grants::default(),
            unverified: HashMap::new(),
            challenge: options.challenge,
            hold: None,
            allowed: None,
            invocation: options.invocation.clone(),
            resolved: None,
            is_recalled: false,
            is_shared: options.leadership.is_some(),
        }
    }

    /// Reads what earlier runs remembered, once.
    pub(in crate::reconcile) async fn recall(&mut self) -> Result<(), MemoryError> {
        if self.is_recalled {
            return Ok(());
        }
        let logins = self.memory.load(LOGIN_PREFIX).await?;
        let hold = self.memory.load_one(&hold_name(&self.client_id)).await?;
        self.hold = hold.and_then(|text| Hold::parse(&text));
        self.logins.remember(&logins, now(), wall());
        self.is_recalled = true;
        Ok(())
    }

    /// Makes everything that waits due: a person has asked, or has edited the file.
    pub(in crate::reconcile) fn release(&mut self) {
        let now = now();
        self.parked.release(now);
        self.logins.release(now);
        self.grants.forget_all();
    }

    /// Looks up these users' grants again, and makes due what waits for them; `None` stands for all users.
    pub(in crate::reconcile) fn release_users(&mut self, users: Option<&BTreeSet<Box<str>>>) {
        match users {
            None => self.grants.forget_all(),
            Some(users) => users.iter().for_each(|user| self.grants.forget(user)),
        }
        self.parked.release_users(users, now());
    }

    /// Allows held deletes until a run of this generation is complete.
    pub(in crate::reconcile) fn allow_deletes(&mut self, generation: u64) {
        self.allowed = Some(generation);
    }

    /// Withdraws [`Self::allow_deletes`] once the deletes are done.
    pub(in crate::reconcile) fn withdraw_permission(&mut self) {
        self.allowed = None;
    }

    /// When something that waits is due.
    pub(in crate::reconcile) fn next_due(&self) -> Option<Instant> {
        [self.parked.next_due(), self.logins.next_due()].into_iter().flatten().min().map(Instant::from_std)
    }

    /// Whether a subscription waits for Twitch's challenge.
    pub(in crate::reconcile) fn has_unverified(&self) -> bool {
        !self.unverified.is_empty()
    }

    /// Warnings about logins, for the status.
    pub(in crate::reconcile) fn warnings(&self) -> Vec<String> {
        self.logins.warnings()
    }

    /// The logins by id.
    pub(in crate::reconcile) fn logins_by_id(&self) -> HashMap<&str, &str> {
        self.logins.by_id()
    }

    /// Forgets failed lookups of logins that the file no longer has.
    pub(in crate::reconcile) fn retain_logins(&mut self, desired: &Desired) {
        self.logins.retain(|| wanted::logins(&desired.specs));
    }

    /// The file's subscriptions with the ids that are known.
    pub(in crate::reconcile) fn wanted(&mut self, desired: &Desired) -> Arc<Wanted> {
        let (generation, logins) = (desired.generation, self.logins.version());
        if let Some(resolved) = &self.resolved
            && (resolved.generation, resolved.logins) == (generation, logins)
        {
            return Arc::clone(&resolved.wanted);
        }
        let mut wanted = wanted::of(desired, &self.logins, &self.client_id);
        if let Some(before) = &self.resolved {
            wanted.share_keys(&before.wanted);
        }
        let wanted = Arc::new(wanted);
        self.resolved = Some(Resolved { generation, logins, wanted: Arc::clone(&wanted) });
        wanted
    }

    /// The same without the daemon's own subscriptions.
    pub(in crate::reconcile) fn wanted_by_file(&self, desired: &Desired) -> Wanted {
        wanted::resolve(&desired.specs, &self.logins)
    }

    /// Shows these subscriptions, with those of unknown logins as parked.
    pub(in crate::reconcile) fn show(&self, wanted: &Arc<Wanted>, out: &mut Out) {
        out.show_wanted(wanted);
        for (key, login) in &wanted.unresolved {
            if let Some(retry_at) = self.logins.not_found(login) {
                let reason = reason::login_not_found(login).into();
                out.set(key, Change::Parked { obstacle: Obstacle::Login, reason, retry_at });
            }
        }
        out.tick();
    }

    /// Asks Twitch for the ids of logins that are not known yet.
    pub(in crate::reconcile) async fn find_logins<A: Api>(
        &mut self,
        api: &A,
        desired: &Desired,
    ) -> Result<(), RunError> {
        if self.wanted(desired).unresolved.is_empty() {
            return Ok(());
        }
        let logins = desired.specs.iter().flat_map(SubscriptionSpec::logins);
        let missing = self.logins.missing(logins, now());
        if missing.is_empty() {
            return Ok(());
        }
        tracing::debug!(logins = missing.len(), "looking up logins");
        let calls: Vec<_> = missing.chunks(USERS_PER_CALL).map(<[_]>::to_vec).collect();
        let mut answers = futures_util::stream::iter(calls)
            .map(|asked: Vec<Arc<str>>| async move {
                let users = look_up(api, &asked).await;
                (asked, users)
            })
            .buffer_unordered(LOOKUPS);
        let mut unknown: Vec<Arc<str>> = Vec::new();
        while let Some((asked, users)) = answers.next().await {
            let users = users.map_err(|failure| RunError::api("logins could not be looked up", failure))?;
            let changes = self.logins.answered(&asked, &users, now(), wall());
            unknown.extend(asked.into_iter().filter(|login| self.logins.id_of(login).is_none()));
            self.save_logins(changes).await;
        }
        if !unknown.is_empty() {
            let named: Vec<&str> = unknown.iter().take(NAMED).map(|login| &**login).collect();
            tracing::warn!(
                count = unknown.len(),
                logins = named.join(", "),
                "Twitch does not know some logins; their subscriptions are parked"
            );
        }
        Ok(())
    }

    /// Looks at some ids that were not confirmed for long, one call's worth. Never changes an id. Returns whether
    /// warnings may have changed.
    pub(in crate::reconcile) async fn refresh_logins<A: Api>(
        &mut self,
        api: &A,
        specs: &[SubscriptionSpec],
    ) -> Result<bool, HelixError> {
        if self.logins.stale_at().is_none_or(|at| at > now()) {
            return Ok(false);
        }
        let (asked, forgotten) = self.logins.stale(&wanted::logins(specs), now());
        self.save_logins(forgotten).await;
        if asked.is_empty() {
            return Ok(false);
        }
        let ids: Vec<&str> = asked.iter().map(|(_, id)| &**id).collect();
        let users = api.users_by_id(&ids).await?;
        let (changes, news) = self.logins.refreshed(&asked, &users, now(), wall());
        for text in news {
            tracing::warn!("{text}");
        }
        self.save_logins(changes).await;
        Ok(true)
    }

    /// From when on logins are to be looked at again.
    pub(in crate::reconcile) fn stale_at(&self) -> Option<Instant> {
        self.logins.stale_at().map(Instant::from_std)
    }

    /// A login that is not saved is looked up again after a restart, so a failure does no harm.
    async fn save_logins(&self, changes: Changes) {
        if let Err(error) = self.memory.save(changes).await {
            tracing::warn!(error = chain(&error), "the ids of logins could not be remembered");
        }
    }

    /// Subscriptions, by id, whose challenge is overdue.
    pub(in crate::reconcile) fn track_challenges(
        &mut self,
        places: &Places,
        rows: &[SubscriptionRow],
    ) -> HashSet<SubscriptionId> {
        let now = Instant::now();
        let is_waiting = |row: &&SubscriptionRow| {
            row.status == SubscriptionStatus::WebhookCallbackVerificationPending
                && places.side(&row.target) != Side::Foreign
        };
        let known = std::mem::take(&mut self.unverified);
        let since = |row: &SubscriptionRow| known.get(&row.id).copied().unwrap_or(now);
        self.unverified = rows.iter().filter(is_waiting).map(|row| (row.id.clone(), since(row))).collect();
        let overdue = self.unverified.iter().filter(|(_, since)| now >= **since + self.challenge);
        overdue.map(|(id, _)| id.clone()).collect()
    }

    /// Plans, asks who has granted what the plan would create, and plans again without what
    /// would be refused. `unreachable` is awaited before anything is created on a callback: why that cannot be reached.
    pub(in crate::reconcile) async fn decide<A: Api>(
        &mut self,
        api: &A,
        desired: &Desired,
        places: &Places,
        observed: Observed<'_>,
        overdue: &HashSet<SubscriptionId>,
        unreachable: impl Future<Output = Option<String>>,
    ) -> Decided {
        let Observed { wanted, list, is_fresh } = observed;
        let now = now();
        let is_listed =
            |key: &SubscriptionKey| wanted.keys.binary_search(key).is_ok() && !wanted.own.contains(key);
        let own = hint::subscriptions(&self.client_id).into_iter().filter(|key| !is_listed(key)).collect();
        self.parked.retain(|key| wanted.keys.binary_search(key).is_ok(), now);
        let input = Input {
            places,
            wanted: &wanted.keys,
            rows: &list.rows,
            is_fresh,
            parked: &self.parked,
            overdue,
            unreachable: None,
            ungranted: &HashMap::new(),
            now,
            policy: desired.policy,
            max_delete: desired.max_delete,
            allow_deletes: self.allowed == Some(desired.generation),
            own: &own,
            hold: self.hold,
            total_cost: list.total_cost,
            max_total_cost: list.max_total_cost,
        };
        let planned = plan(&input);
        let creates: Vec<&SubscriptionKey> = creates(&planned).collect();
        let mut remarks: Vec<String> =
            reason::unread_rows("subscriptions", &list.unread).into_iter().collect();
        if creates.is_empty() || planned.needs_fresh {
            return Decided { planned, unreachable: None, remarks };
        }
        let by_id = self.logins.by_id();
        look_up_grants(api, &mut self.grants, &creates, &by_id, now, &mut remarks).await;
        let ungranted = self.grants.refusals(creates.iter().copied(), &by_id);
        let unreachable = if places.current.is_webhook() { unreachable.await } else { None };
        if ungranted.is_empty() && unreachable.is_none() {
            return Decided { planned, unreachable, remarks };
        }
        let planned = plan(&Input { ungranted: &ungranted, unreachable: unreachable.as_deref(), ..input });
        Decided { planned, unreachable, remarks }
    }

    /// Corrects the costs of what a plan creates by what Twitch says of the users. Asks about [`COST_USERS`] at most; the
    /// costs of the others stay at their worst.
    pub(in crate::reconcile) async fn exact_costs<A: Api>(
        &mut self,
        api: &A,
        plan: &mut Plan,
        remarks: &mut Vec<String>,
    ) {
        let now = now();
        let users: BTreeSet<Box<str>> =
            plan.actions.iter().flat_map(users_of_cost).flatten().map(Into::into).collect();
        let mut unknown = self.grants.unasked(users.into_iter(), now);
        unknown.truncate(COST_USERS);
        ask_for_grants(api, &mut self.grants, &unknown, now, remarks).await;
        for action in &mut plan.actions {
            let known = users_of_cost(action).and_then(|users| self.grants.has_authorized(users));
            if let (Action::Create { worst_cost, exact, .. }, Some(authorized)) = (action, known) {
                *worst_cost = u64::from(!authorized);
                *exact = true;
            }
        }
    }

    /// The grants that are known of the users whose subscriptions do not exist yet.
    pub(in crate::reconcile) fn grants_of_absent(
        &self,
        wanted: &Wanted,
        planned: &Planned,
    ) -> Vec<GrantStatus> {
        let absent = wanted.keys.iter().zip(&planned.live).filter(|(_, live)| live.is_none());
        self.grants.status(absent.map(|(key, _)| key), &self.logins.by_id())
    }

    /// Takes over what a plan found, and shows it.
    pub(in crate::reconcile) fn apply_plan(&mut self, wanted: &Wanted, planned: &Planned, out: &mut Out) {
        let now = now();
        for (key, live) in wanted.keys.iter().zip(&planned.live) {
            match live {
                Some(live) if live.enabled => {
                    // A subscription that delivers from an older place may be parked for its new one.
                    if live.current {
                        self.parked.record_alive(key, now);
                    }
                    out.set(key, Change::Enabled { id: live.id.clone(), cost: live.cost });
                }
                Some(live) => out.set(key, Change::Pending(Some(live.id.clone()))),
                None => out.set(key, Change::Pending(None)),
            }
        }
        for (nth, (key, obstacle, reason)) in planned.park.iter().enumerate() {
            log_parked(nth, key, &self.invocation.complete(reason));
            self.parked.park(key, *obstacle, reason, now);
        }
        for (key, reason) in &planned.at_once {
            self.parked.record_trial(key, reason, now);
        }
        for blocked in &planned.plan.blocked {
            if blocked.obstacle == Obstacle::Cost && blocked.retry_in.is_none() {
                self.parked.forget(&blocked.key);
            }
            if blocked.delivers {
                continue;
            }
            let change = Change::Parked {
                obstacle: blocked.obstacle,
                reason: blocked.reason.as_str().into(),
                retry_at: blocked.retry_in.map(|pause| now + pause),
            };
            out.set(&blocked.key, change);
        }
    }

    /// Remembers whether deletes are held. A hold outlives a restart: what is created meanwhile must not end it.
    pub(in crate::reconcile) async fn remember_hold(&mut self, planned: &Planned) -> Result<(), RunError> {
        if planned.hold != self.hold {
            let change = (hold_name(&self.client_id), planned.hold.map(|hold| hold.to_string()));
            self.memory.save(vec![change]).await.map_err(|source| RunError::Memory {
                what: "the hold on deletes cannot be remembered",
                source,
            })?;
            self.hold = planned.hold;
        }
        Ok(())
    }

    /// Records that a subscription was created or adopted.
    pub(in crate::reconcile) fn record_created(&mut self, row: &SubscriptionRow, out: &mut Out) {
        let key = &row.key;
        self.parked.record_alive(key, now());
        if row.status == SubscriptionStatus::Enabled {
            out.set(key, Change::Enabled { id: row.id.clone(), cost: row.cost });
        } else {
            self.unverified.insert(row.id.clone(), Instant::now());
            out.begun(key, row.id.clone());
        }
    }

    /// Whether an earlier process has left Twitch as the file is, in these places.
    pub(in crate::reconcile) async fn recall_compared(
        &self,
        desired: &Desired,
        wanted: &Wanted,
        places: &Places,
    ) -> Option<Compared> {
        let text = self.memory.load_one(&compared_name(&self.client_id)).await.ok()??;
        let compared = Compared::parse(&text)?;
        let of = fingerprint(wanted, places, desired.policy);
        let holds =
            if self.is_shared { compared.holds_of_host(of, wall()) } else { compared.holds(of, wall()) };
        holds.then_some(compared)
    }

    /// Time until the next whole list is due, by the last one of any host; `None` if it is due, or without other hosts.
    pub(in crate::reconcile) fn next_list(
        &self,
        compared: &Compared,
        interval: Duration,
    ) -> Option<Duration> {
        compared.next_list(interval, wall()).filter(|_| self.is_shared)
    }

    /// Remembers that Twitch matches the file. Without it the next start reads the list first.
    pub(in crate::reconcile) async fn remember_compared(
        &self,
        desired: &Desired,
        wanted: &Wanted,
        places: &Places,
        matched: Matched,
    ) {
        let of = fingerprint(wanted, places, desired.policy);
        let Matched { rows, listed, absent } = matched;
        let compared =
            Compared { at: wall(), of, rows: rows as u64, listed: listed.map(timestamp_of), absent };
        let change = (compared_name(&self.client_id), Some(compared.to_string()));
        if let Err(error) = self.memory.save(vec![change]).await {
            tracing::warn!(error = chain(&error), "the last comparison could not be remembered");
        }
    }

    /// Why Twitch refuses to create a subscription; `None` if the refusal is not about this subscription.
    pub(in crate::reconcile) fn reason_of(
        &self,
        key: &SubscriptionKey,
        failure: &HelixError,
    ) -> Option<(Obstacle, String)> {
        reason::of_failure(key, failure, |id| self.logins.login_of(id))
    }

    /// Parks a subscription that Twitch refused; `nth` counts those of this run.
    pub(in crate::reconcile) fn park(
        &mut self,
        nth: usize,
        key: &SubscriptionKey,
        obstacle: Obstacle,
        reason: &str,
        out: &mut Out,
    ) {
        log_parked(nth, key, &self.invocation.complete(reason));
        let retry_at = Some(self.parked.park(key, obstacle, reason, now()));
        if !out.delivers(key) {
            out.set(key, Change::Parked { obstacle, reason: reason.into(), retry_at });
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// The keys that a plan creates.
fn creates(planned: &Planned) -> impl Iterator<Item = &SubscriptionKey> {
    planned.plan.actions.iter().filter(|action| action.is_create()).map(Action::key)
}

fn log_parked(nth: usize, key: &SubscriptionKey, reason: &str) {
    if nth < LOGGED {
        tracing::warn!(subscription = %key, reason, "subscription is parked");
    } else {
        tracing::debug!(subscription = %key, reason, "subscription is parked");
    }
}

/// The users of these logins. Twitch refuses a whole call for one impossible login: the call is halved until that
/// login is alone, and counts as not found.
async fn look_up<A: Api>(api: &A, logins: &[Arc<str>]) -> Result<Vec<User>, HelixError> {
    let mut users = Vec::new();
    let mut calls = vec![logins];
    while let Some(logins) = calls.pop() {
        let names: Vec<&str> = logins.iter().map(|login| &**login).collect();
        match api.users_by_login(&names).await {
            Ok(found) => users.extend(found),
            Err(HelixError::Invalid { .. }) if logins.len() == 1 => {}
            Err(HelixError::Invalid { .. }) => {
                let (left, right) = logins.split_at(logins.len() / 2);
                calls.extend([left, right]);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(users)
}

/// Asks what users have granted whose grants these subscriptions need. Users whose grants Twitch does not say stay
/// unknown, with a remark; creating their subscriptions tells.
async fn look_up_grants<A: Api>(
    api: &A,
    grants: &mut Grants,
    keys: &[&SubscriptionKey],
    by_id: &HashMap<&str, &str>,
    now: std::time::Instant,
    remarks: &mut Vec<String>,
) {
    let unknown = grants.unknown(keys.iter().copied(), now);
    ask_for_grants(api, grants, &unknown, now, remarks).await;
    let nameless = grants.nameless(unknown.iter().map(|id| &**id), by_id);
    for asked in nameless.chunks(USERS_PER_CALL) {
        let ids: Vec<&str> = asked.iter().map(|id| &**id).collect();
        if let Ok(users) = api.users_by_id(&ids).await {
            grants.name(users.into_iter().map(|user| (user.id, user.login)));
        }
    }
}

/// The users whose authorization decides on the cost of what is created; `None` if the cost is certain.
fn users_of_cost(action: &Action) -> Option<impl Iterator<Item = &str>> {
    let Action::Create { key, exact: false, .. } = action else { return None };
    let row = catalog::lookup(&key.subscription_type, &key.version)?;
    Some(row.user_fields().filter_map(|field| key.condition.get(field)))
}

/// Asks what these users have granted. What Twitch does not say stays unknown, with a remark.
async fn ask_for_grants<A: Api>(
    api: &A,
    grants: &mut Grants,
    unknown: &[Box<str>],
    now: std::time::Instant,
    remarks: &mut Vec<String>,
) {
    if unknown.is_empty() {
        return;
    }
    tracing::debug!(users = unknown.len(), "looking at what users have granted");
    let calls: Vec<Vec<Box<str>>> = unknown.chunks(MAX_GRANTS).map(<[_]>::to_vec).collect();
    let mut answers = futures_util::stream::iter(calls)
        .map(|asked| async move {
            let ids: Vec<&str> = asked.iter().map(|id| &**id).collect();
            let rows = api.grants(&ids).await;
            (asked, rows)
        })
        .buffer_unordered(LOOKUPS);
    let (mut failure, mut unread) = (None, Vec::new());
    while let Some((asked, rows)) = answers.next().await {
        match rows {
            Ok(rows) => {
                grants.answered(&asked, rows.rows, rows.unread.is_empty(), now);
                unread.extend(rows.unread);
            }
            Err(failed) => failure = Some(failed),
        }
    }
    if let Some(failure) = failure {
        let failure = chain(&failure);
        tracing::info!(
            error = failure,
            "Twitch does not say what some users have granted; creating without knowing"
        );
        remarks.push(format!("Twitch does not say what some users have granted: {failure}"));
    }
    remarks.extend(reason::unread_rows("permissions", &unread));
}
