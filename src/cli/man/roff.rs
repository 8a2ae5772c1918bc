//! One man page as it is written: sections, paragraphs, items, examples.
//!
//! In texts `code` is what a person types, and comes out bold.

use clap_mangen::roff::{Inline, Roff, bold, roman};

/// A page in the making.
#[derive(Debug, Default)]
pub(super) struct Page {
    roff: Roff,
    /// Parts that others rendered, between those of ours.
    done: String,
}

impl Page {
    /// A page with its header line.
    pub(super) fn new(title: &str, section: &str, manual: &str) -> Self {
        let mut page = Self::default();
        let source = concat!("eventsubd ", env!("CARGO_PKG_VERSION"));
        page.roff.control("TH", [title.to_uppercase().as_str(), section, "\"\"", source, manual]);
        // Keys, paths and commands are to be copied: no hyphens in them, no wide gaps between them.
        page.roff.control("nh", []).control("ad", ["l"]);
        page
    }

    /// The `NAME` section: what `whatis` and `apropos` read.
    pub(super) fn name(&mut self, name: &str, about: &str) {
        self.section("NAME");
        self.roff.text([roman(format!("{name} - {}", lower(about)))]);
    }

    /// Begins a section.
    pub(super) fn section(&mut self, heading: &str) {
        self.roff.control("SH", [heading]);
    }

    /// Begins a part of a section.
    pub(super) fn subsection(&mut self, heading: &str) {
        self.roff.control("SS", [heading]);
    }

    /// A paragraph.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.roff.control("PP", []);
        self.roff.text(prose(text));
    }

    /// The first paragraph of a section.
    pub(super) fn text(&mut self, text: &str) {
        self.roff.text(prose(text));
    }

    /// A word or a line, and what it means.
    pub(super) fn item(&mut self, tag: &str, text: &str) {
        self.roff.control("TP", []);
        self.roff.text(prose(tag));
        self.roff.text(prose(text));
    }

    /// Lines that stay as they are.
    pub(super) fn code(&mut self, text: &str) {
        self.roff.control("RS", ["4"]).control("EX", []);
        for line in text.trim_end().lines() {
            // An empty line of a source is a break to some formatters; an empty text is not.
            self.roff.text([roman(if line.is_empty() { "\u{feff}" } else { line })]);
        }
        self.roff.control("EE", []).control("RE", []);
    }

    /// A part that `clap_mangen` has made.
    pub(super) fn rendered(&mut self, part: &str) {
        let ours = std::mem::take(&mut self.roff);
        self.done.push_str(&body(&ours));
        self.done.push_str(&backticks(part));
        if !part.ends_with('\n') {
            self.done.push('\n');
        }
    }

    /// The whole source, in ASCII.
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

/// What a renderer made, without the lines that stand once at the beginning of a page.
pub(super) fn body(roff: &Roff) -> String {
    without_preamble(&roff.render()).to_owned()
}

/// A text of `clap_mangen` without those lines.
pub(super) fn without_preamble(text: &str) -> &str {
    let preamble = Roff::new().render();
    text.strip_prefix(&preamble).unwrap_or(text)
}

/// With what stands between backticks in bold.
fn prose(text: &str) -> Vec<Inline> {
    text.split('`')
        .enumerate()
        .filter(|(_, part)| !part.is_empty())
        .map(|(index, part)| if index % 2 == 1 { bold(part) } else { roman(part) })
        .collect()
}

/// The same for text that is rendered already.
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

/// As it stands within a sentence.
pub(super) fn lower(text: &str) -> String {
    change_first(text, |c| c.to_lowercase().collect())
}

/// As a sentence: a capital at the beginning, a full stop at the end.
pub(super) fn sentence(text: &str) -> String {
    let text = change_first(text, |c| c.to_uppercase().collect());
    if text.ends_with(['.', '?', '!']) { text } else { format!("{text}.") }
}

fn change_first(text: &str, change: impl Fn(char) -> String) -> String {
    let mut chars = text.chars();
    // `HTTP` and `URL` stay as they are, and so does code.
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
