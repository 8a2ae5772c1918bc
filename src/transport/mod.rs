//! Bringing events in: each transport hands what it accepts to the store, and nothing else.

mod hear;
mod notification;
pub mod webhook;
pub mod websocket;

pub use self::hear::Hear;
