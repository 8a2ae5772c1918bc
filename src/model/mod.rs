//! Vocabulary of the field, shared by all rooms. ◆
//!
//! Pure data: no runtime, no clock, no I/O, no logging. Imports no other room.

pub mod arrival;
pub mod backoff;
pub mod broadcaster;
pub mod catalog;
pub mod choice;
pub mod cluster;
pub mod connect;
pub mod entry;
pub mod event;
#[cfg(test)]
pub(crate) mod example;
pub mod grants;
pub mod happening;
pub mod hex;
pub mod hint;
pub mod invocation;
pub mod json;
pub mod json_text;
pub mod lapse;
pub mod last_known;
pub mod masking;
pub mod members;
pub mod mode;
pub mod obstacle;
pub mod payload;
pub mod pulse;
pub mod rate;
pub mod readable;
pub mod rhythm;
pub mod route;
pub mod script;
pub mod secret;
pub mod shard;
mod shard_id;
pub mod signature;
pub mod signs;
pub mod sink;
pub mod status;
pub mod subscription;
pub mod subscriptions;
pub mod tally;
pub mod template;
pub mod text;
pub mod time;
pub mod timers;
pub mod webhook;
