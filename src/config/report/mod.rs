//! Problems as people read them: where they are, what is hidden, how they are printed.

pub(in crate::config) mod diagnostic;
pub(in crate::config) mod mask;
pub(in crate::config) mod private;
pub(in crate::config) mod problems;
pub(in crate::config) mod source;
