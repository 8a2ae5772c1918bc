//! Sample events for every type of the catalogue.
#![allow(missing_docs, clippy::needless_pass_by_value, reason = "skeleton")]

use crate::model::subscription::Condition;
use crate::model::time::Timestamp;

/// What a sample needs to know of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleUser {
    pub id: String,
    pub login: String,
    pub name: String,
}

/// What the sample is made for.
#[allow(missing_debug_implementations)]
pub struct SampleRequest<'a> {
    pub subscription_type: &'a str,
    pub version: &'a str,
    pub condition: &'a Condition,
    /// Looks up users by id.
    pub user: &'a dyn Fn(&str) -> SampleUser,
    pub now: Timestamp,
    /// Grows with each sample: makes ids differ, and picks among variants.
    pub serial: u64,
}

/// The JSON text of `event` (or, for batched types, `events` with its brackets).
pub fn event(_request: &SampleRequest<'_>) -> String {
    todo!()
}
