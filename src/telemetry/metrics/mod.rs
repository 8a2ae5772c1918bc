//! Metrics, as Prometheus reads them. ◆
//!
//! Owns the name of every metric (`table`), and turns a [`Status`](crate::model::status::Status) into text. It
//! counts nothing: each part counts for itself and publishes the counts with its status, so what a scrape
//! costs, no event pays for. Every series is bounded: labels are names out of the file or of a fixed list.

mod encode;
mod series;
mod table;
#[cfg(test)]
mod tests;

pub use self::encode::Format;
pub use self::series::render;
pub use self::table::{ALL, Kind, Metric, reference};
