//! Every key of the file: the table, the checks of values, and the layers that values come from.

pub(in crate::config) mod check;
pub(in crate::config) mod environment;
pub(in crate::config) mod layers;
pub(in crate::config) mod log;
pub(in crate::config) mod schema;
pub(in crate::config) mod table;
pub(in crate::config) mod typed;
pub(in crate::config) mod url;
pub(in crate::config) mod value;
