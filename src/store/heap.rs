//! The memory that the allocator holds without using it.
//!
//! A burst of events leaves free blocks between those that live on, and glibc gives back by itself only what is free at the
//! end of its heap.

/// Gives free memory back to the system: a millisecond for each few megabytes, in which nobody else can allocate. Does nothing
/// with another C library than glibc.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no library offers the call as a safe one")]
pub(super) fn trim() {
    // SAFETY: the call takes no pointer, and leaves all blocks in use as they are ("malloc_trim(3)").
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn trim() {}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::fs;

    use super::*;

    /// Much more than other tests of this process take or give back meanwhile, in MiB.
    const SWOLLEN: usize = 512;

    fn resident_mib() -> usize {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib / 1_024
    }

    #[test]
    fn free_blocks_between_others_are_given_back() {
        let block = || Some(vec![1_u8; 1_024]);
        let mut blocks: Vec<Option<Vec<u8>>> = (0..SWOLLEN * 1_024).map(|_| block()).collect();
        for (number, block) in blocks.iter_mut().enumerate() {
            if number % 64 != 0 {
                *block = None;
            }
        }
        let before = resident_mib();
        trim();
        let after = resident_mib();
        assert!(after + SWOLLEN / 2 < before, "{before} MiB, then {after}");
        drop(blocks);
    }
}
