//! Output for people: colour, failures, escaping.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

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
