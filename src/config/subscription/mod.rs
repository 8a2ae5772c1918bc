//! `[[subscription]]`: from entries to subscriptions.

pub(in crate::config) mod entry;
pub(in crate::config) mod expand;
pub(in crate::config) mod fields;
pub(in crate::config) mod login;
pub(in crate::config) mod types;
