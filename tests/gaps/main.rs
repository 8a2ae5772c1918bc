//! Gaps told truly: each cause against a ledger of what was sent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

#[path = "../common/mod.rs"]
mod common;
mod ledger;
mod process;
mod shards;
mod webhooks;
