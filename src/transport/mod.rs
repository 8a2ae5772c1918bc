//! Bringing events in: each transport hands what it accepts to the store, and nothing else.

mod hint_callback;
mod notification;
pub mod webhook;
pub mod websocket;

pub use self::hint_callback::HintCallback;
