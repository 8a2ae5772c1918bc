//! Several hosts with one file, over NATS JetStream: one of them leads, the others stand by.
//!
//! Owns this host's presence, the lease, which host is assigned what, and the values that a new leader takes over. It never talks to Twitch: it says
//! who may ([`Leadership`](crate::model::cluster::Leadership), [`Gate`]). At a crash the keys of this process end after
//! three seconds, and another host leads.

mod age;
mod alone;
mod ask;
mod assign;
#[cfg(test)]
mod assign_tests;
mod assigner;
mod bound;
mod clock;
mod era;
mod gate;
mod handover;
mod health;
mod hints;
mod lease;
#[cfg(test)]
mod lease_tests;
mod links;
mod log;
mod nats;
mod offset;
mod own_keys;
mod parts;
mod place;
mod places;
mod presence;
mod remembered;
mod report;
mod run;
mod saving;
mod self_binding;
mod sessions;
mod shared;
mod sight;
mod standing;
mod term;
mod values;

pub use self::ask::{Asked, Reply};
pub use self::assign::{ShardWork, Work};
pub use self::gate::Gate;
pub use self::links::{LocalShards, ShardEnds, ShardLinks};
pub use self::log::{
    Acknowledged, Feed, FeedState, FeedTask, Following, LettersError, LogBatch, LogError, LogLimits,
    LogReader, ReadError, SharedLetters, SharedLog, Unreadable, feed, is_shared,
};
pub use self::nats::{ClusterError, NatsReport, examine_nats};
pub use self::own_keys::HostFacts;
pub use self::place::{Mark, PlaceValue, Progress};
pub use self::places::{PlaceKeeper, Places};
pub use self::remembered::RememberedShards;
pub use self::run::{Cluster, ClusterHandle, Inputs, cluster};
pub use self::saving::SaveError;
pub use self::sessions::{HostSocket, HostSockets};
