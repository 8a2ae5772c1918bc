//! When events may have been missed, and telling it: an event of the type `eventsubd.gap`, stored and handed on like any
//! other, so that programs can read again the state that they follow.
//!
//! Owns the memory of how long everything is known to have delivered, which a restart goes on from. After a crash that
//! memory is up to a few seconds old, so a gap is told as longer than it was, never as shorter. It never asks how things
//! are: it reads what the parts publish, at every change and every few seconds.
//!
//! `catch_up` mends what can be mended: it asks Twitch for the state of channels, and stores what has changed.

mod breaks;
mod catch_up;
mod event;
mod gap;
mod jobs;
mod memory;
mod run;
mod sights;
mod sources;
mod timeline;
mod view;
mod watcher;

pub use self::catch_up::{CatchUpOptions, CatchUpTimings, LatestEvents};
pub use self::run::{Gaps, GapsHandle, gaps};
pub use self::sources::{GapHosts, GapSources, SharedText};
