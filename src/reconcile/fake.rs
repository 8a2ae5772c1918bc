//! A Twitch in memory, with the manners of the real one that matter here, and a pool of sockets.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::api::{Api, BindAnswers, Refused};
use super::run::engine::build;
use super::{Desired, Memory, MemoryError, Method, Policy, Reach, ReconcileHandle, ReconcileOptions};
use crate::helix::{
    Background, Conduit, Created, Filter, HelixError, Rows, ShardRow, SubscriptionList, Transport, User,
    UserGrants,
};
use crate::model::cluster::{Leadership, Role};
use crate::model::hint::Hint;
use crate::model::mode::ShardCount;
use crate::model::pulse::Pulse;
use crate::model::shard::{BindOutcome, Bindings, LiveSession, SessionId, Sessions, ShardId, ShardTarget};
use crate::model::status::{ReconcileStatus, SubscriptionEntry};
use crate::model::subscription::{
    FieldValue, SubscriptionKey, SubscriptionRow, SubscriptionSpec, SubscriptionStatus, TransportTarget,
};
use crate::model::subscriptions::Subscriptions;
use crate::model::webhook::{Callback, WebhookKey};

/// A failure to come.
#[derive(Debug)]
struct Fault {
    /// Beginning of the texts of the calls that fail.
    call: &'static str,
    times: usize,
    failure: HelixError,
    /// The call is carried out, and its answer is lost.
    lost_answer: bool,
}

#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) users: BTreeMap<String, String>,
    pub(super) conduits: Vec<Conduit>,
    pub(super) rows: Vec<SubscriptionRow>,
    pub(super) shards: BTreeMap<(String, ShardId), (Transport, &'static str)>,
    /// Outcome of a challenge; `None` while there is none.
    pub(super) challenge: Option<&'static str>,
    pub(super) over: HashSet<SessionId>,
    pub(super) max_cost: u64,
    pub(super) latency: Duration,
    /// Time that a whole list takes besides; it shows what there is at its end.
    pub(super) list_latency: Duration,
    /// Scopes by user id; `None`: nobody says.
    pub(super) grants: Option<BTreeMap<String, Vec<String>>>,
    /// Ids of users who have authorized the client; `None`: Twitch does not say.
    pub(super) authorized: Option<Vec<String>>,
    faults: Vec<Fault>,
    pub(super) calls: Vec<String>,
    /// Why the callback cannot be reached.
    pub(super) unreachable: Option<&'static str>,
    /// Most live rows with the same key.
    pub(super) most_equal: usize,
    in_flight: usize,
    pub(super) most_in_flight: usize,
    serial: u64,
}

impl World {
    fn total(&self) -> u64 {
        self.rows.iter().filter(|row| row.status.is_live()).map(|row| row.cost).sum()
    }

    pub(super) fn count(&self, call: &str) -> usize {
        self.calls.iter().filter(|made| made.starts_with(call)).count()
    }

    pub(super) fn live(&self) -> Vec<String> {
        let mut live: Vec<String> =
            self.rows.iter().filter(|row| row.status.is_live()).map(|row| row.key.to_string()).collect();
        live.sort();
        live
    }

    /// Calls back whom it has to.
    pub(super) fn verify(&mut self) {
        let Some(outcome) = self.challenge else { return };
        let pending = "webhook_callback_verification_pending";
        for row in self.rows.iter_mut().filter(|row| row.status.as_str() == pending) {
            row.status = SubscriptionStatus::parse(outcome);
        }
        for (_, status) in self.shards.values_mut().filter(|(_, status)| *status == pending) {
            *status = outcome;
        }
    }

    pub(super) fn revoke(&mut self, of: &str, status: &str) {
        let mut found = false;
        for row in self.rows.iter_mut().filter(|row| row.key.to_string().contains(of)) {
            row.status = SubscriptionStatus::parse(status);
            found = true;
        }
        assert!(found, "{of}");
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Fake(Arc<Mutex<World>>, Pulse);

impl Fake {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub(super) fn fault(&self, call: &'static str, times: usize, failure: HelixError, lost_answer: bool) {
        self.world().faults.push(Fault { call, times, failure, lost_answer });
    }

    pub(super) fn clear_faults(&self) {
        self.world().faults.clear();
    }

    async fn call<T>(
        &self,
        text: String,
        act: impl FnOnce(&mut World) -> Result<T, HelixError>,
    ) -> Result<T, HelixError> {
        struct InFlight(Fake);
        impl Drop for InFlight {
            fn drop(&mut self) {
                self.0.world().in_flight -= 1;
            }
        }
        let latency = {
            let mut world = self.world();
            let list = if text.starts_with("list Conduit") { world.list_latency } else { Duration::ZERO };
            world.calls.push(text.clone());
            world.in_flight += 1;
            world.most_in_flight = world.most_in_flight.max(world.in_flight);
            world.latency + list
        };
        let _in_flight = InFlight(self.clone());
        tokio::time::sleep(latency).await;
        self.1.beat();
        let mut world = self.world();
        let fault = world.faults.iter_mut().find(|fault| fault.times > 0 && text.starts_with(fault.call));
        if let Some(fault) = fault {
            fault.times -= 1;
            let (failure, lost) = (fault.failure.clone(), fault.lost_answer);
            if lost {
                let _ = act(&mut world);
            }
            return Err(failure);
        }
        act(&mut world)
    }
}

fn not_found() -> HelixError {
    HelixError::NotFound { message: "not found".into() }
}

impl Api for Fake {
    fn with_pulse(&self, pulse: &Pulse) -> Self {
        Self(Arc::clone(&self.0), pulse.clone())
    }

    fn in_background(&self, _background: &Background) -> Self {
        self.clone()
    }

    fn window(&self) -> usize {
        10
    }

    async fn users_by_login(&self, logins: &[&str]) -> Result<Vec<User>, HelixError> {
        assert!((1..=100).contains(&logins.len()));
        let logins: Vec<String> = logins.iter().map(|&login| login.to_owned()).collect();
        self.call(format!("users {}", logins.join(" ")), |world| {
            let user = |login: &String| {
                Some(User { id: world.users.get(login)?.as_str().into(), login: login.as_str().into() })
            };
            Ok(logins.iter().filter_map(user).collect())
        })
        .await
    }

    async fn users_by_id(&self, ids: &[&str]) -> Result<Vec<User>, HelixError> {
        let ids: HashSet<String> = ids.iter().map(|&id| id.to_owned()).collect();
        self.call("ids".to_owned(), |world| {
            let users = world.users.iter().filter(|(_, id)| ids.contains(*id));
            Ok(users
                .map(|(login, id)| User { id: id.as_str().into(), login: login.as_str().into() })
                .collect())
        })
        .await
    }

    async fn grants(&self, ids: &[&str]) -> Result<Rows<UserGrants>, HelixError> {
        assert!((1..=10).contains(&ids.len()));
        // A Twitch that does not say is not asked for anything else.
        if self.world().grants.is_none() {
            return Err(not_found());
        }
        let ids: Vec<String> = ids.iter().map(|&id| id.to_owned()).collect();
        self.call(format!("grants {}", ids.join(" ")), |world| {
            let grants = world.grants.clone().unwrap_or_default();
            let row = |id: &String| {
                let has_authorized = world.authorized.as_ref().map(|users| users.contains(id));
                let scopes = grants.get(id);
                if scopes.is_none() && has_authorized.is_none() {
                    return None;
                }
                let scopes = scopes.into_iter().flatten().map(|scope| scope.as_str().into()).collect();
                let user = User { id: id.as_str().into(), login: "".into() };
                Some(UserGrants { user, scopes, has_authorized })
            };
            Ok(Rows { rows: ids.iter().filter_map(row).collect(), unread: Vec::new() })
        })
        .await
    }

    async fn subscriptions(
        &self,
        filter: &Filter,
        intern: impl Fn(&mut SubscriptionRow) + Send + Sync,
    ) -> Result<SubscriptionList, HelixError> {
        let filter = filter.clone();
        self.call(format!("list {filter:?}"), |world| {
            let wanted = |row: &&SubscriptionRow| match &filter {
                Filter::Conduit(id) => {
                    matches!(&row.target, TransportTarget::Conduit { conduit_id } if **conduit_id == **id)
                }
                Filter::Id(id) => row.id == **id,
                Filter::Type(name) => *row.key.subscription_type == **name,
                Filter::User(id) => row.key.condition.iter().any(|(_, value)| value == id),
                _ => true,
            };
            let mut rows: Vec<SubscriptionRow> = world.rows.iter().filter(wanted).cloned().collect();
            rows.iter_mut().for_each(intern);
            Ok(SubscriptionList {
                rows,
                unread: Vec::new(),
                total_cost: world.total(),
                max_total_cost: world.max_cost,
            })
        })
        .await
    }

    async fn costs(&self) -> Result<(u64, u64), HelixError> {
        self.call("costs".to_owned(), |world| Ok((world.total(), world.max_cost))).await
    }

    async fn create_subscription(
        &self,
        key: &SubscriptionKey,
        transport: &Transport,
        _batching: bool,
    ) -> Result<Created, HelixError> {
        let key = key.clone();
        let target = match transport {
            Transport::Conduit(id) => TransportTarget::Conduit { conduit_id: id.clone() },
            Transport::Webhook { callback, .. } => TransportTarget::Webhook { callback: callback.clone() },
            Transport::Session(_) => panic!("{transport:?}"),
        };
        self.call(format!("create {key}"), |world| {
            if let TransportTarget::Conduit { conduit_id } = &target
                && !world.conduits.iter().any(|conduit| *conduit.id == **conduit_id)
            {
                return Err(not_found());
            }
            let equal = world.rows.iter().filter(|row| row.key == key && row.status.is_live());
            world.most_equal = world.most_equal.max(equal.clone().count());
            let twin =
                world.rows.iter().find(|row| row.key == key && row.target == target && row.status.is_live());
            if let Some(twin) = twin {
                return Err(HelixError::Conflict { id: Some(twin.id.to_string().into()) });
            }
            if equal.count() == 3 {
                return Err(HelixError::Quota {
                    message: "maximum subscriptions with type and condition exceeded".into(),
                });
            }
            let cost = u64::from(&*key.subscription_type == "stream.online");
            if world.total() + cost > world.max_cost {
                return Err(HelixError::Quota { message: "subscriptions total cost exceeded".into() });
            }
            world.serial += 1;
            let row = SubscriptionRow {
                id: format!("sub-{}", world.serial).into(),
                status: match &target {
                    TransportTarget::Webhook { .. } => SubscriptionStatus::WebhookCallbackVerificationPending,
                    _ => SubscriptionStatus::Enabled,
                },
                key,
                target,
                cost,
            };
            world.rows.push(row.clone());
            world.verify();
            Ok(Created { row, total_cost: world.total(), max_total_cost: world.max_cost })
        })
        .await
    }

    async fn delete_subscription(&self, id: &str) -> Result<(), HelixError> {
        let id = id.to_owned();
        self.call(format!("delete {id}"), |world| {
            world.rows.retain(|row| row.id != *id);
            Ok(())
        })
        .await
    }

    async fn conduits(&self) -> Result<Vec<Conduit>, HelixError> {
        self.call("conduits".to_owned(), |world| Ok(world.conduits.clone())).await
    }

    async fn create_conduit(&self, shards: u32) -> Result<Conduit, HelixError> {
        self.call(format!("make conduit {shards}"), |world| {
            if world.conduits.len() == 5 {
                return Err(HelixError::Quota { message: "conduit limit reached".into() });
            }
            world.serial += 1;
            let conduit = Conduit { id: format!("conduit-{}", world.serial), shard_count: shards };
            world.conduits.push(conduit.clone());
            Ok(conduit)
        })
        .await
    }

    async fn resize_conduit(&self, id: &str, shards: u32) -> Result<Conduit, HelixError> {
        let id = id.to_owned();
        self.call(format!("resize {shards}"), |world| {
            let conduit = world.conduits.iter_mut().find(|conduit| conduit.id == id).ok_or_else(not_found)?;
            conduit.shard_count = shards;
            Ok(conduit.clone())
        })
        .await
    }

    async fn shards(&self, conduit_id: &str) -> Result<Rows<ShardRow>, HelixError> {
        let id = conduit_id.to_owned();
        self.call("shards".to_owned(), |world| {
            if !world.conduits.iter().any(|conduit| conduit.id == id) {
                return Err(not_found());
            }
            let ours = world.shards.iter().filter(|((conduit, _), _)| *conduit == id);
            let rows = ours
                .map(|((_, shard), (transport, status))| ShardRow {
                    id: *shard,
                    status: (*status).into(),
                    session_id: match transport {
                        Transport::Session(session) => Some(session.clone()),
                        _ => None,
                    },
                    callback: match transport {
                        Transport::Webhook { callback, .. } => Some((**callback).into()),
                        _ => None,
                    },
                })
                .collect();
            Ok(Rows { rows, unread: Vec::new() })
        })
        .await
    }

    async fn bind_shards(
        &self,
        conduit_id: &str,
        shards: &[(ShardId, Transport)],
    ) -> Result<BindAnswers, HelixError> {
        let (id, shards) = (conduit_id.to_owned(), shards.to_vec());
        self.call(format!("bind {}", shards.len()), |world| {
            let Some(conduit) = world.conduits.iter().find(|conduit| conduit.id == id) else {
                return Err(not_found());
            };
            let count = conduit.shard_count;
            let mut answers = Vec::new();
            for (shard, transport) in shards {
                let over = matches!(&transport, Transport::Session(session) if world.over.contains(session));
                let answer = if over {
                    Err(Refused::SessionGone)
                } else if shard.0 >= count {
                    Err(Refused::Other("The shard id is outside the conduit's range".into()))
                } else {
                    let status = match &transport {
                        Transport::Webhook { .. } => "webhook_callback_verification_pending",
                        _ => "enabled",
                    };
                    world.shards.insert((id.clone(), shard), (transport, status));
                    world.verify();
                    Ok(())
                };
                answers.push((shard, answer));
            }
            Ok(answers)
        })
        .await
    }
}

impl Reach for Fake {
    fn prove<'a>(
        &'a self,
        callback: &'a Callback,
        _key: &'a WebhookKey,
    ) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let mut world = self.world();
            world.calls.push(format!("prove {callback}"));
            world.unreachable.map_or(Ok(()), |why| Err(why.to_owned()))
        }
        .boxed()
    }
}

/// Remembers in memory.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) pairs: Mutex<BTreeMap<String, String>>,
    pub(super) broken: Mutex<bool>,
}

impl Notes {
    fn check(&self) -> Result<(), MemoryError> {
        if *self.broken.lock().unwrap() { Err(MemoryError::Local("disk full".into())) } else { Ok(()) }
    }
}

impl Memory for Notes {
    fn load(&self, prefix: &str) -> BoxFuture<'_, Result<Vec<(String, String)>, MemoryError>> {
        let prefix = prefix.to_owned();
        async move {
            self.check()?;
            let pairs = self.pairs.lock().unwrap();
            Ok(pairs
                .iter()
                .filter(|(name, _)| name.starts_with(&prefix))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect())
        }
        .boxed()
    }

    fn save(&self, changes: Vec<(String, Option<String>)>) -> BoxFuture<'_, Result<(), MemoryError>> {
        async move {
            self.check()?;
            let mut pairs = self.pairs.lock().unwrap();
            for (name, value) in changes {
                match value {
                    Some(value) => drop(pairs.insert(name, value)),
                    None => drop(pairs.remove(&name)),
                }
            }
            Ok(())
        }
        .boxed()
    }
}

/// A reconciler at work.
pub(super) struct Bench {
    pub(super) fake: Fake,
    pub(super) notes: Arc<Notes>,
    pub(super) desired: watch::Sender<Arc<Desired>>,
    pub(super) sessions: watch::Sender<Sessions>,
    pub(super) handle: ReconcileHandle,
    cancel: CancellationToken,
    task: JoinHandle<()>,
    pool: Option<JoinHandle<()>>,
}

/// Longer than any test may wait, in virtual time.
const PATIENCE: Duration = Duration::from_secs(40 * 86_400);

impl Bench {
    /// With a pool that opens a socket for each shard.
    pub(super) fn start(fake: &Fake, notes: &Arc<Notes>, desired: Desired) -> Self {
        Self::with_pool(fake, notes, desired, ReconcileOptions::new("client"))
    }

    /// A host that leads a cluster for as long as it runs.
    pub(super) fn start_leader(fake: &Fake, notes: &Arc<Notes>, desired: Desired) -> Self {
        let order = Leadership { role: Role::Leader, term: 1, ..Leadership::default() };
        let (_, leadership) = watch::channel(order);
        Self::start_with_orders(fake, notes, desired, leadership)
    }

    /// A host of a cluster that gets these orders.
    pub(super) fn start_with_orders(
        fake: &Fake,
        notes: &Arc<Notes>,
        desired: Desired,
        leadership: watch::Receiver<Leadership>,
    ) -> Self {
        let options = ReconcileOptions { leadership: Some(leadership), ..ReconcileOptions::new("client") };
        Self::with_pool(fake, notes, desired, options)
    }

    fn with_pool(fake: &Fake, notes: &Arc<Notes>, desired: Desired, options: ReconcileOptions) -> Self {
        let mut bench = Self::with_options(fake, notes, desired, options);
        let pool = pool(bench.handle.target.clone(), bench.handle.bindings.clone(), bench.sessions.clone());
        bench.pool = Some(tokio::spawn(pool));
        bench
    }

    pub(super) fn without_pool(fake: &Fake, notes: &Arc<Notes>, desired: Desired) -> Self {
        Self::with_options(fake, notes, desired, ReconcileOptions::new("client"))
    }

    fn with_options(fake: &Fake, notes: &Arc<Notes>, desired: Desired, options: ReconcileOptions) -> Self {
        let reach = Arc::new(fake.clone());
        let (desired, desired_out) = watch::channel(Arc::new(desired));
        let (sessions, sessions_out) = watch::channel(Sessions::default());
        let (engine, handle) = build(fake, notes.clone(), reach, desired_out, sessions_out, options);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(engine.run(cancel.clone()));
        Self { fake: fake.clone(), notes: notes.clone(), desired, sessions, handle, cancel, task, pool: None }
    }

    pub(super) fn reload(&self, specs: &[SubscriptionSpec], change: impl FnOnce(&mut Desired)) {
        let mut desired = Desired::clone(&self.desired.borrow());
        desired.generation += 1;
        desired.specs = specs.into();
        change(&mut desired);
        self.desired.send_replace(Arc::new(desired));
    }

    /// A revocation comes of a subscription that is not known.
    pub(super) fn hear_of_an_end(&self) {
        self.handle.hint(Hint::Ended { id: "unknown".into(), status: "user_removed".into() });
    }

    /// Waits for a status.
    pub(super) async fn status(&self, mut like: impl FnMut(&ReconcileStatus) -> bool) -> ReconcileStatus {
        let mut status = self.handle.status.clone();
        let found = tokio::time::timeout(PATIENCE, status.wait_for(|status| like(status))).await;
        match found {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("never: {:?}", self.handle.status.borrow()),
        }
    }

    /// Waits until the newest generation is converged.
    pub(super) async fn converged(&self) -> ReconcileStatus {
        let generation = self.desired.borrow().generation;
        self.status(|status| status.converged && status.generation == generation && status.problem.is_none())
            .await
    }

    pub(super) async fn entries(
        &self,
        mut like: impl FnMut(&[SubscriptionEntry]) -> bool,
    ) -> Vec<SubscriptionEntry> {
        let mut entries = self.handle.subscriptions.clone();
        let all = |entries: &Subscriptions| entries.iter().cloned().collect::<Vec<_>>();
        let found = tokio::time::timeout(PATIENCE, entries.wait_for(|entries| like(&all(entries)))).await;
        match found {
            Ok(found) => all(&found.unwrap()),
            Err(_) => panic!("never: {:?}", self.handle.subscriptions.borrow()),
        }
    }

    /// Waits for something in the world; looks every virtual 100 ms.
    pub(super) async fn world(&self, mut like: impl FnMut(&World) -> bool) {
        let looked = async {
            while !like(&self.fake.world()) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, looked).await.is_err() {
            panic!("never: {:?}", self.fake.world());
        }
    }

    /// A run that began from now on has ended.
    pub(super) async fn apply(&self, allow_deletes: bool) {
        let ticket = self.handle.apply(allow_deletes);
        tokio::time::timeout(PATIENCE, self.handle.answered(ticket)).await.expect("answered");
    }

    pub(super) async fn end(self) {
        self.cancel.cancel();
        tokio::time::timeout(Duration::from_secs(60), self.task).await.expect("ends").expect("no panic");
        if let Some(pool) = self.pool {
            pool.abort();
        }
    }
}

/// Has a session for each shard there shall be, and a new one when its session is over.
async fn pool(
    mut target: watch::Receiver<Option<ShardTarget>>,
    mut bindings: watch::Receiver<Bindings>,
    sessions: watch::Sender<Sessions>,
) {
    let mut serial = 0;
    loop {
        let sockets = target.borrow_and_update().as_ref().map(|target| Arc::clone(&target.sockets));
        let sockets = sockets.unwrap_or_default();
        let told = bindings.borrow_and_update().clone();
        let mut next = BTreeMap::clone(&sessions.borrow());
        next.retain(|shard, _| sockets.contains(shard));
        for shard in sockets.iter().copied() {
            let gone = told.get(&shard).filter(|binding| binding.outcome == BindOutcome::SessionGone);
            if next
                .get(&shard)
                .is_some_and(|live| gone.is_none_or(|binding| binding.session_id != live.session_id))
            {
                continue;
            }
            serial += 1;
            let session_id = SessionId::new(format!("session-{serial}"));
            let welcomed_at = tokio::time::Instant::now().into_std();
            next.insert(shard, LiveSession::new(session_id, welcomed_at));
        }
        if next != **sessions.borrow() {
            sessions.send_replace(Arc::new(next));
        }
        tokio::select! {
            Ok(()) = target.changed() => {}
            Ok(()) = bindings.changed() => {}
            else => return,
        }
    }
}

pub(super) fn spec(name: &str, login: &str) -> SubscriptionSpec {
    let version = if name == "channel.follow" { "2" } else { "1" };
    SubscriptionSpec {
        subscription_type: name.into(),
        version: version.into(),
        condition: Box::new([("broadcaster_user_id".into(), FieldValue::Login(login.into()))]),
        sinks: None,
    }
}

pub(super) fn literal(name: &str, id: &str) -> SubscriptionSpec {
    let mut spec = spec(name, "");
    spec.condition[0].1 = FieldValue::Literal(id.into());
    spec
}

pub(super) fn desired(specs: &[SubscriptionSpec]) -> Desired {
    Desired {
        generation: 1,
        specs: specs.into(),
        policy: Policy::Sync,
        max_delete: 0.5,
        interval: Duration::from_secs(1800),
        method: Method::Conduit,
        shards: ShardCount::Fixed(2),
        shards_call: false,
        webhook: None,
        conduit_id: None,
        watch_grants: false,
        fingerprint: String::new(),
    }
}

pub(super) fn fake() -> Fake {
    let fake = Fake::default();
    {
        let mut world = fake.world();
        world.max_cost = 10_000;
        world.latency = Duration::from_millis(50);
        for (at, login) in ["ann", "bob", "cat"].iter().enumerate() {
            world.users.insert((*login).to_owned(), (at + 1).to_string());
        }
    }
    fake
}
