//! Sections that need more than a check of each key: files that they name, and keys that go together.

pub(in crate::config) mod admin;
pub(in crate::config) mod authorize;
pub(in crate::config) mod cluster;
pub(in crate::config) mod directories;
pub(in crate::config) mod pins;
pub(in crate::config) mod secrets;
pub(in crate::config) mod sinks;
pub(in crate::config) mod template;
pub(in crate::config) mod webhook;
