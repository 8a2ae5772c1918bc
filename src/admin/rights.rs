//! Rights of a client, which the listener sets on each request. ◆

/// Rights of the client of a request, beside reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// Nothing: there is no token, or the client has none.
    Read,
    /// Changes through the page, and through programs with the token.
    Change,
    /// The same for a browser, whose forms have to carry this value.
    ChangeWith { form_key: String },
}

impl Rights {
    /// Returns whether a form with this value may change something.
    pub(super) fn allow(&self, form_key: &str) -> bool {
        match self {
            Self::Read => false,
            Self::Change => true,
            // Both are tags of the same key and have the same length; the one sent tells nothing about ours.
            Self::ChangeWith { form_key: ours } => constant_time_eq(ours.as_bytes(), form_key.as_bytes()),
        }
    }
}

/// Compares without telling by its time where the difference is.
fn constant_time_eq(ours: &[u8], sent: &[u8]) -> bool {
    ours.len() == sent.len() && ours.iter().zip(sent).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}
