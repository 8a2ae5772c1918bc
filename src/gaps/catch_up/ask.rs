//! Asking Twitch, until there is an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use tracing::warn;

use super::list::Target;
use super::progress::Progress;
use crate::helix::{Channel, Helix, HelixError, HelixErrorKind, Rows, Stream, User};
use crate::model::backoff::Backoff;

/// The first and the longest pause before a request is tried again.
pub(super) const PAUSE: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));

/// Rows of an answer by the channel's id.
#[derive(Debug)]
pub(super) struct Asked<T> {
    pub(super) rows: BTreeMap<Box<str>, T>,
    /// Channels of which nothing can be said.
    pub(super) unsure: BTreeSet<Box<str>>,
}

/// The names of channels.
#[derive(Debug)]
pub(super) struct Names(BTreeMap<Box<str>, Channel>);

impl Names {
    pub(super) fn of<'a>(&'a self, target: &'a Target) -> (&'a User, &'a str) {
        match self.0.get(&target.id) {
            Some(channel) => (&channel.broadcaster, &*channel.broadcaster_name),
            None => (&target.user, &*target.user.login),
        }
    }
}

/// The requests of a catch-up, repeated until Twitch answers.
#[derive(Debug)]
pub(super) struct Asker {
    helix: Helix,
}

impl Asker {
    pub(super) fn new(helix: Helix) -> Self {
        Self { helix }
    }

    pub(super) async fn streams(&self, ids: Vec<&str>, progress: &mut Progress) -> Asked<Stream> {
        let ask = |helix: Helix, ids: Vec<String>| async move { helix.streams(&refs(&ids)).await };
        self.ask(ids, progress, ask, |stream| &stream.user.id).await
    }

    pub(super) async fn channels(&self, ids: Vec<&str>, progress: &mut Progress) -> Asked<Channel> {
        let ask = |helix: Helix, ids: Vec<String>| async move { helix.channels(&refs(&ids)).await };
        self.ask(ids, progress, ask, |channel| &channel.broadcaster.id).await
    }

    pub(super) async fn names(&self, ids: Vec<&str>, progress: &mut Progress) -> Names {
        Names(self.channels(ids, progress).await.rows)
    }

    /// Asks about all of these. If Twitch refuses a request, or a row cannot be read, asks about each half.
    async fn ask<T, F: Future<Output = Result<Rows<T>, HelixError>>>(
        &self,
        ids: Vec<&str>,
        progress: &mut Progress,
        ask: impl Fn(Helix, Vec<String>) -> F,
        id_of: impl Fn(&T) -> &str,
    ) -> Asked<T> {
        let mut asked = Asked { rows: BTreeMap::new(), unsure: BTreeSet::new() };
        let mut parts = vec![ids];
        let mut failures = 0;
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let owned = part.iter().map(|id| (*id).to_owned()).collect();
            let is_whole = match ask(self.helix.clone(), owned).await {
                Ok(rows) => {
                    let is_whole = rows.unread.is_empty();
                    asked.rows.extend(rows.rows.into_iter().map(|row| (Box::from(id_of(&row)), row)));
                    is_whole
                }
                Err(error) if error.kind() == HelixErrorKind::Refused => {
                    if part.len() == 1 {
                        warn!(broadcaster_id = part[0], %error, "Twitch does not say how a channel is");
                    }
                    false
                }
                Err(error) => {
                    progress.update(|status| status.problem = Some(error.to_string()));
                    failures += 1;
                    tokio::time::sleep(PAUSE.pause(failures)).await;
                    parts.push(part);
                    continue;
                }
            };
            progress.update(|status| status.problem = None);
            failures = 0;
            match &part[..] {
                _ if is_whole => {}
                [one] => drop(asked.unsure.insert((*one).into())),
                many => {
                    let (one, other) = many.split_at(many.len() / 2);
                    parts.extend([one.to_vec(), other.to_vec()]);
                }
            }
        }
        asked
    }
}

fn refs(ids: &[String]) -> Vec<&str> {
    ids.iter().map(String::as_str).collect()
}
