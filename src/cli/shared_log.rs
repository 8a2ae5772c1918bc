//! The log that the hosts of a cluster share, as a command reads it.

use tokio::runtime::{Builder, Runtime};

use super::args::Args;
use super::exit::BAD_CONFIG;
use super::target::load_options;
use super::term::{Failure, say};
use crate::cluster::{LogReader, ReadError};
use crate::model::event::{Seq, StoredEvent};
use crate::model::invocation::Invocation;
use crate::model::time::Timestamp;
use crate::{config, daemon};

pub(super) struct Log {
    invocation: Invocation,
    runtime: Runtime,
    reader: LogReader,
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn broken(error: ReadError) -> Failure {
    Failure::new("cannot read the shared log").caused_by(&error)
}

impl Log {
    /// Connects to the NATS servers of the configuration.
    pub(super) fn open(args: &Args) -> Result<Self, Failure> {
        let loaded = config::load(&load_options(args))
            .map_err(|errors| Failure::verbatim(errors.to_string()).code(BAD_CONFIG))?;
        let outward = daemon::connections()
            .map_err(|error| Failure::new("cannot prepare a connection").caused_by(&error))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new("cannot start the runtime").caused_by(&error))?;
        match runtime.block_on(daemon::open_log(&loaded.config, &outward)) {
            None => Err(Failure::new("the configuration has no `[cluster]`, so there is no shared log")
                .hint("without `--all-hosts`, the events of this host are shown")),
            Some(Err(error)) => {
                Err(Failure::new("cannot open the shared log").caused_by(&error).hint(error.hint()))
            }
            Some(Ok(reader)) => Ok(Self { invocation: args.invocation(), runtime, reader }),
        }
    }

    /// The number of the newest event.
    pub(super) fn newest(&self) -> Result<Seq, Failure> {
        self.runtime.block_on(self.reader.newest()).map_err(broken)
    }

    /// The number of the last event before this time.
    pub(super) fn before(&self, time: Timestamp) -> Result<Seq, Failure> {
        self.runtime.block_on(self.reader.before(time)).map_err(broken)
    }

    /// The next events after this one, at most `limit`, and up to where they were read; `None` at the end. What is no event
    /// is told on stderr.
    pub(super) fn read_after(
        &self,
        after: Seq,
        limit: usize,
    ) -> Result<(Vec<StoredEvent>, Option<Seq>), Failure> {
        let batch = self.runtime.block_on(self.reader.read_after(after, limit)).map_err(broken)?;
        for (position, error) in &batch.unreadable {
            let told = format!("warning: message {position} of the shared log is no event: {error}");
            say(&self.invocation, &told);
        }
        Ok((batch.events, batch.read))
    }
}
