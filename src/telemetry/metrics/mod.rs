//! Metrics for Prometheus. ◆
//!
//! Owns the name of every metric (`table`), and turns a [`Status`](crate::model::status::Status) into text. Counts
//! nothing itself: each part counts and publishes the counts with its status, and no event pays for a scrape. The
//! number of series is bounded: labels are names from the file or from a fixed list.

mod encode;
mod series;
mod table;
#[cfg(test)]
mod tests;

pub use self::encode::Format;
pub use self::series::render;
pub use self::table::{ALL, Kind, Metric, reference};
