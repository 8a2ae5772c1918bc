//! Search in the list of subscriptions. ◆

use std::fmt::Write as _;

use crate::model::status::{SubscriptionEntry, SubscriptionState};

/// The longest search, in characters.
const MAX_SEARCH: usize = 200;

/// Words that all have to occur in an entry, in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Search {
    /// As it was asked for, without what is too long.
    text: String,
    words: Vec<String>,
    /// Reused buffer for the text of an entry.
    entry: String,
}

impl Search {
    pub(super) fn new(text: &str) -> Self {
        let text: String = text.chars().take(MAX_SEARCH).collect();
        let text = text.trim().to_owned();
        let words = text.to_ascii_lowercase().split_whitespace().map(str::to_owned).collect();
        Self { text, words, entry: String::new() }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Returns whether all words occur in an entry: its key, id, logins and reason.
    pub(super) fn matches(&mut self, entry: &SubscriptionEntry) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let text = &mut self.entry;
        text.clear();
        let _ = write!(text, "{}", entry.key);
        if let Some(id) = &entry.id {
            let _ = write!(text, " {id}");
        }
        let logins = entry.logins.as_slice().iter().map(|login| &**login);
        for part in logins.chain(entry.reason.as_deref()) {
            text.push(' ');
            text.push_str(part);
        }
        text.make_ascii_lowercase();
        self.words.iter().all(|word| text.contains(word.as_str()))
    }
}

/// The subscriptions that are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Filter {
    /// Subscriptions of the file.
    #[default]
    All,
    /// Subscriptions of the file in this state.
    State(SubscriptionState),
    /// Subscriptions that the daemon keeps for itself.
    Own,
}

impl Filter {
    pub(super) const NAMED: [(Self, &'static str); 4] = [
        (Self::State(SubscriptionState::Parked), "parked"),
        (Self::State(SubscriptionState::Pending), "pending"),
        (Self::State(SubscriptionState::Enabled), "enabled"),
        (Self::Own, "own"),
    ];

    /// The filter with this name; `None` if there is none.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(_, known)| *known == name).map(|(filter, _)| *filter)
    }

    /// The name; empty for all.
    pub(super) fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(filter, _)| *filter == self).map_or("", |(_, name)| name)
    }

    pub(super) fn takes(self, entry: &SubscriptionEntry) -> bool {
        match self {
            Self::All => !entry.own,
            Self::State(state) => !entry.own && entry.state == state,
            Self::Own => entry.own,
        }
    }
}
