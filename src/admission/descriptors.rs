//! How many sockets and files this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::debug;

/// As many as the systemd unit allows: more than all listeners, shards and sinks together use.
const DESCRIPTORS: u64 = 65_536;

/// Raises the soft limit, which is often 1,024, to what the daemon may need and the system allows. Listeners must
/// not run out of descriptors before their own limits take effect.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_none_or(|current| current >= allowed) {
        return;
    }
    let raised = Rlimit { current: Some(allowed), maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        debug!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_what_the_system_allows() {
        let before = getrlimit(Resource::Nofile);
        // Enough for the other tests of this process.
        setrlimit(Resource::Nofile, Rlimit { current: Some(1_024), ..before }).unwrap();
        raise_descriptor_limit();
        let after = getrlimit(Resource::Nofile);
        assert_eq!(
            after.current,
            Some(before.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS)))
        );
        assert_eq!(after.maximum, before.maximum);
    }
}
