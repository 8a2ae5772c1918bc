//! The published status of catch-ups.

use tokio::sync::watch;

use crate::model::status::CatchUpStatus;
use crate::telemetry::Publish;

/// Gaps that [`Published::mended`] keeps.
const MENDED: usize = 100;

/// The catch-up under way, and what has become of gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::gaps) struct Published {
    pub(in crate::gaps) under_way: Option<CatchUpStatus>,
    /// Events that catch-ups made, since the start.
    pub(in crate::gaps) events: u64,
    /// The gaps that were mended last, with the number of events.
    pub(in crate::gaps) mended: Vec<(Box<str>, u64)>,
}

/// The owner of what is published.
#[derive(Debug, Default)]
pub(super) struct Progress {
    value: Published,
    sender: watch::Sender<Published>,
}

impl Progress {
    pub(super) fn subscribe(&self) -> watch::Receiver<Published> {
        self.sender.subscribe()
    }

    /// Changes the catch-up under way.
    pub(super) fn set_under_way(&mut self, status: Option<CatchUpStatus>) {
        self.value.under_way = status;
        self.publish();
    }

    /// The catch-up under way.
    pub(super) fn under_way(&self) -> Option<&CatchUpStatus> {
        self.value.under_way.as_ref()
    }

    /// Changes the catch-up under way, if there is one.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut CatchUpStatus)) {
        if let Some(status) = &mut self.value.under_way {
            change(status);
            self.publish();
        }
    }

    /// An event was stored.
    pub(super) fn count_event(&mut self) {
        self.value.events += 1;
    }

    /// Gaps were mended with so many events.
    pub(super) fn end(&mut self, gaps: Vec<Box<str>>, events: u64) {
        let mended = &mut self.value.mended;
        mended.extend(gaps.into_iter().map(|gap| (gap, events)));
        mended.drain(..mended.len().saturating_sub(MENDED));
        self.set_under_way(None);
    }

    fn publish(&self) {
        self.sender.publish_copy(&self.value);
    }
}
