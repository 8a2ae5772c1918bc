//! Names of the pages.

/// The manual that the pages belong to.
pub(super) const MANUAL: &str = "eventsubd manual";

/// The file of a page as a person may call it: `check`, `eventsubd-check`, `config`, `eventsubd.toml`, `5`.
pub(super) fn file_name(name: &str) -> String {
    match name {
        "eventsubd" | "1" => "eventsubd.1".to_owned(),
        "config" | "config.toml" | "eventsubd.toml" | "5" => "eventsubd.toml.5".to_owned(),
        name if name.starts_with("eventsubd-") => format!("{name}.1"),
        name => format!("eventsubd-{name}.1"),
    }
}

/// Names under which a person finds the page in this file.
pub(super) fn short(file: &str) -> &str {
    match file {
        "eventsubd.1" => "eventsubd",
        "eventsubd.toml.5" => "config",
        file => file.trim_start_matches("eventsubd-").trim_end_matches(".1"),
    }
}
