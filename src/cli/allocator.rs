//! Settings of glibc's allocator for the daemon.
//!
//! With an arena for each thread, the daemon takes 15 MiB more at full speed and is slower: events are allocated in one
//! thread and freed in another. Large blocks get mappings of their own, so that the system has them back once they are freed.
//!
//! glibc reads these settings only when a program starts, so the daemon starts itself again in the same process.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// The settings, as variables that programs of sinks do not get.
const SETTINGS: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")];
/// Another way to set them.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Starts the program again with the settings, unless there are some. If that fails, it runs without them.
///
/// To be called before anything is opened or started.
pub(super) fn restart_with_settings() {
    if cfg!(not(target_env = "gnu")) || has_settings(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let _ = command.args(arguments).envs(SETTINGS).exec();
}

/// Returns whether the environment has settings, of a person or of this program before it started again.
fn has_settings(is_set: impl Fn(&str) -> bool) -> bool {
    is_set(TUNABLES) || SETTINGS.iter().any(|(name, _)| is_set(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_starts_again_once_and_keeps_the_settings_of_a_person() {
        assert!(!has_settings(|_| false));
        for (name, _) in SETTINGS {
            assert!(has_settings(|set| set == name), "{name}");
        }
        assert!(has_settings(|set| set == "GLIBC_TUNABLES"));
        assert!(!has_settings(|set| set == "MALLOC_CHECK_"));
    }
}
