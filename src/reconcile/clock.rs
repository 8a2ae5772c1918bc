//! The wall-clock times of what is measured with the monotonic clock.

use std::time::SystemTime;

use tokio::time::Instant;

use crate::model::time::Timestamp;

/// The wall-clock time of an instant.
pub(super) fn timestamp_of(instant: std::time::Instant) -> Timestamp {
    let now = Instant::now().into_std();
    let wall = SystemTime::now();
    let time = match instant.checked_duration_since(now) {
        Some(ahead) => wall.checked_add(ahead),
        None => wall.checked_sub(now.saturating_duration_since(instant)),
    };
    Timestamp(time.unwrap_or(wall))
}

/// Now, by the wall clock.
pub(super) fn wall() -> Timestamp {
    Timestamp(SystemTime::now())
}
