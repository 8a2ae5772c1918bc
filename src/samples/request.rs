//! Request for a sample.

use super::series::Happening;
use crate::model::subscription::Condition;
use crate::model::time::Timestamp;

/// A user, as samples need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleUser {
    /// Twitch's id of the user, as a rule digits.
    pub id: String,
    /// The name in lower case, as in the channel's address.
    pub login: String,
    /// The name as it is shown.
    pub name: String,
}

/// The event to make.
pub struct SampleRequest<'a> {
    /// For example `channel.follow`.
    pub subscription_type: &'a str,
    /// For example `2`.
    pub version: &'a str,
    /// The subscription's condition: the event speaks of the users and things named here.
    pub condition: &'a Condition,
    /// Looks up users by id. It is asked for the users of the condition and for the others in the event
    /// (viewers, moderators, further channels), whose ids come from a small fixed set.
    pub user: &'a dyn Fn(&str) -> SampleUser,
    /// When the event happens; the times in it are relative to this.
    pub now: Timestamp,
    /// Grows with each sample: makes ids differ, and picks among variants.
    pub serial: u64,
    /// The happening that the event belongs to, such as one poll; its events share ids and users. `None`: the event
    /// stands alone.
    pub happening: Option<Happening>,
}
