//! The texts that diagnostics point into: the file itself and the login files that it names.
//!
//! Owns the way from a byte range to file, line and column. It must never hand out the text of a
//! secret: the parts of a line that hold one are replaced before anybody sees them. Nothing here
//! outlives a load.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use super::diagnostic::Location;
use super::mask;

/// Lines longer than this are cut to the surroundings of the span (in characters).
const MAX_LINE: usize = 140;
/// Characters of a long line that are kept before the span.
const LEAD: usize = 40;
/// Placeholder for the text of a secret.
pub(in crate::config) const HIDDEN: &str = "[hidden]";

/// A byte range of one of the texts. Small, since every login has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) struct Place {
    pub(in crate::config) source: u32,
    pub(in crate::config) start: u32,
    pub(in crate::config) end: u32,
}

impl Place {
    /// A place in a text; texts are shorter than 4 GiB, since files are read up to a limit.
    pub(in crate::config) fn new(source: u32, span: Range<usize>) -> Self {
        let clamp = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Self { source, start: clamp(span.start), end: clamp(span.end) }
    }
}

struct SourceText {
    name: String,
    text: Arc<str>,
    may_hold_secrets: bool,
    line_starts: OnceCell<Vec<u32>>,
    hidden: OnceCell<Vec<Range<usize>>>,
}

/// All texts of one load; the first one is the configuration file.
#[derive(Default)]
pub(in crate::config) struct Sources(Vec<SourceText>);

impl Sources {
    /// Adds a text under the name that messages give it.
    pub(in crate::config) fn add(&mut self, name: String, text: Arc<str>, may_hold_secrets: bool) -> u32 {
        self.0.push(SourceText {
            name,
            text,
            may_hold_secrets,
            line_starts: OnceCell::new(),
            hidden: OnceCell::new(),
        });
        u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX)
    }

    /// The part of a TOML string at `place` that holds these bytes of its value.
    pub(in crate::config) fn within_string(&self, place: Place, range: Range<usize>) -> Place {
        let (start, end) = (place.start as usize, place.end as usize);
        let Some(raw) = self.0.get(place.source as usize).and_then(|source| source.text.get(start..end))
        else {
            return place;
        };
        let from = start + raw_offset(raw, range.start);
        let to = start + raw_offset(raw, range.end);
        Place::new(place.source, from..to.max(from))
    }

    /// The place as people read it; `None` for a source that does not exist.
    pub(in crate::config) fn locate(&self, place: Place) -> Option<Location> {
        self.0.get(place.source as usize).map(|source| source.locate(place))
    }
}

impl SourceText {
    fn line_starts(&self) -> &[u32] {
        self.line_starts.get_or_init(|| {
            let breaks = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            std::iter::once(0)
                .chain(breaks.map(|(at, _)| u32::try_from(at + 1).unwrap_or(u32::MAX)))
                .collect()
        })
    }

    fn hidden(&self) -> &[Range<usize>] {
        self.hidden
            .get_or_init(|| if self.may_hold_secrets { mask::hidden_ranges(&self.text) } else { Vec::new() })
    }

    fn locate(&self, place: Place) -> Location {
        let text = &*self.text;
        let start = floor(text, place.start as usize);
        let index = self.line_starts().partition_point(|line| *line as usize <= start).saturating_sub(1);
        let line_start = self.line_starts().get(index).map_or(0, |at| *at as usize);
        let line = text[line_start..].split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let start = start.min(line_start + line.len());
        let end = floor(text, place.end as usize).clamp(start, line_start + line.len());
        let column = text[line_start..start].chars().count() + 1;
        let (shown, span) = self.masked(line, line_start, start..end);
        let (text, span) = window(&shown, span);
        Location { file: self.name.clone(), line: index + 1, column, text, span }
    }

    /// The line without the text of secrets, and the span within it.
    fn masked(&self, line: &str, line_start: usize, span: Range<usize>) -> (String, Range<usize>) {
        let mut shown = String::with_capacity(line.len());
        let (mut start, mut end) = (span.start - line_start, span.end - line_start);
        let (original_start, original_end) = (start, end);
        let mut taken = 0;
        let line_end = line_start + line.len();
        let first = self.hidden().partition_point(|range| range.end <= line_start);
        for range in self.hidden()[first..].iter().take_while(|range| range.start < line_end) {
            let from = range.start.max(line_start) - line_start;
            let to = range.end.min(line_end) - line_start;
            if from < taken || from >= to {
                continue;
            }
            shown.push_str(&line[taken..from]);
            let at = shown.len();
            shown.push_str(HIDDEN);
            taken = to;
            let shift = |original: usize, now: usize, edge: usize| {
                if original >= to {
                    shown.len() + (original - to)
                } else if original > from {
                    edge
                } else {
                    now
                }
            };
            (start, end) = (shift(original_start, start, at), shift(original_end, end, shown.len()));
            if original_start == from {
                start = at;
            }
        }
        shown.push_str(&line[taken..]);
        (shown, start..end.max(start))
    }
}

/// Position in a TOML string, as written, of the byte `at` of its value.
fn raw_offset(raw: &str, at: usize) -> usize {
    let quotes = if raw.starts_with("\"\"\"") || raw.starts_with("'''") { 3 } else { 1 };
    let mut raw_at = quotes.min(raw.len());
    if quotes == 3 {
        // A line break right behind the quotes is no part of the value.
        let rest = &raw[raw_at..];
        raw_at += if rest.starts_with("\r\n") { 2 } else { usize::from(rest.starts_with('\n')) };
    }
    if raw.starts_with('\'') {
        return floor(raw, raw_at + at);
    }
    let mut value_at = 0;
    while value_at < at && raw_at < raw.len() {
        let rest = &raw[raw_at..];
        let (taken, made) = escape(rest);
        raw_at += taken;
        value_at += made;
    }
    raw_at
}

/// Length in bytes of the next character of a basic string: as written, and in the value.
fn escape(rest: &str) -> (usize, usize) {
    let Some(after) = rest.strip_prefix('\\') else {
        let length = rest.chars().next().map_or(1, char::len_utf8);
        return (length, length);
    };
    let code = |digits: usize| {
        let code = after.get(1..=digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        (2 + digits, code.and_then(char::from_u32).map_or(1, char::len_utf8))
    };
    match after.chars().next() {
        Some('x') => code(2),
        Some('u') => code(4),
        Some('U') => code(8),
        // A backslash at the end of a line takes all space up to the next character with it.
        Some(c) if c.is_whitespace() => (1 + after.len() - after.trim_start().len(), 0),
        Some(c) => (1 + c.len_utf8(), 1),
        None => (1, 0),
    }
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The surroundings of the span, when the line is long.
fn window(line: &str, span: Range<usize>) -> (String, Range<usize>) {
    if line.len() <= MAX_LINE || line.chars().count() <= MAX_LINE {
        return (line.to_owned(), span);
    }
    let before = line[..span.start].char_indices().rev().take(LEAD).last().map_or(span.start, |(at, _)| at);
    let kept: usize = line[before..].chars().take(MAX_LINE).map(char::len_utf8).sum();
    let after = before + kept;
    let lead = if before > 0 { "…" } else { "" };
    let tail = if after < line.len() { "…" } else { "" };
    let shift = |at: usize| at.clamp(before, after) - before + lead.len();
    (format!("{lead}{}{tail}", &line[before..after]), shift(span.start)..shift(span.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn locate(text: &str, span: Range<usize>) -> Location {
        locate_in(text, span, true)
    }

    fn locate_in(text: &str, span: Range<usize>, may_hold_secrets: bool) -> Location {
        let mut sources = Sources::default();
        let id = sources.add("config.toml".into(), text.into(), may_hold_secrets);
        sources.locate(Place::new(id, span)).expect("known source")
    }

    #[test]
    fn line_and_column_count_characters() {
        let text = "a = 1\r\nß = \"é\" # x\r\n";
        let at = text.find("\"é").expect("there");
        let location = locate_in(text, at..at + 4, false);
        assert_eq!((location.line, location.column), (2, 5));
        assert_eq!(location.text, "ß = \"é\" # x");
        assert_eq!(&location.text[location.span], "\"é\"");
    }

    #[test]
    fn long_lines_are_cut_round_the_span() {
        let text = format!("x = \"{}\" = {}", "é".repeat(5000), "b".repeat(5000));
        let at = text.find("\" =").expect("there") + 2;
        let location = locate_in(&text, at..at + 1, false);
        assert_eq!(location.column, 5008);
        assert_eq!(&location.text[location.span.clone()], "=");
        assert_eq!(location.text.chars().count(), MAX_LINE + 2);
    }

    #[test]
    fn secrets_are_hidden_and_spans_follow() {
        let text = "t = { client_secret = \"hunter2\" }\nclient_secret = \"hunter2\"\n";
        let at = text.find("\"hunter2").expect("there");
        let location = locate(text, at..at + 9);
        assert_eq!(location.text, "t = [hidden]");
        assert_eq!(&location.text[location.span], "[hidden]");
        let at = text.rfind("client_secret").expect("there");
        let location = locate(text, at..at + 13);
        assert_eq!(location.text, "client_secret = [hidden]");
        assert_eq!(&location.text[location.span], "client_secret");
    }

    #[test]
    fn a_part_of_a_value_is_found_in_the_string_that_holds_it() {
        for raw in [
            r#""say \"é\" \u00e9 {{ x }}""#,
            r"'say {{ x }}'",
            "'''\nsay\n{{ x }}\n'''",
            "\"\"\"\nsay \\\n   \\t{{ x }}\"\"\"",
            "\"\"\"{{ x }}\"\"\"",
        ] {
            let text = format!("key = {raw}\n");
            let table: toml::Table = toml::from_str(&text).expect("TOML");
            let value = table["key"].as_str().expect("a text").to_owned();
            let mut sources = Sources::default();
            let id = sources.add("config.toml".into(), text.clone().into(), true);
            let at = value.find("{{").expect("there");
            let place = sources.within_string(Place::new(id, 6..6 + raw.len()), at..at + 7);
            assert_eq!(&text[place.start as usize..place.end as usize], "{{ x }}", "{raw}");
        }
    }

    proptest! {
        #[test]
        fn any_place_of_any_text_can_be_shown(text in "(?s).{0,80}", start in 0usize..100, len in 0usize..50) {
            let location = locate(&text, start..start + len);
            prop_assert!(location.line >= 1 && location.column >= 1);
            prop_assert!(location.text.get(location.span).is_some());
        }

        #[test]
        fn secret_looking_lines_can_be_shown(
            text in "(client_secret|é|=|:|\"\"\"|\\[|\n| |x|'''){0,20}", start in 0usize..100, len in 0usize..50,
        ) {
            let location = locate(&text, start..start + len);
            prop_assert!(location.text.get(location.span).is_some());
        }
    }
}
