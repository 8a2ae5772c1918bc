//! Counts of how requests to the page ended. ◆

use crate::model::status::InviteStatus;

/// The end of a request that is counted. Pages on the way to it are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A user has allowed everything.
    Granted,
    /// A user has allowed nothing, or a part.
    Declined,
    /// The request has no valid invite, or belongs to no visit.
    Refused,
    /// There are more requests than may be, or the daemon has just started.
    Limited,
    /// Twitch did not confirm the grant.
    Failed,
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    granted: u64,
    declined: u64,
    refused: u64,
    limited: u64,
    failed: u64,
}

impl Outcomes {
    pub(super) fn record(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Granted => &mut self.granted,
            Outcome::Declined => &mut self.declined,
            Outcome::Refused => &mut self.refused,
            Outcome::Limited => &mut self.limited,
            Outcome::Failed => &mut self.failed,
        };
        *count += 1;
    }

    /// Returns a status with these counts.
    pub(super) fn status(&self) -> InviteStatus {
        let Self { granted, declined, refused, limited, failed } = *self;
        InviteStatus { granted, declined, refused, limited, failed, ..InviteStatus::default() }
    }
}
