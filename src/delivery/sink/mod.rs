//! Where lines go. Both sinks block, so they are only called from threads that may.

mod file;
mod stdout;

use std::io;

pub(super) use self::file::File;
pub use self::file::FileOptions;
pub use self::stdout::OpenStdout;
pub(super) use self::stdout::Stdout;

/// Takes whole lines.
pub(super) trait Lines: Send {
    /// Writes the lines so that they are safe: all of them, or an error, after which the same lines
    /// are tried again and begin on a line of their own.
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;

    /// Somebody has moved the file away: the next write opens it anew.
    fn reopen(&mut self) {}
}
