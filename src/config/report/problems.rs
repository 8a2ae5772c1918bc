//! The problems of one load while they are collected.
//!
//! Bounded: a hostile file has as many problems as it has bytes, but nobody reads more than a few.

use super::diagnostic::{Diagnostic, Level, Related};
use super::source::{Place, Sources};

/// Most errors, and most warnings, that are kept; the rest is counted.
const MAX_KEPT: usize = 100;

/// The place of a problem.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) enum At {
    Nowhere,
    Place(Place),
    Variable(String),
}

impl From<Place> for At {
    fn from(place: Place) -> Self {
        Self::Place(place)
    }
}

impl From<&At> for At {
    fn from(at: &At) -> Self {
        at.clone()
    }
}

/// The order of the report: the file, the files that it names, the environment, the rest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Place(Place),
    Variable(String),
    Nowhere,
}

#[derive(Default)]
struct Kept {
    list: Vec<(Order, Diagnostic)>,
    more: usize,
}

/// Collects problems, and the texts that they point into.
pub(in crate::config) struct Problems {
    pub(in crate::config) sources: Sources,
    errors: Kept,
    warnings: Kept,
    /// Takes what goes beyond the limit.
    spare: Diagnostic,
}

impl Problems {
    pub(in crate::config) fn new() -> Self {
        Self {
            sources: Sources::default(),
            errors: Kept::default(),
            warnings: Kept::default(),
            spare: Diagnostic::new(Level::Error, ""),
        }
    }

    /// Adds an error; hints can be put on the result.
    pub(in crate::config) fn error(
        &mut self,
        at: impl Into<At>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Level::Error, at.into(), message.into(), None)
    }

    /// Adds a warning; hints can be put on the result.
    pub(in crate::config) fn warning(
        &mut self,
        at: impl Into<At>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Level::Warning, at.into(), message.into(), None)
    }

    /// Adds a problem that has a second place.
    pub(in crate::config) fn pair(
        &mut self,
        level: Level,
        at: impl Into<At>,
        message: impl Into<String>,
        related: (&At, &str),
    ) -> &mut Diagnostic {
        self.add(level, at.into(), message.into(), Some(related))
    }

    fn add(
        &mut self,
        level: Level,
        at: At,
        message: String,
        related: Option<(&At, &str)>,
    ) -> &mut Diagnostic {
        let kept = match level {
            Level::Error => &mut self.errors,
            Level::Warning => &mut self.warnings,
        };
        if kept.list.len() >= MAX_KEPT {
            kept.more += 1;
            self.spare.hints.clear();
            return &mut self.spare;
        }
        let mut diagnostic = Diagnostic::new(level, message);
        let order = match at {
            At::Nowhere => Order::Nowhere,
            At::Place(place) => {
                diagnostic.location = self.sources.locate(place);
                Order::Place(place)
            }
            At::Variable(name) => {
                diagnostic.variable = Some(name.clone());
                Order::Variable(name)
            }
        };
        match related {
            Some((At::Place(place), label)) => {
                diagnostic.related =
                    self.sources.locate(*place).map(|location| Related { label: label.to_owned(), location });
            }
            Some((At::Variable(name), label)) => {
                diagnostic.hints.push(format!("{label}: environment variable {name}"));
            }
            Some((At::Nowhere, _)) | None => {}
        }
        let at = kept.list.len();
        kept.list.push((order, diagnostic));
        &mut kept.list[at].1
    }

    /// Returns whether there is no error so far.
    pub(in crate::config) fn is_clean(&self) -> bool {
        self.errors.list.is_empty()
    }

    /// Errors and warnings, each by position.
    pub(in crate::config) fn into_sorted(self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        (self.errors.into_sorted(Level::Error), self.warnings.into_sorted(Level::Warning))
    }
}

impl Kept {
    fn into_sorted(mut self, level: Level) -> Vec<Diagnostic> {
        self.list.sort_by(|a, b| a.0.cmp(&b.0));
        let mut list: Vec<Diagnostic> = self.list.into_iter().map(|(_, diagnostic)| diagnostic).collect();
        if self.more > 0 {
            let kind = match level {
                Level::Error => "errors",
                Level::Warning => "warnings",
            };
            list.push(Diagnostic::new(level, format!("and {} more {kind}", self.more)));
        }
        list
    }
}

/// A problem that has no place yet, and what to do about it.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct Complaint {
    pub(in crate::config) message: String,
    pub(in crate::config) hint: Option<String>,
}

impl Complaint {
    pub(in crate::config) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}
