//! The API client: every call that the daemon makes, at the pace that Twitch allows.
//!
//! Owns the rate limit and the sending again of requests after a 401, a 429 and a 503. It decides
//! nothing about subscriptions, and it never returns part of a list. It remembers nothing over a
//! restart.

mod answer;
mod client;
mod error;
mod options;
pub mod pacer;
pub mod request;
mod status;
mod types;

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::watch;

use self::answer::{Bound, Page, PageRows};
pub use self::client::Background;
use self::client::{Caller, Sender};
pub use self::error::{HelixError, HelixErrorKind};
pub use self::options::{HelixOptions, MaySend};
use self::request::{Call, Request};
pub use self::request::{MAX_CHANNELS, MAX_GRANTS, MAX_SHARDS, MAX_USERS};
pub use self::types::{
    Channel, Conduit, Created, Filter, Rows, ShardRefused, ShardRow, Stream, SubscriptionList, Transport,
    User, UserGrants,
};
use crate::auth::{Outward, Tokens};
use crate::model::pulse::Pulse;
use crate::model::shard::ShardId;
use crate::model::status::ApiStatus;
use crate::model::subscription::{SubscriptionKey, SubscriptionRow};

/// Pages of one list at most: 400,000 subscriptions, three times what the largest known client has.
const MAX_PAGES: usize = 4_000;
/// Bytes of all pages of one list at most: 200,000 subscriptions of about 600 bytes. A Twitch whose lists do not
/// end must not fill the memory.
const MAX_LIST: usize = 128 << 20;
/// Pages without a row that are followed in a row.
const MAX_EMPTY_PAGES: usize = 20;

/// The API, for those who ask it; cheap to clone. Dropping a call's future cancels it.
#[derive(Clone, Debug)]
pub struct Helix {
    sender: Arc<Sender>,
    caller: Caller,
}

impl Helix {
    /// A client that uses these tokens.
    pub fn new(http: Outward, options: HelixOptions, tokens: Tokens) -> Self {
        Self { sender: Sender::new(http, options, tokens), caller: Caller::default() }
    }

    /// The same client for somebody whose sign of life beats with every request, and while one waits for its turn.
    #[must_use]
    pub fn with_pulse(&self, pulse: Pulse) -> Self {
        self.with(Caller { pulse, ..self.caller.clone() })
    }

    /// The same client for background work, which leaves half of the rate limit to others until it is over.
    #[must_use]
    pub fn in_background(&self, background: &Background) -> Self {
        self.with(Caller { background: Some(background.clone()), ..self.caller.clone() })
    }

    /// The same client for somebody whose requests may be sent at other times than those of the others.
    #[must_use]
    pub fn with_may_send(&self, may_send: MaySend) -> Self {
        self.with(Caller { may_send: Some(may_send), ..self.caller.clone() })
    }

    fn with(&self, caller: Caller) -> Self {
        Self { sender: Arc::clone(&self.sender), caller }
    }

    /// Number of requests that may be in flight now. More than that wait for their turn.
    pub fn window(&self) -> usize {
        self.sender.window()
    }

    async fn send(&self, request: &Request) -> Result<Vec<u8>, HelixError> {
        self.sender.send(request, &self.caller).await
    }

    /// How the client is.
    pub fn status(&self) -> watch::Receiver<ApiStatus> {
        self.sender.status()
    }

    /// Users by login, at most [`MAX_USERS`]; unknown ones are missing from the answer.
    ///
    /// # Errors
    /// See [`HelixError`]; this holds for every call.
    pub async fn users_by_login(&self, logins: &[&str]) -> Result<Rows<User>, HelixError> {
        self.users("login", logins).await
    }

    /// Users by id, at most [`MAX_USERS`]; unknown ones are missing from the answer.
    ///
    /// # Errors
    /// See [`HelixError`].
    pub async fn users_by_id(&self, ids: &[&str]) -> Result<Rows<User>, HelixError> {
        self.users("id", ids).await
    }

    async fn users(&self, field: &'static str, values: &[&str]) -> Result<Rows<User>, HelixError> {
        // Twitch answers 400 to a question about nobody.
        if values.is_empty() {
            return Ok(Rows::default());
        }
        let rows = answer::parse_users(&self.send(&request::users(field, values)).await?)?;
        self.sender.log_unread(Call::GetUsers, &rows.unread);
        Ok(rows)
    }

    /// Grants of at most [`MAX_GRANTS`] users. Users who have granted nothing may be missing from the answer.
    ///
    /// # Errors
    /// See [`HelixError`].
    pub async fn grants(&self, ids: &[&str]) -> Result<Rows<UserGrants>, HelixError> {
        if ids.is_empty() {
            return Ok(Rows::default());
        }
        let rows = answer::parse_grants(&self.send(&request::grants(ids)).await?)?;
        self.sender.log_unread(Call::GetGrants, &rows.unread);
        Ok(rows)
    }

    /// The live streams of users, at most [`MAX_CHANNELS`]; who is not live is missing. Twitch's answer may be two minutes
    /// old.
    ///
    /// # Errors
    /// See [`HelixError`].
    pub async fn streams(&self, user_ids: &[&str]) -> Result<Rows<Stream>, HelixError> {
        let mut all = Rows::default();
        // Without a user Twitch lists the streams of the whole world.
        if user_ids.is_empty() {
            return Ok(all);
        }
        let ask = |after: Option<&str>| request::streams(user_ids, after);
        let add = |page: Rows<Stream>| {
            all.rows.extend(page.rows);
            all.unread.extend(page.unread);
        };
        self.pages(Call::GetStreams, ask, answer::parse_streams, add).await?;
        self.sender.log_unread(Call::GetStreams, &all.unread);
        Ok(all)
    }

    /// Gets the channel information of at most [`MAX_CHANNELS`] users; unknown users are missing.
    ///
    /// # Errors
    /// See [`HelixError`].
    pub async fn channels(&self, user_ids: &[&str]) -> Result<Rows<Channel>, HelixError> {
        if user_ids.is_empty() {
            return Ok(Rows::default());
        }
        let rows = answer::parse_channels(&self.send(&request::channels(user_ids)).await?)?;
        self.sender.log_unread(Call::GetChannels, &rows.unread);
        Ok(rows)
    }

    /// All pages of the list, or an error: never part of it. `intern` may replace what a row has in common with what
    /// the caller knows, page by page, so that a long list is never in the memory twice.
    ///
    /// # Errors
    /// See [`HelixError`].
    pub async fn subscriptions(
        &self,
        filter: &Filter,
        intern: impl Fn(&mut SubscriptionRow),
    ) -> Result<SubscriptionList, HelixError> {
        let ask = |after: Option<&str>| request::subscriptions(filter, after);
        let mut all = SubscriptionList::default();
        let add = |mut page: SubscriptionList| {
            page.rows.iter_mut().for_each(&intern);
            all.rows.extend(page.rows);
            all.unread.extend(page.unread);
            (all.total_cost, all.max_total_cost) = (page.total_cost, page.max_total_cost);
        };
        self.pages(Call::GetSubscriptions, ask, answer::parse_subscriptions, add).await?;
        all.rows.shrink_to_fit();
        self.sender.log_unread(Call::GetSubscriptions, &all.unread);
        Ok(all)
    }

    /// Sum and limit of the costs of all subscriptions of the client, from one page of the list.
    ///
    /// # Errors
    /// See [`HelixError`].
    pub async fn costs(&self) -> Result<(u64, u64), HelixError> {
        let body = self.send(&request::subscriptions(&Filter::All, None)).await?;
        let page = answer::parse_subscriptions(&body)?.rows;
        Ok((page.total_cost, page.max_total_cost))
    }

    /// Creates a subscription. `batching` is `is_batching_enabled`, which
    /// `drop.entitlement.grant` demands.
    ///
    /// # Errors
    /// See [`HelixError`].
    pub async fn create_subscription(
        &self,
        key: &SubscriptionKey,
        transport: &Transport,
        batching: bool,
    ) -> Result<Created, HelixError> {
        answer::parse_created(&self.send(&request::create(key, transport, batching)).await?)
    }

    /// Deletes a subscription. One that is gone already is success.
    ///
    /// # Errors
    /// See [`HelixError`].
    pub async fn delete_subscription(&self, id: &str) -> Result<(), HelixError> {
        match self.send(&request::delete(id)).await {
            Ok(_) | Err(HelixError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The conduits of the client.
    ///
    /// # Errors
    /// See [`HelixError`].
    pub async fn conduits(&self) -> Result<Vec<Conduit>, HelixError> {
        answer::parse_conduits(Call::GetConduits, &self.send(&request::conduits()).await?)
    }

    /// Makes a conduit of this many shards.
    ///
    /// # Errors
    /// See [`HelixError`].
    pub async fn create_conduit(&self, shards: u32) -> Result<Conduit, HelixError> {
        self.conduit(&request::create_conduit(shards)).await
    }

    /// Changes the number of shards. Those at the end go, with their transports.
    ///
    /// # Errors
    /// See [`HelixError`].
    pub async fn resize_conduit(&self, id: &str, shards: u32) -> Result<Conduit, HelixError> {
        self.conduit(&request::resize_conduit(id, shards)).await
    }

    async fn conduit(&self, request: &Request) -> Result<Conduit, HelixError> {
        let conduits = answer::parse_conduits(request.call, &self.send(request).await?)?;
        let none = || HelixError::Garbled { message: format!("{}: no conduit", request.call.name()).into() };
        conduits.into_iter().next().ok_or_else(none)
    }

    /// All shards that have, or had, a transport.
    ///
    /// # Errors
    /// See [`HelixError`].
    pub async fn shards(&self, conduit_id: &str) -> Result<Rows<ShardRow>, HelixError> {
        let ask = |after: Option<&str>| request::shards(conduit_id, after);
        let mut all = Rows::default();
        let add = |page: Rows<ShardRow>| {
            all.rows.extend(page.rows);
            all.unread.extend(page.unread);
        };
        self.pages(Call::GetShards, ask, answer::parse_shards, add).await?;
        self.sender.log_unread(Call::GetShards, &all.unread);
        Ok(all)
    }

    /// Binds any number of shards, [`MAX_SHARDS`] a call; one answer for each.
    ///
    /// # Errors
    /// See [`HelixError`]; earlier calls of the same batch may have been carried out.
    pub async fn bind_shards(
        &self,
        conduit_id: &str,
        shards: &[(ShardId, Transport)],
    ) -> Result<Bound, HelixError> {
        let mut bound = Vec::with_capacity(shards.len());
        for part in shards.chunks(MAX_SHARDS) {
            let body = self.send(&request::bind_shards(conduit_id, part)).await?;
            bound.extend(answer::parse_bound(part, &body)?);
        }
        Ok(bound)
    }

    async fn pages<T: PageRows>(
        &self,
        call: Call,
        ask: impl Fn(Option<&str>) -> Request,
        parse: impl Fn(&[u8]) -> Result<Page<T>, HelixError>,
        mut add: impl FnMut(T),
    ) -> Result<(), HelixError> {
        let mut pages = 0;
        let mut seen = HashSet::new();
        let mut after: Option<String> = None;
        let mut bytes = 0_usize;
        let mut empty = 0;
        loop {
            let body = self.send(&ask(after.as_deref())).await?;
            bytes = bytes.saturating_add(body.len());
            let page = parse(&body)?;
            empty = if page.rows.is_empty() { empty + 1 } else { 0 };
            pages += 1;
            add(page.rows);
            let Some(cursor) = page.cursor else { return Ok(()) };
            let why = if pages >= MAX_PAGES || bytes > MAX_LIST {
                format!("the list does not end: {pages} pages, {} MiB", bytes >> 20)
            } else if empty > MAX_EMPTY_PAGES {
                format!("the list does not end: {empty} pages without a row came one after the other")
            } else if !seen.insert(cursor.clone()) {
                format!("the list does not end: a cursor came twice, after {pages} pages")
            } else {
                after = Some(cursor);
                continue;
            };
            return Err(status::garbled(call, &why));
        }
    }
}

/// Reads an answer of any call and tells how many rows it has: what fuzzing and its seeds go through. Any bytes
/// give a number or an error.
///
/// # Errors
/// The answer as a whole cannot be read.
pub fn rows_in(call: Call, body: &[u8]) -> Result<usize, HelixError> {
    answer::rows_in(call, body)
}
