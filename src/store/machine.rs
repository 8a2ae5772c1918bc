//! Clocks of the machine: since boot, and since the runtime began.

use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use super::age::Tick;

/// Tells the wall-clock time.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Tells the machine's clock since boot.
pub type Ticks = Arc<dyn Fn() -> Tick + Send + Sync>;

/// Id of the current boot ("random(4)").
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Milliseconds since boot by the machine's clock, which counts while it sleeps and cannot be set (`CLOCK_BOOTTIME`).
pub fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let millis = now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000);
    u64::try_from(millis).unwrap_or(0)
}

/// [`since_boot`] with the name of the boot.
pub fn ticks() -> Ticks {
    // With a new id the start counts as one after a boot, which lets less time pass, never more.
    let boot: Arc<str> = match fs::read_to_string(BOOT_ID) {
        Ok(id) => id.trim().into(),
        Err(_) => uuid::Uuid::new_v4().to_string().into(),
    };
    Arc::new(move || Tick { boot: Arc::clone(&boot), since_boot: since_boot() })
}

/// Time since the first call, which is to be right before the runtime is made: see `model::rhythm`.
pub fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
