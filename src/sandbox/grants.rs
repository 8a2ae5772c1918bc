//! Grants of users to the application, and moderators of channels.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::grants::Scopes;

/// Grants by user id. A user who has authorized the application without any scope is in it as well.
#[derive(Debug, Default)]
pub(super) struct Grants {
    scopes: BTreeMap<String, BTreeSet<String>>,
    /// Channel and moderator.
    moderators: BTreeSet<(String, String)>,
}

impl Grants {
    pub(super) fn add(&mut self, user_id: &str, scopes: &[String]) {
        self.scopes.entry(user_id.to_owned()).or_default().extend(scopes.iter().cloned());
    }

    pub(super) fn remove(&mut self, user_id: &str) {
        self.scopes.remove(user_id);
    }

    /// The scopes of a user; `None` for one who has not authorized the application.
    pub(super) fn of(&self, user_id: &str) -> Option<&BTreeSet<String>> {
        self.scopes.get(user_id)
    }

    pub(super) fn scopes(&self, user_id: &str) -> Scopes {
        self.of(user_id).into_iter().flatten().map(|scope| scope.as_str().into()).collect()
    }

    pub(super) fn has_authorized(&self, user_id: &str) -> bool {
        self.scopes.contains_key(user_id)
    }

    pub(super) fn set_moderator(&mut self, channel: &str, user_id: &str) {
        self.moderators.insert((channel.to_owned(), user_id.to_owned()));
    }

    /// False if the user was none.
    pub(super) fn remove_moderator(&mut self, channel: &str, user_id: &str) -> bool {
        self.moderators.remove(&(channel.to_owned(), user_id.to_owned()))
    }

    pub(super) fn is_moderator(&self, channel: &str, user_id: &str) -> bool {
        channel == user_id || self.moderators.contains(&(channel.to_owned(), user_id.to_owned()))
    }
}
