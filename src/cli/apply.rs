//! `eventsubd apply`: makes the running daemon reconcile now, and follows the run to its end.

use std::time::{Duration, Instant};

use super::args::{ApplyArgs, Args};
use super::control::{Connection, POLL, WaitReporter, block_on, held_deletes_warning, parse};
use super::exit::exit_code;
use super::status::reasons;
use super::term::Failure;
use super::{FAILED, REFUSED, TEMPORARY, status};
use crate::admin::{Applied, Refused};
use crate::model::status::{Status, TokenState};

/// Progress of the requested run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Going,
    Done,
    /// The run cannot succeed now: the reason and the exit code.
    Failed(String, u8),
}

pub(super) fn apply(args: &Args, flags: &ApplyArgs) -> Result<u8, Failure> {
    let (status, stage) = block_on(async {
        let connection = Connection::open(args).await?;
        let worker = Worker::find(connection).await?;
        let Applied { ticket, pid } = worker.apply(flags.allow_deletes).await?;
        let deadline = Instant::now() + flags.timeout;
        let mut reporter = WaitReporter::new(args);
        args.say(&worker.begun());
        loop {
            let status = worker.status().await?;
            if status.pid != pid {
                return Err(Failure::new(
                    "the daemon was started again meanwhile, or another host leads now",
                )
                .hint("it compares the file with Twitch by itself: see `eventsubd status`"));
            }
            let stage = stage(&status, ticket);
            if stage != Stage::Going || Instant::now() >= deadline {
                return Ok((status, stage));
            }
            reporter.waiting_with(&status);
            tokio::time::sleep(worker.pause()).await;
        }
    })?;
    match stage {
        Stage::Done => {
            status::print(args, &status)?;
            if let Some(deletes) = status.reconcile.deletes_held {
                args.say(&held_deletes_warning(deletes));
            } else if !status.converged {
                args.say(&format!("error: Twitch does not match the file: {}", reasons(&status).join("; ")));
            }
            Ok(if status.converged { 0 } else { FAILED })
        }
        Stage::Failed(why, code) => Err(Failure::new(why)
            .hint("the daemon tries again by itself; `eventsubd status` shows what it waits for")
            .code(code)),
        Stage::Going => {
            let waited = humantime::format_duration(flags.timeout);
            let why = reasons(&status).join("; ");
            Err(Failure::new(format!("not finished within {waited}: {why}"))
                .hint("the daemon goes on by itself: see `eventsubd status`"))
        }
    }
}

/// The daemon that carries the run out.
struct Worker {
    connection: Connection,
    /// Name of the host that leads, if that is another one: requests are passed on to it.
    leader: Option<String>,
}

impl Worker {
    /// Only the leader of a cluster writes to Twitch.
    async fn find(connection: Connection) -> Result<Self, Failure> {
        let status = connection.status().await?;
        let leader = match status.cluster.as_ref().filter(|_| status.stands_by()) {
            None => None,
            Some(cluster) => Some(cluster.leader.clone().ok_or_else(|| {
                Failure::new("no host leads now, and only the leader changes anything at Twitch")
                    .hint("wait a few seconds, then see `eventsubd hosts`")
                    .code(TEMPORARY)
            })?),
        };
        Ok(Self { connection, leader })
    }

    async fn apply(&self, allow_deletes: bool) -> Result<Applied, Failure> {
        let query = if allow_deletes { "?allow_deletes=true" } else { "" };
        let path = if self.leader.is_some() { "/leader/apply" } else { "/apply" };
        let (status, body) = self.connection.post(&format!("{path}{query}")).await?;
        if status.is_success() { parse(&body) } else { Err(refused(&body)?) }
    }

    async fn status(&self) -> Result<Status, Failure> {
        if self.leader.is_none() {
            return self.connection.status().await;
        }
        let (status, body) = self.connection.get("/leader/status").await?;
        if status.is_success() { parse(&body) } else { Err(refused(&body)?) }
    }

    /// The sentence that says who works now.
    fn begun(&self) -> String {
        match &self.leader {
            None => "the daemon compares the file with Twitch now".to_owned(),
            Some(leader) => {
                format!("passed on to {leader}, which leads: it compares its file with Twitch now")
            }
        }
    }

    /// Pause between two looks: each of another host is a request over NATS.
    fn pause(&self) -> Duration {
        if self.leader.is_none() { POLL } else { POLL * 5 }
    }
}

fn refused(body: &[u8]) -> Result<Failure, Failure> {
    let refused: Refused = parse(body)?;
    Ok(Failure::new(refused.error).hint("`eventsubd hosts` shows who leads").code(TEMPORARY))
}

fn stage(status: &Status, ticket: u64) -> Stage {
    if let Some(failed) = failed(status, ticket) {
        return failed;
    }
    let reconcile = &status.reconcile;
    let pending = reconcile.moving > 0 || status::pending(status) > 0;
    if reconcile.answered < ticket || reconcile.progress.is_some() || pending {
        return Stage::Going;
    }
    Stage::Done
}

/// Returns why the run cannot succeed, or has failed.
fn failed(status: &Status, ticket: u64) -> Option<Stage> {
    let problem = || status.token.problem.clone().unwrap_or_else(|| "no reason given".to_owned());
    match status.token.state {
        TokenState::Refused => {
            return Some(Stage::Failed(format!("Twitch refuses the credentials: {}", problem()), REFUSED));
        }
        TokenState::Unavailable => {
            return Some(Stage::Failed(format!("Twitch did not issue a token: {}", problem()), TEMPORARY));
        }
        TokenState::Minting | TokenState::Valid | TokenState::Renewing => {}
    }
    let problem = status.reconcile.problem.as_ref().filter(|_| status.reconcile.answered >= ticket)?;
    Some(Stage::Failed(problem.clone(), exit_code(status)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::example;
    use crate::model::status::ProblemKind;
    use crate::model::status::TokenState;
    use crate::model::status::{Progress, ReconcileStatus, SubscriptionState};

    fn with(change: impl FnOnce(&mut Status)) -> Stage {
        let mut status = example::healthy();
        status.reconcile.answered = 5;
        change(&mut status);
        stage(&status, 5)
    }

    #[test]
    fn a_run_is_followed_until_it_ends_or_cannot_succeed() {
        let run = |change: fn(&mut ReconcileStatus)| with(|status| change(&mut status.reconcile));
        assert_eq!(with(|_| {}), Stage::Done);
        assert_eq!(run(|run| run.answered = 4), Stage::Going);
        assert_eq!(run(|run| run.progress = Some(Progress { done: 1, total: 2 })), Stage::Going);
        assert_eq!(run(|run| run.moving = 1), Stage::Going);
        let pending = vec![example::entry("1", SubscriptionState::Pending)];
        assert_eq!(with(|status| status.set_subscriptions(pending.into())), Stage::Going);

        let problem = |answered, kind| {
            with(|status| {
                status.reconcile.answered = answered;
                (status.reconcile.problem, status.reconcile.problem_kind) = (Some("why".into()), kind);
            })
        };
        assert_eq!(problem(4, None), Stage::Going, "the problem is that of an earlier run");
        for (kind, code) in
            [(ProblemKind::Credentials, 77), (ProblemKind::Outage, 75), (ProblemKind::Other, 1)]
        {
            assert_eq!(problem(5, Some(kind)), Stage::Failed("why".to_owned(), code));
        }
    }

    #[test]
    fn without_a_token_the_run_is_not_waited_for() {
        for (state, code, expected) in [
            (TokenState::Refused, 77, "Twitch refuses the credentials: invalid client secret"),
            (TokenState::Unavailable, 75, "Twitch did not issue a token: invalid client secret"),
        ] {
            let stage = with(|status| {
                status.reconcile.answered = 0;
                status.token.state = state;
                status.token.problem = Some("invalid client secret".to_owned());
            });
            assert_eq!(stage, Stage::Failed(expected.to_owned(), code));
        }
        assert_eq!(with(|status| status.token.state = TokenState::Minting), Stage::Done);
    }
}
