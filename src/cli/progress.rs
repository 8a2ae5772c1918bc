//! A line on a terminal that shows how far some work is, and is wiped when it is done.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::term::{fit_to, width};

/// Work that takes less time shows no line.
const PATIENCE: Duration = Duration::from_secs(1);
/// Columns of the bar.
const BAR: u64 = 24;

/// The line, on stderr.
#[derive(Debug)]
pub(super) struct ProgressLine {
    is_terminal: bool,
    begun: Instant,
    shown: String,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), begun: Instant::now(), shown: String::new() }
    }

    /// Whether lines are shown here at all.
    pub(super) fn is_shown(&self) -> bool {
        self.is_terminal
    }

    /// Shows how much is done, in place of what stood there.
    pub(super) fn show(&mut self, done: u64, total: u64, what: &str) {
        if !self.is_terminal || self.begun.elapsed() < PATIENCE {
            return;
        }
        let columns = width(&io::stderr()).unwrap_or(80);
        let text = fit_to(&line(done, total, what), columns.saturating_sub(1).max(1));
        if text != self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
            self.shown = text;
        }
    }

    /// Wipes the line, before other text or at the end.
    pub(super) fn wipe(&mut self) {
        if !std::mem::take(&mut self.shown).is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.wipe();
    }
}

fn line(done: u64, total: u64, what: &str) -> String {
    if total == 0 {
        return what.to_owned();
    }
    let full = (done.min(total) * BAR).checked_div(total).unwrap_or_default();
    let bar: String = (0..BAR).map(|column| if column < full { '█' } else { '░' }).collect();
    format!("{bar} {done} of {total} {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_with_the_work() {
        assert_eq!(line(0, 0, "asking for a token"), "asking for a token");
        assert_eq!(
            line(6, 12, "changes made"),
            format!("{}{} 6 of 12 changes made", "█".repeat(12), "░".repeat(12))
        );
        assert_eq!(line(12, 12, "x"), format!("{} 12 of 12 x", "█".repeat(24)));
        assert!(line(13, 12, "x").starts_with(&"█".repeat(24)));
    }
}
