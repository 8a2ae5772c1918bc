//! Writer of man pages: sections, paragraphs, items, examples.
//!
//! Text between backticks is printed in bold.

use clap_mangen::roff::{Inline, Roff, bold, roman};

/// Builder of a page.
#[derive(Debug, Default)]
pub(super) struct Page {
    roff: Roff,
    /// Parts rendered by `clap_mangen`, between those of ours.
    done: String,
}

impl Page {
    /// Starts a page with its header line.
    pub(super) fn new(title: &str, section: &str, manual: &str) -> Self {
        let mut page = Self::default();
        let source = concat!("eventsubd ", env!("CARGO_PKG_VERSION"));
        page.roff.control("TH", [title.to_uppercase().as_str(), section, "\"\"", source, manual]);
        // Keys, paths and commands are copied by people: no hyphenation, and no justification.
        page.roff.control("nh", []).control("ad", ["l"]);
        page
    }

    /// Writes the `NAME` section, which `whatis` and `apropos` read.
    pub(super) fn name(&mut self, name: &str, about: &str) {
        self.section("NAME");
        self.roff.text([roman(format!("{name} - {}", lower(about)))]);
    }

    pub(super) fn section(&mut self, heading: &str) {
        self.roff.control("SH", [heading]);
    }

    pub(super) fn subsection(&mut self, heading: &str) {
        self.roff.control("SS", [heading]);
    }

    pub(super) fn paragraph(&mut self, text: &str) {
        self.roff.control("PP", []);
        self.roff.text(prose(text));
    }

    /// Writes the first paragraph of a section.
    pub(super) fn text(&mut self, text: &str) {
        self.roff.text(prose(text));
    }

    /// Writes a word or a line with its explanation.
    pub(super) fn item(&mut self, tag: &str, text: &str) {
        self.roff.control("TP", []);
        self.roff.text(prose(tag));
        self.roff.text(prose(text));
    }

    /// Writes lines verbatim.
    pub(super) fn code(&mut self, text: &str) {
        self.roff.control("RS", ["4"]).control("EX", []);
        for line in text.trim_end().lines() {
            // Some formatters take an empty line for a paragraph break, but not an empty text.
            self.roff.text([roman(if line.is_empty() { "\u{feff}" } else { line })]);
        }
        self.roff.control("EE", []).control("RE", []);
    }

    /// Appends a part that `clap_mangen` has rendered.
    pub(super) fn rendered(&mut self, part: &str) {
        let ours = std::mem::take(&mut self.roff);
        self.done.push_str(&body(&ours));
        self.done.push_str(&backticks(part));
        if !part.ends_with('\n') {
            self.done.push('\n');
        }
    }

    /// Returns the whole source, in ASCII.
    pub(super) fn finish(mut self) -> String {
        self.rendered("");
        let preamble = Roff::new().render();
        let mut page = format!("{preamble}{}", self.done.trim_end());
        page.push('\n');
        page.chars().fold(String::with_capacity(page.len()), |mut text, c| {
            match c {
                '\u{feff}' => text.push_str("\\&"),
                c if c.is_ascii() => text.push(c),
                c => text.push_str(&format!("\\[u{:04X}]", u32::from(c))),
            }
            text
        })
    }
}

/// Returns rendered roff without the lines that appear once at the beginning of a page.
pub(super) fn body(roff: &Roff) -> String {
    without_preamble(&roff.render()).to_owned()
}

/// Removes those lines from a text of `clap_mangen`.
pub(super) fn without_preamble(text: &str) -> &str {
    let preamble = Roff::new().render();
    text.strip_prefix(&preamble).unwrap_or(text)
}

/// Renders text between backticks in bold.
fn prose(text: &str) -> Vec<Inline> {
    text.split('`')
        .enumerate()
        .filter(|(_, part)| !part.is_empty())
        .map(|(index, part)| if index % 2 == 1 { bold(part) } else { roman(part) })
        .collect()
}

/// Renders backticks in text that is roff already.
fn backticks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        for (index, part) in line.split('`').enumerate() {
            out.push_str(["", "\\fB", "\\fR"][if index == 0 { 0 } else { 2 - index % 2 }]);
            out.push_str(part);
        }
        out.push('\n');
    }
    out
}

/// Returns the text as part of a sentence.
pub(super) fn lower(text: &str) -> String {
    change_first(text, |c| c.to_lowercase().collect())
}

/// Returns the text as a sentence: a capital at the beginning, a full stop at the end.
pub(super) fn sentence(text: &str) -> String {
    let text = change_first(text, |c| c.to_uppercase().collect());
    if text.ends_with(['.', '?', '!']) { text } else { format!("{text}.") }
}

fn change_first(text: &str, change: impl Fn(char) -> String) -> String {
    let mut chars = text.chars();
    // Abbreviations such as `HTTP` stay as they are, and so does code.
    let stays = text.chars().nth(1).is_some_and(char::is_uppercase);
    match chars.next() {
        Some(first) if !stays => format!("{}{}", change(first), chars.as_str()),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_roff() {
        let mut page = Page::new("x", "1", "Things");
        page.name("x", "Does `it`");
        page.text("say `x --loud`, \"don't\"…");
        page.code(".hidden\n\n'x'\\");
        page.rendered("rendered `by` others\n");
        let text = page.finish();
        assert!(text.is_ascii(), "{text}");
        for part in [
            ".TH X 1 \"\" \"eventsubd ",
            "\nx \\- does `it`\n",
            "say \\fBx \\-\\-loud\\fR, \"don\\*(Aqt\"\\[u2026]\n",
            "\n\\&.hidden\n\\&\n",
            "\nrendered \\fBby\\fR others\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert_eq!(text.matches(".ds Aq").count(), 2, "the preamble stands there once:\n{text}");
    }

    #[test]
    fn sentences_have_capitals_and_stops() {
        assert_eq!(sentence("the API"), "The API.");
        assert_eq!(sentence("`x` is"), "`x` is.");
        assert_eq!(lower("HTTP requests"), "HTTP requests");
        assert_eq!(lower("Show it"), "show it");
    }
}
