//! A stand-in for Twitch, on loopback: authentication, API, conduits, WebSocket sessions.
#![allow(missing_docs, clippy::unused_async, clippy::needless_pass_by_value, reason = "skeleton")]

pub mod samples;
