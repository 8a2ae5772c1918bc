//! `eventsubd sink`: what a person does with one sink.

use super::args::{Args, SinkCommand, SinkNameArgs};
use super::control::{Connection, block_on, parse};
use super::term::Failure;
use crate::admin::{Refused, SkippedEvent};

/// `eventsubd sink`
pub(super) fn run(args: &Args, command: &SinkCommand) -> Result<u8, Failure> {
    match command {
        SinkCommand::Retry(SinkNameArgs { name }) => {
            ask(args, "retry", name)?;
            args.say(&format!("sink {name} tries again now; `eventsubd status` shows how it goes"));
        }
        SinkCommand::Skip(SinkNameArgs { name }) => {
            let SkippedEvent { seq, subscription_type } = parse(&ask(args, "skip", name)?)?;
            args.say(&format!(
                "event {seq} ({subscription_type}) is now in the dead letters of sink {name}; \
                 `eventsubd dead-letters list --sink {name}` shows it"
            ));
        }
    }
    Ok(0)
}

fn ask(args: &Args, what: &str, name: &str) -> Result<hyper::body::Bytes, Failure> {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("sink", name).finish();
    let path = format!("/sinks/{what}?{query}");
    let (status, body) = block_on(async { Connection::open(args).await?.post(&path).await })?;
    if status.is_success() {
        return Ok(body);
    }
    let refused: Refused = parse(&body)?;
    Err(Failure::new(refused.error).hint("`eventsubd status` lists the sinks"))
}
