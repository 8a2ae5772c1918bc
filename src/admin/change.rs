//! The changes that the page offers. ◆

/// A change that the page offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Retry,
    Skip,
    Replay,
    Resend,
    Drop,
}

impl Change {
    pub(super) const ALL: [Self; 5] = [Self::Retry, Self::Skip, Self::Replay, Self::Resend, Self::Drop];

    /// Returns the name in paths and queries.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Replay => "replay",
            Self::Resend => "resend",
            Self::Drop => "drop",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.name() == name)
    }

    /// Returns what is said once it is done.
    pub(super) fn done(self, sink: &str) -> String {
        match self {
            Self::Retry => format!("Sink {sink} tries again now."),
            Self::Skip => format!("The event that held up sink {sink} is in its dead letters now."),
            Self::Replay => format!("Sink {sink} gets the stored events again, from that one on."),
            Self::Resend => format!("The dead letters of sink {sink} are sent again."),
            Self::Drop => format!("The dead letters of sink {sink} were dropped."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_changes_are_unique() {
        for change in Change::ALL {
            assert_eq!(Change::named(change.name()), Some(change));
        }
        assert_eq!(Change::named("reload"), None);
    }
}
