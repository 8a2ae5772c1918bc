//! `eventsubd` keeps Twitch EventSub subscriptions alive and hands every event to your programs.
//!
//! The library holds everything; the binary only calls `cli`. `ARCHITECTURE.md` has the map and
//! the invariants; `tests/tidy.rs` holds who may import whom.

/// Test modules that the library shares with `tests/` name it so.
#[cfg(test)]
extern crate self as eventsubd;

pub mod admin;
pub mod admission;
pub mod auth;
pub mod cli;
#[cfg(feature = "nats")]
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod delivery;
pub mod gaps;
pub mod helix;
pub mod invite;
pub mod model;
pub mod platform;
pub mod reconcile;
pub mod samples;
pub mod sandbox;
pub mod store;
pub mod telemetry;
pub mod transport;
