//! Problems of a configuration, as people and programs read them. ◆
//!
//! Pure: a diagnostic owns the line that it shows, so that it outlives the text it came from. It
//! never holds the text of a secret: lines arrive masked.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level as Title, Origin, Renderer, Snippet};
use serde::Serialize;

use crate::model::text::{LONGEST_LINE, one_line};

/// Severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, but may not do what was meant.
    Warning,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file's name as it was given.
    pub file: String,
    /// Line number, from 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line without its end, with secrets hidden; of a long line the surroundings of the span.
    pub text: String,
    /// The bytes of [`Self::text`] that are meant; may be empty.
    pub span: Range<usize>,
}

/// A second place that belongs to a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    pub label: String,
    pub location: Location,
}

/// A problem in the configuration, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub level: Level,
    /// The problem: lower case, no full stop.
    pub message: String,
    /// `None` means that the problem is not in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// The environment variable that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// A second place, such as the first of two equal entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<Related>,
    /// Steps that solve it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

impl Diagnostic {
    /// A problem that has no place.
    pub fn new(level: Level, message: impl Into<String>) -> Self {
        Self {
            level,
            message: message.into(),
            location: None,
            variable: None,
            related: None,
            hints: Vec::new(),
        }
    }

    pub fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hints.push(hint.into());
        self
    }

    /// One line: `config.toml:12:8: unknown key …`.
    pub fn summary(&self) -> String {
        match (&self.location, &self.variable) {
            (Some(at), _) => {
                format!("{}:{}:{}: {}", one_line(&at.file, LONGEST_LINE), at.line, at.column, self.message)
            }
            (None, Some(name)) => {
                format!("environment variable {}: {}", one_line(name, LONGEST_LINE), self.message)
            }
            (None, None) => self.message.clone(),
        }
    }

    /// The problem with its line, a caret and its hints, over several lines, with colours for a
    /// terminal when `color` is set. Ends without a line break.
    pub fn render(&self, color: bool) -> String {
        let level = match self.level {
            Level::Error => Title::ERROR,
            Level::Warning => Title::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(&self.message));
        if let Some(location) = &self.location {
            group = group.element(snippet(location, AnnotationKind::Primary, None));
        }
        if let Some(name) = &self.variable {
            group = group.element(Origin::path(format!("environment variable {name}")));
        }
        if let Some(Related { label, location }) = &self.related {
            group = group.element(snippet(location, AnnotationKind::Context, Some(label)));
        }
        for hint in &self.hints {
            group = group.element(Title::HELP.message(hint));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        // Lines are cut to a window already: cutting them again would be wrong on wide text.
        let mut text = renderer.term_width(1000).render(&[group]);
        let related = self.related.as_ref().map(|related| &related.location);
        for location in self.location.iter().chain(related) {
            // The renderer counts within the text that it gets, which may have been cut.
            let counted = location.text[..location.span.start].chars().count() + 1;
            if counted != location.column {
                let place = |column| format!("{}:{}:{column}", location.file, location.line);
                text = text.replacen(&place(counted), &place(location.column), 1);
            }
        }
        text
    }
}

fn snippet<'a>(
    location: &'a Location,
    kind: AnnotationKind,
    label: Option<&'a String>,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let annotation = kind.span(location.span.clone()).label(label.map(String::as_str));
    Snippet::source(&location.text).path(&location.file).line_start(location.line).annotation(annotation)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// A word of the user within a message: in backticks, short, on one line.
pub(in crate::config) fn quote(text: &str) -> String {
    const MAX: usize = 80;
    format!("`{}`", one_line(text, MAX))
}

/// The candidate that was probably meant by a misspelt word.
pub(in crate::config) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A longer word has room for more typing errors; nothing is close to everything.
    let word: String = word.chars().take(100).collect::<String>().to_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn sample() -> Diagnostic {
        let mut diagnostic = Diagnostic::new(Level::Error, "unknown key `brodcaster`");
        diagnostic.location = Some(Location {
            file: "config.toml".into(),
            line: 12,
            column: 3,
            text: "\t\u{e9}brodcaster = \"日本\"\u{1b}".into(),
            span: 3..13,
        });
        diagnostic.hint("did you mean `broadcaster`?").hint("a second hint\nof two lines");
        diagnostic
    }

    fn check(text: &str, expect: &Expect) {
        expect.assert_eq(&format!("{text}\n"));
    }

    #[test]
    fn rendered_without_colour() {
        check(
            &sample().render(false),
            &expect![[r#"
                error: unknown key `brodcaster`
                  --> config.toml:12:3
                   |
                12 |     ébrodcaster = "日本"␛
                   |      ^^^^^^^^^^
                   |
                   = help: did you mean `broadcaster`?
                   = help: a second hint
                           of two lines
            "#]],
        );
    }

    #[test]
    fn rendered_with_colour() {
        check(
            &format!("{:?}", sample().render(true)),
            &expect![[r#"
                "\u{1b}[1m\u{1b}[91merror\u{1b}[0m\u{1b}[1m: unknown key `brodcaster`\u{1b}[0m\n  \u{1b}[1m\u{1b}[94m--> \u{1b}[0mconfig.toml:12:3\n   \u{1b}[1m\u{1b}[94m|\u{1b}[0m\n\u{1b}[1m\u{1b}[94m12\u{1b}[0m \u{1b}[1m\u{1b}[94m|\u{1b}[0m     ébrodcaster = \"日本\"␛\n   \u{1b}[1m\u{1b}[94m|\u{1b}[0m      \u{1b}[1m\u{1b}[91m^^^^^^^^^^\u{1b}[0m\n   \u{1b}[1m\u{1b}[94m|\u{1b}[0m\n   \u{1b}[1m\u{1b}[94m= \u{1b}[0m\u{1b}[1mhelp\u{1b}[0m: did you mean `broadcaster`?\n   \u{1b}[1m\u{1b}[94m= \u{1b}[0m\u{1b}[1mhelp\u{1b}[0m: a second hint\n           of two lines"
            "#]],
        );
    }

    #[test]
    fn a_second_place_and_a_variable() {
        let mut diagnostic = sample();
        diagnostic.related =
            Some(Related { label: "first here".into(), location: diagnostic.location.clone().expect("set") });
        check(
            &diagnostic.render(false),
            &expect![[r#"
                error: unknown key `brodcaster`
                  --> config.toml:12:3
                   |
                12 |     ébrodcaster = "日本"␛
                   |      ^^^^^^^^^^
                   |
                  ::: config.toml:12:3
                   |
                12 |     ébrodcaster = "日本"␛
                   |      ---------- first here
                   |
                   = help: did you mean `broadcaster`?
                   = help: a second hint
                           of two lines
            "#]],
        );
        let mut diagnostic = Diagnostic::new(Level::Warning, "unknown");
        diagnostic.variable = Some("EVENTSUBD_X".into());
        diagnostic.hint("hint");
        check(
            &diagnostic.render(false),
            &expect![[r#"
            warning: unknown
            --> environment variable EVENTSUBD_X
             = help: hint
        "#]],
        );
        check(
            &diagnostic.summary(),
            &expect![[r#"
            environment variable EVENTSUBD_X: unknown
        "#]],
        );
    }

    #[test]
    fn one_line_and_json() {
        check(
            &sample().summary(),
            &expect![[r#"
            config.toml:12:3: unknown key `brodcaster`
        "#]],
        );
        check(
            &serde_json::to_string_pretty(&sample()).expect("json"),
            &expect![[r#"
            {
              "level": "error",
              "message": "unknown key `brodcaster`",
              "location": {
                "file": "config.toml",
                "line": 12,
                "column": 3,
                "text": "\tébrodcaster = \"日本\"\u001b",
                "span": {
                  "start": 3,
                  "end": 13
                }
              },
              "hints": [
                "did you mean `broadcaster`?",
                "a second hint\nof two lines"
              ]
            }
        "#]],
        );
    }

    #[test]
    fn words_of_the_user_cannot_drive_a_terminal() {
        assert_eq!(quote("a\u{1b}[31m\n"), "`a\\x1b[31m\\n`");
        assert_eq!(quote(&"é".repeat(200)).chars().count(), 83);
    }

    #[test]
    fn suggestions_are_close_or_none() {
        let known = ["broadcaster", "broadcaster_file", "type", "id"];
        assert_eq!(closest("brodcaster", known), Some("broadcaster"));
        assert_eq!(closest("Type", known), Some("type"));
        assert_eq!(closest("xyz", known), None);
        assert_eq!(closest("x", known), None);
        assert_eq!(closest("", known), None);
    }
}
