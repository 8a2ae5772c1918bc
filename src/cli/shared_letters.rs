//! The dead letters that a command means: those in the store of this host, and those that the hosts of a cluster share.

use super::args::Args;
use super::control::{Connection, block_on, parse};
use super::source::is_in_cluster;
use super::target::open_store;
use super::term::Failure;
use crate::admin::{Refused, SharedLetterPage};
use crate::model::text::counted;
use crate::store::{DeadLetter, DeadLetterFilter, StoreError};

/// Number of dead letters read at once.
const BATCH: usize = 200;

/// The filter as the query of a request.
pub(super) fn query(filter: &DeadLetterFilter) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(sink) = &filter.sink {
        query.append_pair("sink", sink.as_str());
    }
    if let Some(id) = filter.id {
        query.append_pair("id", &id.to_string());
    }
    if let Some(types) = &filter.types {
        query.append_pair("type", types);
    }
    if let Some(until) = filter.until {
        query.append_pair("until", &until.to_string());
    }
    query.finish()
}

/// Where dead letters are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// In the store of the only host.
    Store,
    /// In the store of this host of a cluster.
    Host(&'a str),
    /// In the stream that all hosts share.
    Shared,
}

impl<'a> Place<'a> {
    /// The host of a cluster that has them for itself.
    pub(super) fn host(self) -> Option<&'a str> {
        match self {
            Self::Host(host) => Some(host),
            Self::Store | Self::Shared => None,
        }
    }
}

/// Whether the caller wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    More,
    Enough,
}

/// Calls `visit` with the letters of a filter, a part at a time. Those that hosts share come from the daemon; a failure to get
/// them is returned once the others were visited.
pub(super) fn visit(
    args: &Args,
    filter: &DeadLetterFilter,
    with_payload: bool,
    mut visit: impl FnMut(&[DeadLetter], Place<'_>) -> Result<Wish, Failure>,
) -> Result<(), Failure> {
    let shared = Shared::find(args, filter, with_payload);
    let place = match &shared {
        Ok(Some(shared)) => Place::Host(&shared.first.host),
        Ok(None) => Place::Store,
        Err(_) => Place::Host("this host"),
    };
    let reader = open_store(args, false)?;
    let broken = |error: StoreError| Failure::new("cannot read the dead letters").caused_by(&error);
    let mut after = 0;
    loop {
        let letters = reader.chosen_letters(filter, after, BATCH).map_err(broken)?;
        if visit(&letters, place)? == Wish::Enough {
            return Ok(());
        }
        match letters.last() {
            Some(last) if letters.len() == BATCH => after = last.id,
            _ => break,
        }
    }
    match shared? {
        Some(shared) => shared.visit(args, |letters| visit(letters, Place::Shared)),
        None => Ok(()),
    }
}

/// Pages of the dead letters that hosts share.
struct Shared {
    connection: Connection,
    query: String,
    first: SharedLetterPage,
}

impl Shared {
    /// `None` if the daemon works alone, or if none runs and the configuration has no `[cluster]`.
    fn find(args: &Args, filter: &DeadLetterFilter, with_payload: bool) -> Result<Option<Self>, Failure> {
        let query = format!("{}&limit={BATCH}&payload={with_payload}", query(filter));
        let connection = match block_on(Connection::reopen(args)) {
            Ok(connection) => connection,
            Err(failure) if is_in_cluster(args) => {
                return Err(failure.about("the dead letters that the hosts share are not shown"));
            }
            Err(_) => return Ok(None),
        };
        let first = page(&connection, &query, 0)?;
        Ok(first.map(|first| Self { connection, query, first }))
    }

    fn visit(
        self,
        args: &Args,
        mut visit: impl FnMut(&[DeadLetter]) -> Result<Wish, Failure>,
    ) -> Result<(), Failure> {
        let Self { connection, query, first } = self;
        let (mut next, mut unreadable) = (Some(first), 0);
        while let Some(page_now) = next {
            unreadable += page_now.unreadable;
            let after = page_now.next;
            let letters = page_now.into_letters();
            let letters = letters.ok_or_else(|| Failure::new("the daemon's answer cannot be read"))?;
            if visit(&letters)? == Wish::Enough {
                return Ok(());
            }
            next = match after {
                Some(after) => page(&connection, &query, after)?,
                None => None,
            };
        }
        if unreadable > 0 {
            let messages = counted(unreadable, "message");
            args.say(&format!(
                "warning: {messages} among the dead letters that the hosts share: not written by eventsubd"
            ));
        }
        Ok(())
    }
}

fn page(connection: &Connection, query: &str, after: i64) -> Result<Option<SharedLetterPage>, Failure> {
    let path = format!("/dead-letters?{query}&after={after}");
    let (status, body) = block_on(connection.get(&path))?;
    if status.is_success() {
        return parse(&body);
    }
    let refused: Refused = parse(&body)?;
    Err(Failure::new(format!("the dead letters that the hosts share cannot be read: {}", refused.error)))
}
