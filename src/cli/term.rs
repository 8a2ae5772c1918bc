//! Writing for people: output, colour, failures.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use super::FAILED;
use crate::model::invocation::Invocation;
use crate::model::text::{LONGEST_LINE, chain, lines, one_line};

/// A command failed: what it says on stderr, and its exit code.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
    /// The message is whole as it is.
    verbatim: bool,
    /// Trying again may help.
    passing: bool,
}

impl Failure {
    /// A failure with exit code 1.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into(), hint: None, verbatim: false, passing: false }
    }

    /// A failure that says who, what and where by itself, over several lines.
    pub(super) fn verbatim(message: impl Into<String>) -> Self {
        Self { verbatim: true, ..Self::new(message) }
    }

    /// With another exit code.
    pub(super) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// With what to do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Of a kind that trying again may help against.
    pub(super) fn passing(mut self) -> Self {
        self.passing = true;
        self
    }

    /// Whether trying again may help.
    pub(super) fn may_pass(&self) -> bool {
        self.passing
    }

    /// With the chain of causes.
    pub(super) fn because(mut self, source: &dyn Error) -> Self {
        let _ = write!(self.message, ": {}", chain(source));
        self
    }

    /// The message with its hint, in one line.
    pub(super) fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message.clone(),
        }
    }

    /// Its exit code.
    pub(super) fn exit_code(&self) -> u8 {
        self.code
    }

    /// Writes it to stderr; commands in it get the flags of this one.
    pub(super) fn report(&self, invocation: &Invocation) -> ExitCode {
        let (red, off) = if colour(&io::stderr()) { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let message = lines(&invocation.complete(self.message.trim_end()));
        let mut text = if self.verbatim { message } else { format!("{red}error:{off} {message}") };
        if let Some(hint) = &self.hint {
            let _ = write!(text, "\nhint: {}", lines(&invocation.complete(hint)));
        }
        let _ = writeln!(io::stderr(), "{text}");
        ExitCode::from(self.code)
    }
}

/// Whether colour is welcome there.
pub(super) fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A value from a file, from Twitch or from anybody else, fit for a line of a terminal.
pub(super) fn fit(text: &str) -> String {
    one_line(text, LONGEST_LINE)
}

/// Writes data to stdout, byte for byte. A reader that has gone is no failure. Text for people goes through
/// `Args::print`, which completes the commands in it.
pub(super) fn write(data: &[u8]) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new("cannot write to stdout").because(&error))
        }
        _ => Ok(0),
    }
}

/// Writes one JSON document to stdout.
pub(super) fn write_json(value: &impl serde::Serialize) -> Result<u8, Failure> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|e| Failure::new("cannot make JSON").because(&e))?;
    text.push(b'\n');
    write(&text)
}

/// Writes a line for people to stderr; commands in it get the flags of this one.
pub(super) fn say(invocation: &Invocation, line: &str) {
    let _ = writeln!(io::stderr(), "{}", lines(&invocation.complete(line)));
}
