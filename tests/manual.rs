//! What the program says about itself to other programs: man pages that formatters take without a warning and that
//! leave nothing out, and completions that the shells can read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use eventsubd::config;

fn eventsubd(arguments: &[&str]) -> String {
    let output = run(Command::new(env!("CARGO_BIN_EXE_eventsubd")).args(arguments));
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn run(command: &mut Command) -> Output {
    let program = command.get_program().to_owned();
    command.output().unwrap_or_else(|error| panic!("{}: {error}; tests/run installs it", program.display()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The names of the commands, from the program's own help.
fn commands() -> Vec<String> {
    let help = eventsubd(&["-h"]);
    let list = help.split("\nCommands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let words = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    words.filter(|word| !["", "help"].contains(word)).map(str::to_owned).collect()
}

/// A page as a terminal shows it, wide enough that nothing is broken.
fn shown(page: &Path) -> String {
    let output = run(Command::new("mandoc").args(["-T", "utf8", "-O", "width=400"]).arg(page));
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Bold is a letter, a backspace, and the letter again.
    let (mut plain, mut chars) =
        (String::new(), text(&output.stdout).chars().collect::<Vec<_>>().into_iter());
    while let Some(c) = chars.next() {
        match c {
            '\u{8}' => {
                plain.pop();
                plain.extend(chars.next());
            }
            c => plain.push(c),
        }
    }
    plain
}

#[test]
fn man_pages_are_whole_and_without_fault() {
    let folder = tempfile::tempdir().unwrap();
    eventsubd(&["man", "--out", folder.path().to_str().unwrap()]);
    let pages: BTreeSet<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    let mut expected: BTreeSet<String> =
        commands.iter().map(|command| format!("eventsubd-{command}.1")).collect();
    expected.extend(["eventsubd.1".to_owned(), "eventsubd.toml.5".to_owned()]);
    assert_eq!(pages, expected);

    for page in &pages {
        let path = folder.path().join(page);
        let groff = run(Command::new("groff").args(["-man", "-ww", "-z", "-T", "utf8"]).arg(&path));
        assert!(groff.status.success() && groff.stderr.is_empty(), "{page}: {}", text(&groff.stderr));
        let mandoc = run(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&path));
        // Pages carry the version; a date would differ from build to build.
        let said = text(&mandoc.stdout);
        let faults: Vec<_> =
            said.lines().filter(|line| !line.ends_with("missing date, using \"\": TH")).collect();
        assert!(faults.is_empty(), "{faults:#?}");
        assert!(fs::read_to_string(&path).unwrap().contains("\n.SH DESCRIPTION\n"), "{page} says something");
    }

    let program = shown(&folder.path().join("eventsubd.1"));
    for heading in [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "COMMANDS",
        "OPTIONS",
        "EXIT STATUS",
        "FILES",
        "ENVIRONMENT",
        "SIGNALS",
        "EXAMPLES",
        "SEE ALSO",
    ] {
        assert!(
            program.lines().any(|line| line == heading),
            "eventsubd(1) has no section {heading}:\n{program}"
        );
    }
    for command in &commands {
        assert!(program.contains(&format!("eventsubd {command}\n")), "{command} is not in eventsubd(1)");
        let help = eventsubd(&[command, "--help"]);
        let page = shown(&folder.path().join(format!("eventsubd-{command}.1")));
        for word in help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 4) {
            let flag = word
                .trim_end_matches([',', '.', '>'])
                .trim_end_matches('`')
                .split(['<', '|'])
                .next()
                .unwrap();
            assert!(
                flag == "--help" || page.contains(flag),
                "{flag} is not in eventsubd-{command}(1):\n{page}"
            );
        }
    }
    let file = shown(&folder.path().join("eventsubd.toml.5"));
    assert!(config::keys().len() > 50);
    for key in config::keys() {
        assert!(file.contains(&format!("{} = ", key.name())), "{} is not in eventsubd.toml(5)", key.path);
        let doc = key.doc.replace('`', "");
        assert!(file.contains(&doc[1..]), "what {} does is not in eventsubd.toml(5):\n{file}", key.path);
    }
}

#[test]
fn one_page_can_be_asked_for() {
    assert!(eventsubd(&["man"]).contains(".TH EVENTSUBD 1 "));
    assert!(eventsubd(&["man", "config"]).contains(".TH EVENTSUBD.TOML 5 "));
    assert!(eventsubd(&["man", "dead-letters"]).contains(".TH EVENTSUBD-DEAD-LETTERS 1 "));
    let output = run(Command::new(env!("CARGO_BIN_EXE_eventsubd")).args(["man", "nothing"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("hint: there are: eventsubd, config, run"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn shells_can_read_their_completions() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = folder.path().join(shell);
        fs::write(&script, eventsubd(&["completions", shell])).unwrap();
        let output = run(Command::new(shell).arg(check).arg(&script));
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {}", text(&output.stderr));
    }
    let offered = |line: &str| -> Vec<String> {
        let ask = "source \"$1\"; COMP_WORDS=($2); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); \
                   _eventsubd eventsubd \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; \
                   printf '%s\\n' \"${COMPREPLY[@]}\"";
        let script = folder.path().join("bash");
        let output = run(Command::new("bash").args(["--norc", "-c", ask, "bash"]).arg(&script).arg(line));
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(str::to_owned).collect()
    };
    assert_eq!(offered("eventsubd st"), ["status"]);
    assert_eq!(offered("eventsubd completions ba"), ["bash"]);
    assert!(offered("eventsubd status --w").contains(&"--wait".to_owned()));
    assert_eq!(offered("eventsubd dead-letters re"), ["replay"]);
}
