//! Bringing events out.
