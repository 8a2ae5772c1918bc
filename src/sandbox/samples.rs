//! Sample events for every type of the catalogue.

use std::fmt::Write as _;

use crate::model::subscription::Condition;
use crate::model::time::Timestamp;

/// What a sample needs to know of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleUser {
    /// The id.
    pub id: String,
    /// The login.
    pub login: String,
    /// The display name.
    pub name: String,
}

/// What the sample is made for.
pub struct SampleRequest<'a> {
    /// For example `channel.follow`.
    pub subscription_type: &'a str,
    /// For example `2`.
    pub version: &'a str,
    /// The subscription's.
    pub condition: &'a Condition,
    /// Looks up users by id.
    pub user: &'a dyn Fn(&str) -> SampleUser,
    /// The time of the event.
    pub now: Timestamp,
    /// Grows with each sample: makes ids differ, and picks among variants.
    pub serial: u64,
}

impl std::fmt::Debug for SampleRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SampleRequest").field("type", &self.subscription_type).finish_non_exhaustive()
    }
}

/// The JSON text of `event` (or, for batched types, `events` with its brackets).
pub fn event(request: &SampleRequest<'_>) -> String {
    let mut text = String::from("{");
    for (name, value) in request.condition.iter() {
        let _ = write!(text, "{}:{},", serde_json::Value::from(name), serde_json::Value::from(value));
    }
    let _ = write!(text, "\"id\":\"{}\"}}", request.serial);
    text
}
