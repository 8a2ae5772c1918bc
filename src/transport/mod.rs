//! Bringing events in.

pub mod websocket;
