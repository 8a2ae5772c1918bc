//! Places that subscriptions point to: the current one, where new ones are made, and the old ones that we leave. ◆
//!
//! A row is ours when it points to a conduit of ours or to a callback of ours, whatever the secret that its callback
//! names. What is on an older place is moved: made anew on the current one, and deleted once that delivers.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::helix::{Filter, Transport};
use crate::model::subscription::{SubscriptionRow, TransportTarget};
use crate::model::webhook::{self, Callback, KeyId, WebhookKey};

/// A place for subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum Place {
    /// On this conduit. An empty id is that of one that does not exist yet.
    Conduit(Arc<str>),
    /// On this callback, signed with this secret.
    Webhook { callback: Arc<str>, key: WebhookKey },
}

impl Place {
    /// The callback with its key.
    pub(in crate::reconcile) fn webhook(url: &Arc<str>, key: &WebhookKey) -> Self {
        let callback = Callback { url: url.clone(), key: key.id, shard: None }.to_string().into();
        Self::Webhook { callback, key: key.clone() }
    }

    /// Whether Twitch must call us before a subscription there delivers.
    pub(in crate::reconcile) fn is_webhook(&self) -> bool {
        matches!(self, Self::Webhook { .. })
    }

    /// The transport that Twitch is asked for.
    pub(in crate::reconcile) fn transport(&self) -> Transport {
        match self {
            Self::Conduit(id) => Transport::Conduit(id.clone()),
            Self::Webhook { callback, key } => {
                Transport::Webhook { callback: callback.clone(), secret: key.secret.clone() }
            }
        }
    }

    /// Whether a row points here.
    pub(in crate::reconcile) fn holds(&self, target: &TransportTarget) -> bool {
        match (self, target) {
            (Self::Conduit(id), TransportTarget::Conduit { conduit_id }) => id == conduit_id,
            (Self::Webhook { callback: ours, .. }, TransportTarget::Webhook { callback }) => ours == callback,
            _ => false,
        }
    }
}

/// Relation of a row to our places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reconcile) enum Side {
    /// Ours, where it should be.
    Current,
    /// Ours, and to be moved.
    Old,
    /// Not ours: never touched.
    Foreign,
}

/// All places of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::reconcile) struct Places {
    pub(in crate::reconcile) current: Place,
    /// The conduit that we leave.
    pub(in crate::reconcile) conduit: Option<Arc<str>>,
    /// The public URLs that are ours or were.
    pub(in crate::reconcile) urls: BTreeSet<Arc<str>>,
}

impl Places {
    /// Whether no place exists yet, so that no row can be ours.
    pub(in crate::reconcile) fn is_nowhere(&self) -> bool {
        let is_unmade = matches!(&self.current, Place::Conduit(id) if id.is_empty());
        is_unmade && self.conduit.is_none() && self.urls.is_empty()
    }

    /// The side of a row with this target.
    pub(in crate::reconcile) fn side(&self, target: &TransportTarget) -> Side {
        if self.current.holds(target) {
            return Side::Current;
        }
        let old = match target {
            TransportTarget::Conduit { conduit_id } => self.conduit.as_ref() == Some(conduit_id),
            TransportTarget::Webhook { callback } => self.url_of(callback).is_some(),
            TransportTarget::Other(_) => false,
        };
        if old { Side::Old } else { Side::Foreign }
    }

    /// Our URL in a callback, if it is one of ours. One without a query is ours too: it was made by whoever had
    /// the URL before us, and calls us now.
    fn url_of(&self, callback: &str) -> Option<&Arc<str>> {
        let (url, known) = match callback.split_once('?') {
            Some((url, query)) => (url, webhook::parse_query(query).is_ok()),
            None => (callback, true),
        };
        self.urls.get(url).filter(|_| known)
    }

    /// The filter that lists all rows of ours. While rows may have to be moved, foreign ones count as well: Twitch
    /// allows a client three equal ones.
    pub(in crate::reconcile) fn filter(&self) -> Filter {
        match &self.current {
            Place::Conduit(id) if self.urls.is_empty() && self.conduit.is_none() => {
                Filter::Conduit(id.to_string())
            }
            _ => Filter::All,
        }
    }

    /// The old URLs that no row points to any more.
    pub(in crate::reconcile) fn deserted<'a>(
        &'a self,
        rows: &[SubscriptionRow],
        url: Option<&Arc<str>>,
    ) -> BTreeSet<&'a Arc<str>> {
        let mut deserted: BTreeSet<&Arc<str>> = self.urls.iter().filter(|old| Some(*old) != url).collect();
        for row in rows {
            if let TransportTarget::Webhook { callback } = &row.target
                && let Some(url) = self.url_of(callback)
            {
                deserted.remove(url);
            }
        }
        deserted
    }

    /// The secrets that live rows on our callbacks are signed with, as far as their callbacks say.
    pub(in crate::reconcile) fn keys(&self, rows: &[SubscriptionRow]) -> BTreeSet<KeyId> {
        let of = |row: &SubscriptionRow| match &row.target {
            TransportTarget::Webhook { callback } if row.status.is_live() => {
                self.url_of(callback)?;
                callback.parse::<Callback>().ok().map(|callback| callback.key)
            }
            _ => None,
        };
        rows.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Secret;

    fn target(callback: &str) -> TransportTarget {
        TransportTarget::Webhook { callback: callback.into() }
    }

    #[test]
    fn ours_is_what_calls_us_and_nothing_else() {
        let url: Arc<str> = "https://a.example/e".into();
        let [old, new] = ["0123456789", "abcdefghij"].map(|text| WebhookKey::new(Secret::new(text)).unwrap());
        let current = Place::webhook(&url, &new);
        let places = Places {
            current: current.clone(),
            conduit: Some("c".into()),
            urls: [url.clone(), "https://b.example/e".into()].into(),
        };
        let side = |text: &str| places.side(&target(text));
        assert_eq!(side(&format!("{url}?key={}", new.id)), Side::Current);
        assert_eq!(side(&format!("{url}?key={}", old.id)), Side::Old);
        assert_eq!(side(&format!("https://b.example/e?key={}", new.id)), Side::Old);
        assert_eq!(side("https://a.example/e"), Side::Old);
        assert_eq!(side("https://a.example/e?user=1"), Side::Foreign, "somebody tells callers apart by it");
        assert_eq!(side("https://a.example/other"), Side::Foreign);
        let conduit = |id: &str| places.side(&TransportTarget::Conduit { conduit_id: id.into() });
        assert_eq!((conduit("c"), conduit("d")), (Side::Old, Side::Foreign));
        assert_eq!(places.filter(), Filter::All);
        let alone = Places { current: Place::Conduit("c".into()), conduit: None, urls: BTreeSet::new() };
        assert_eq!(alone.filter(), Filter::Conduit("c".into()));
        assert!(!format!("{:?}", current.transport()).contains("abcdefghij"));
    }
}
