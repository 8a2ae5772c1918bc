//! Problems that would keep sinks from working, found without starting them, such as folders that do not exist.

use std::path::Path;

use super::make::{SinkError, make, selector};
use super::sink::{FileOptions, not_a_file};
use super::{DeliveryOptions, SinkKind, SinkOptions};

/// Finds what would keep sinks from working, without touching anything.
pub fn check_sinks(sinks: &[SinkOptions], options: &DeliveryOptions) -> Vec<SinkError> {
    sinks.iter().filter_map(|sink| check(sink, options).err()).collect()
}

fn check(sink: &SinkOptions, options: &DeliveryOptions) -> Result<(), SinkError> {
    selector(sink)?;
    let name = sink.name.clone();
    match &sink.kind {
        SinkKind::Stdout => Ok(()),
        SinkKind::File(FileOptions { path, .. }) => {
            let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() {
                return Err(SinkError::NoFolder { name, folder: folder.to_owned() });
            }
            match not_a_file(path) {
                Some(message) => Err(SinkError::Make { name, message }),
                None => Ok(()),
            }
        }
        SinkKind::Command(_)
        | SinkKind::Http(_)
        | SinkKind::Nats(_)
        | SinkKind::Mqtt(_)
        | SinkKind::Redis(_) => make(sink, options).map(drop),
    }
}
