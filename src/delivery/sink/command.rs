//! A program: run once an event, with the event on its standard input.
//!
//! The program runs with the daemon's own privileges, in a process group of its own, without a shell. What it
//! prints goes to the log.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, FusedFuture};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tracing::{info, warn};

use super::super::children::Children;
use super::super::format::{Broadcaster, Format};
use super::super::outgoing::Attempt;
use super::super::retry::Outcome;
use super::{Single, printable};
use crate::model::event::{Event, StoredEvent};
use crate::model::script;
use crate::model::sink::CommandOptions;
use crate::model::text::duration;

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(5);
/// Time for reading output after the program has ended: a process that it started may keep it open.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
/// Lines of output that are logged for one event; the rest is counted.
const LINES: usize = 50;
/// The longest line of output, in bytes; the rest is a line of its own.
const LINE: usize = 4 << 10;
/// The longest value of a variable, in bytes. Linux refuses to start a program with one of 128 KiB.
const VARIABLE: usize = 32 << 10;
/// Variables of the daemon's environment that a program must not get: secrets, those from systemd, and settings that only
/// suit the daemon.
const PRIVATE: [&str; 11] = [
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "RUST_LOG",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
];

pub(in crate::delivery) struct Command {
    options: CommandOptions,
    format: Format,
    children: Children,
    /// Variables that are taken away.
    private: Vec<OsString>,
}

impl Command {
    pub(in crate::delivery) fn new(options: CommandOptions, format: Format, children: Children) -> Self {
        let private = std::env::vars_os()
            .map(|(name, _)| name)
            .filter(|name| {
                let name = name.to_string_lossy();
                name.starts_with("EVENTSUB") || PRIVATE.contains(&&*name)
            })
            .collect();
        Self { options, format, children, private }
    }

    async fn run(&self, stored: &StoredEvent) -> Outcome {
        let event = &stored.event;
        let mut command = tokio::process::Command::new(&self.options.program);
        for name in &self.private {
            command.env_remove(name);
        }
        for (name, value) in variables(event) {
            if value.len() <= VARIABLE && !value.contains('\0') {
                command.env(name, value);
            } else {
                // The program would not start, however often it is tried. The event itself has the value.
                warn!(message_id = %event.message_id, "{name} is left out: no variable can have its value");
            }
        }
        command
            .args(&self.options.arguments)
            .current_dir(&self.options.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let (mut child, _waited) = match self.children.spawn(&mut command) {
            Ok(started) => started,
            Err(error) => return Outcome::unavailable(self.options.start_problem(&error)),
        };
        let group = Group::of(&child);
        let mut line = Vec::new();
        self.format.line(event, &mut line);
        let input = child.stdin.take().map(|mut input| async move {
            // A program that does not read its input is free to.
            let _ = input.write_all(&line).await;
        });
        let id = event.message_id.as_str();
        let last = Mutex::new(String::new());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let output = async {
            tokio::join!(self.log(out, "stdout", id, &last), self.log(err, "stderr", id, &last));
        };
        let mut output = std::pin::pin!(output.fuse());
        let run = async {
            let input = async {
                if let Some(input) = input {
                    input.await;
                }
            };
            tokio::select! {
                status = async { tokio::join!(child.wait(), input).0 } => status,
                never = async { (&mut output).await; std::future::pending().await } => never,
            }
        };
        let ended = tokio::time::timeout(self.options.timeout, run).await;
        let Ok(ended) = ended else {
            group.end(&mut child).await;
            let limit = duration(self.options.timeout);
            return Outcome::failed(format!("ended by force: it took longer than `timeout`, {limit}"));
        };
        group.spare();
        if !output.is_terminated() {
            let _ = tokio::time::timeout(LAST_OUTPUT, output).await;
        }
        match ended {
            Ok(status) if status.success() => Outcome::Done,
            Ok(status) => {
                Outcome::failed(describe(status, &last.lock().map(|l| l.clone()).unwrap_or_default()))
            }
            Err(error) => Outcome::failed(format!("the program cannot be waited for: {error}")),
        }
    }

    /// Logs what the program prints, bounded; keeps the last line.
    async fn log(&self, pipe: Option<impl AsyncRead + Unpin>, stream: &str, id: &str, last: &Mutex<String>) {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = vec![0; LINE];
        let mut line = Vec::new();
        let mut count = 0_usize;
        let mut say = |line: &mut Vec<u8>| {
            let text = printable(&String::from_utf8_lossy(line));
            line.clear();
            if text.is_empty() {
                return;
            }
            count += 1;
            if count <= LINES {
                info!(message_id = id, stream, "{text}");
            }
            if let Ok(mut last) = last.lock() {
                *last = text;
            }
        };
        while let Ok(read) = pipe.read(&mut buffer).await
            && read > 0
        {
            for part in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if part.ends_with(b"\n") || line.len() >= LINE {
                    say(&mut line);
                }
            }
        }
        say(&mut line);
        if count > LINES {
            info!(message_id = id, stream, lines = count - LINES, "further output is not shown");
        }
    }
}

/// The variables that a program gets with an event.
fn variables(event: &Event) -> [(&'static str, String); 6] {
    let broadcaster = Broadcaster::of(&event.payload);
    [
        ("EVENTSUB_TYPE", event.subscription_type.to_string()),
        ("EVENTSUB_MESSAGE_TYPE", event.message_type().to_owned()),
        ("EVENTSUB_MESSAGE_ID", event.message_id.to_string()),
        ("EVENTSUB_SUBSCRIPTION_ID", event.subscription_id.to_string()),
        ("EVENTSUB_BROADCASTER_ID", broadcaster.id.into_owned()),
        ("EVENTSUB_BROADCASTER_LOGIN", broadcaster.login.into_owned()),
    ]
}

impl Single for Command {
    fn concurrency(&self) -> usize {
        self.options.concurrency
    }

    fn send(self: Arc<Self>, event: Arc<StoredEvent>, _attempt: Attempt) -> BoxFuture<'static, Outcome> {
        async move { self.run(&event).await }.boxed()
    }

    fn preview(&self, event: &StoredEvent) -> Result<String, String> {
        let mut text = self.options.program.display().to_string();
        for argument in &self.options.arguments {
            text.push(' ');
            text.push_str(argument);
        }
        text.push('\n');
        for (name, value) in variables(&event.event) {
            text.push_str(&format!("{name}={value}\n"));
        }
        let mut line = Vec::new();
        self.format.line(&event.event, &mut line);
        text.push('\n');
        text.push_str(String::from_utf8_lossy(&line).trim_end());
        Ok(text)
    }
}

impl CommandOptions {
    /// Returns the reason for which the program did not start: the system says the same of a script whose interpreter is missing, and of a folder
    /// that is.
    fn start_problem(&self, error: &io::Error) -> String {
        let path = self.program.display().to_string();
        let mut head = Vec::new();
        let read =
            File::open(&self.program).and_then(|file| file.take(script::HEAD as u64).read_to_end(&mut head));
        let is_file = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.is_file());
        let exists =
            |name: &str| name.contains('/') && is_file(&self.folder.join(name)) || !name.contains('/');
        if !self.folder.is_dir() {
            return format!(
                "cannot start `{path}`: there is no folder `{}` to run it in",
                self.folder.display()
            );
        }
        if let Some(problem) = read.ok().and_then(|_| script::problem(&path, &head, exists)) {
            return format!("cannot start it: {problem}");
        }
        match error.kind() {
            io::ErrorKind::NotFound => {
                format!("there is no program `{path}`; correct `command`, or install it")
            }
            io::ErrorKind::PermissionDenied => format!(
                "cannot start `{path}`: permission denied; the daemon's user must be allowed to run it and to enter `{}`",
                self.folder.display()
            ),
            _ => format!("cannot start `{path}`: {error}"),
        }
    }
}

fn describe(status: ExitStatus, last: &str) -> String {
    let printed = if last.is_empty() { String::new() } else { format!("; it printed: {last}") };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("the program exited with status {code}{printed}"),
        (None, Some(signal)) => format!("the program was ended by signal {signal}{printed}"),
        (None, None) => format!("the program ended without a status{printed}"),
    }
}

/// A process group that does not outlive its owner, unless it is spared.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    /// TERM, and KILL to what is left after a while.
    async fn end(mut self, child: &mut Child) {
        let Some(group) = self.0 else { return };
        // A process that has ended already is not an error.
        let _ = kill_process_group(group, Signal::TERM);
        let left = tokio::time::timeout(GRACE, child.wait()).await.is_err();
        let _ = kill_process_group(group, Signal::KILL);
        self.0 = None;
        if left {
            let _ = child.wait().await;
        }
    }

    /// The program has ended by itself: what it left running is meant to run.
    fn spare(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::retry::Failure;
    use crate::model::event::{MessageId, Seq};
    use crate::model::time::Timestamp;

    fn event() -> Arc<StoredEvent> {
        let payload = br#"{"subscription":{"condition":{"broadcaster_user_id":"12"}},"event":{"broadcaster_user_login":"ann"}}"#;
        Arc::new(StoredEvent {
            seq: Seq(1),
            stored_at: Timestamp::from_unix_millis(0),
            event: Event {
                message_id: MessageId::new("m1").unwrap(),
                message_timestamp: "2026-11-02T09:00:01Z".into(),
                subscription_type: "stream.online".into(),
                subscription_version: "1".into(),
                subscription_id: "s1".into(),
                payload: payload.as_slice().into(),
            },
        })
    }

    async fn run(script: &str, timeout: Duration) -> Outcome {
        let options = CommandOptions {
            program: "/bin/sh".into(),
            folder: "/".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            timeout,
            concurrency: 1,
        };
        Arc::new(Command::new(options, Format::Eventsub, Children::default()))
            .send(event(), Attempt::first(std::time::SystemTime::now()))
            .await
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn it_gets_the_event_and_what_it_is_about() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out").display().to_string();
        let script = format!(
            "cat > {path}; echo $EVENTSUB_TYPE $EVENTSUB_MESSAGE_TYPE $EVENTSUB_MESSAGE_ID $EVENTSUB_SUBSCRIPTION_ID \
             $EVENTSUB_BROADCASTER_ID $EVENTSUB_BROADCASTER_LOGIN >> {path}"
        );
        assert_eq!(run(&script, LONG).await, Outcome::Done);
        let out = std::fs::read_to_string(&path).unwrap();
        let (line, rest) = out.split_once('\n').unwrap();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["metadata"]["message_id"], "m1");
        assert_eq!(rest, "stream.online notification m1 s1 12 ann\n");
    }

    #[tokio::test]
    async fn a_value_that_no_variable_can_have_is_left_out() {
        for login in ["a\\u0000b".to_owned(), "x".repeat(200_000)] {
            let mut stored = Arc::unwrap_or_clone(event());
            let payload = String::from_utf8(stored.event.payload.to_vec()).unwrap();
            stored.event.payload = payload.replace("ann", &login).into();
            let options = CommandOptions {
                program: "/bin/sh".into(),
                folder: "/".into(),
                arguments: vec![
                    "-c".to_owned(),
                    "test -z \"${EVENTSUB_BROADCASTER_LOGIN+set}\" && cat >/dev/null".to_owned(),
                ],
                timeout: LONG,
                concurrency: 1,
            };
            let sink = Arc::new(Command::new(options, Format::Eventsub, Children::default()));
            let attempt = Attempt::first(std::time::SystemTime::now());
            assert_eq!(sink.send(Arc::new(stored), attempt).await, Outcome::Done);
        }
    }

    #[tokio::test]
    async fn the_exit_status_decides_and_the_last_output_is_reported() {
        assert_eq!(run("exit 0", LONG).await, Outcome::Done);
        let Outcome::Failed(Failure { message: error, .. }) = run("echo too bad >&2; exit 3", LONG).await
        else {
            panic!()
        };
        assert_eq!(error, "the program exited with status 3; it printed: too bad");
        let Outcome::Failed(Failure { message: error, .. }) = run("kill -9 $$", LONG).await else { panic!() };
        assert_eq!(error, "the program was ended by signal 9");
        // Output without an end does no harm.
        assert_eq!(run("yes | head -c 3000000; exit 0", LONG).await, Outcome::Done);
        // Nor does a child that keeps the output open.
        assert_eq!(run("sleep 5 & exit 0", LONG).await, Outcome::Done);
    }

    #[tokio::test]
    async fn what_takes_too_long_ends_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid").display().to_string();
        let begun = std::time::Instant::now();
        let script =
            format!("trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {pid}; sleep 60' & wait; sleep 60");
        let Outcome::Failed(Failure { message: error, .. }) = run(&script, Duration::from_millis(500)).await
        else {
            panic!()
        };
        assert!(error.contains("timeout"), "{error}");
        assert!(begun.elapsed() >= GRACE, "TERM is ignored, so KILL has to come");
        let pid: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        let gone = async {
            let stat = format!("/proc/{pid}/stat");
            // A zombie waits for whoever adopted it, and runs no more.
            while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONG, gone).await.expect("the grandchild is gone");
    }

    #[tokio::test]
    async fn a_run_that_is_given_up_leaves_nothing_running() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let script = format!("echo $$ > {}; sleep 60", path.display());
        let handle = tokio::spawn(async move { run(&script, LONG).await });
        let pid = tokio::time::timeout(LONG, async {
            loop {
                match std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<i32>().ok()) {
                    Some(pid) => break pid,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await
        .expect("it starts");
        handle.abort();
        let gone = async {
            while std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.contains(") Z "))
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONG, gone).await.expect("it is gone");
    }

    #[tokio::test]
    async fn it_runs_in_its_folder_and_a_script_that_cannot_start_says_why() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("beside"), "").unwrap();
        let run = |head: &str| {
            let program = folder.path().join("hook");
            std::fs::write(&program, head).unwrap();
            std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            let options = CommandOptions {
                program,
                folder: folder.path().to_owned(),
                arguments: vec!["beside".to_owned()],
                timeout: LONG,
                concurrency: 1,
            };
            Arc::new(Command::new(options, Format::Eventsub, Children::default()))
                .send(event(), Attempt::first(std::time::SystemTime::now()))
        };
        assert_eq!(run("#!/bin/sh\ntest -e \"$1\"\n").await, Outcome::Done);
        for (head, part) in [
            ("#!/bin/sh\r\necho\r\n", "carriage return"),
            ("echo\n", "no `#!` line"),
            ("#!/nowhere/sh\n", "`/nowhere/sh`, which does not exist"),
        ] {
            let Outcome::Unavailable(Failure { message: error, .. }) = run(head).await else {
                panic!("{head}")
            };
            assert!(error.contains(part) && !error.contains("os error"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_a_failure() {
        let options = CommandOptions {
            program: "/nonexistent/program".into(),
            folder: "/".into(),
            arguments: vec![],
            timeout: LONG,
            concurrency: 1,
        };
        let sink = Arc::new(Command::new(options, Format::Eventsub, Children::default()));
        let Outcome::Unavailable(Failure { message: error, .. }) =
            sink.send(event(), Attempt::first(std::time::SystemTime::now())).await
        else {
            panic!()
        };
        assert!(error.contains("/nonexistent/program"), "{error}");
    }
}
