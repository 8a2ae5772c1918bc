//! Bringing events in: each transport hands what it accepts to the store, and nothing else.

pub mod websocket;
