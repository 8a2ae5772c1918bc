//! The clocks of this host.

use std::time::{Duration, SystemTime};

use super::lease::Moment;
use crate::model::time::Timestamp;
use crate::store::since_boot;

/// Time since the boot of the machine, which goes on while the process or the machine is suspended.
pub(super) fn now() -> Moment {
    Duration::from_millis(since_boot())
}

/// The wall clock, which may be set.
pub(super) fn wall() -> Timestamp {
    Timestamp(SystemTime::now())
}
