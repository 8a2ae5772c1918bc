//! Output for people: colour, failures, escaping.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::FAILED;
use crate::model::invocation::Invocation;
use crate::model::text::{LONGEST_LINE, chain, lines, one_line};

/// Failure of a command: the message on stderr and the exit code.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
    /// The message is complete and printed unchanged.
    verbatim: bool,
    /// Whether another attempt may succeed.
    temporary: bool,
}

impl Failure {
    /// Creates a failure with exit code 1.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into(), hint: None, verbatim: false, temporary: false }
    }

    /// Creates a failure with a complete message of several lines.
    pub(super) fn verbatim(message: impl Into<String>) -> Self {
        Self { verbatim: true, ..Self::new(message) }
    }

    /// Sets another exit code.
    pub(super) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Adds what to do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Marks the failure as temporary.
    pub(super) fn temporary(mut self) -> Self {
        self.temporary = true;
        self
    }

    /// Returns whether another attempt may succeed.
    pub(super) fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// Adds before the message what has failed by it.
    pub(super) fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Adds the chain of causes.
    pub(super) fn caused_by(mut self, source: &dyn Error) -> Self {
        let _ = write!(self.message, ": {}", chain(source));
        self
    }

    /// Returns the message with its hint, in one line.
    pub(super) fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message.clone(),
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        self.code
    }

    /// Writes it to stderr; commands in it get the flags of this one.
    pub(super) fn report(&self, invocation: &Invocation) -> ExitCode {
        let (red, off) = if use_colour(&io::stderr()) { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let message = lines(&invocation.complete(self.message.trim_end()));
        let mut text = if self.verbatim { message } else { format!("{red}error:{off} {message}") };
        if let Some(hint) = &self.hint {
            let _ = write!(text, "\nhint: {}", lines(&invocation.complete(hint)));
        }
        let _ = writeln!(io::stderr(), "{text}");
        ExitCode::from(self.code)
    }
}

/// Returns whether to use colour on a stream.
pub(super) fn use_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Masks a value from a file, from Twitch or from strangers for one line of a terminal.
pub(super) fn masked(text: &str) -> String {
    one_line(text, LONGEST_LINE)
}

/// The same, no wider than so many columns of a terminal; what is longer ends with `…`.
pub(super) fn fit_to(text: &str, columns: usize) -> String {
    let line = masked(text);
    if line.width() <= columns {
        return line;
    }
    let mut used = 0;
    let fitting = line.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or_default();
        used >= columns.max(1)
    });
    let mut cut = line[..fitting.map_or(line.len(), |(at, _)| at)].to_owned();
    cut.push('…');
    cut
}

/// The columns of a terminal; `None` if the stream is none.
pub(super) fn width(stream: &(impl IsTerminal + AsFd)) -> Option<usize> {
    if !stream.is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(stream)
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
}

/// Asks a person on the terminal, and waits for the answer. Without a terminal nobody is asked, and the answer is yes.
pub(super) fn agrees(question: &str) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return true;
    }
    let _ = write!(io::stderr(), "{} [y/N] ", lines(question));
    let mut answer = String::new();
    // The end of the input is no consent.
    io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Writes data to stdout, byte for byte. A reader that has gone is no failure. Text for people goes through
/// `Args::print`, which completes the commands in it.
pub(super) fn write(data: &[u8]) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new("cannot write to stdout").caused_by(&error))
        }
        _ => Ok(0),
    }
}

/// Writes one JSON document to stdout.
pub(super) fn write_json(value: &impl serde::Serialize) -> Result<u8, Failure> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|e| Failure::new("cannot make JSON").caused_by(&e))?;
    text.push(b'\n');
    write(&text)
}

/// Writes a line for people to stderr; commands in it get the flags of this one.
pub(super) fn say(invocation: &Invocation, line: &str) {
    let _ = writeln!(io::stderr(), "{}", lines(&invocation.complete(line)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_the_columns_of_its_terminal() {
        assert_eq!(fit_to("abcdef", 6), "abcdef");
        assert_eq!(fit_to("abcdef", 5), "abcd…");
        assert_eq!(fit_to("日本語", 6), "日本語");
        assert_eq!(fit_to("日本語", 5), "日本…");
        assert_eq!(fit_to("日本語", 4), "日…");
        assert_eq!(fit_to("a\u{1b}b", 80), "a\\x1bb");
        for columns in 1..8 {
            assert!(fit_to("日本語ab", columns).width() <= columns.max(1), "{columns}");
        }
    }
}
