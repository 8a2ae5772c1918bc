//! Lines of the report of `check`.

use serde::Serialize;

/// How one part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mark {
    Good,
    Remark,
    Bad,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    pub(super) part: &'static str,
    pub(super) mark: Mark,
    pub(super) text: String,
}

pub(super) fn line(part: &'static str, mark: Mark, text: impl Into<String>) -> Line {
    Line { part, mark, text: text.into() }
}
