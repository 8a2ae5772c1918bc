//! One file to one validated configuration.
