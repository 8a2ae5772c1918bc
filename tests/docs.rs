//! The pages for people: every link leads somewhere, every example of a configuration is valid, and every command has
//! its row.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use eventsubd::cli::args::Args;
use eventsubd::config::{self, Environment, Key, LoadOptions, Secrets};
use expect_test::expect_file;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the names of all pages, relative to the root.
fn pages() -> Vec<String> {
    let mut pages = vec!["fuzz/README.md".to_owned()];
    for folder in ["", "docs/"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                pages.push(format!("{folder}{name}"));
            }
        }
    }
    pages.sort();
    assert!(pages.len() > 12 && pages.contains(&"README.md".to_owned()), "{pages:?}");
    pages
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// A fenced block: its language and its text, without the indentation of its fence.
struct Block {
    language: String,
    text: String,
}

/// Splits a page into its prose and its fenced blocks.
fn split(page: &str) -> (String, Vec<Block>) {
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            prose += line;
            prose.push('\n');
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let inside = lines.by_ref().take_while(|line| line.trim_start() != "```");
        let text = inside.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
        blocks.push(Block { language: language.to_owned(), text });
    }
    (prose, blocks)
}

/// Removes inline code, whose brackets make no link.
fn without_code(prose: &str) -> String {
    prose.split('`').step_by(2).collect::<Vec<_>>().join("x")
}

/// Returns the anchors that GitHub makes of the headings.
fn anchors(prose: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let headings = prose.lines().filter_map(|line| line.strip_prefix('#'));
    headings
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
            let count = seen.entry(slug.clone()).and_modify(|count| *count += 1).or_default();
            if *count == 0 { slug } else { format!("{slug}-{count}") }
        })
        .collect()
}

/// Returns the targets of links and pictures.
fn links(prose: &str) -> Vec<String> {
    let text = without_code(prose);
    let until = |start: &str, end: char| {
        let parts = text.split(start).skip(1);
        parts.map(|rest| rest.split(end).next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    [until("](", ')'), until("src=\"", '"'), until("href=\"", '"')].concat()
}

/// Returns the file of the repository that a link names, and the anchor in it.
fn target(page: &str, link: &str) -> (PathBuf, Option<String>) {
    let (path, anchor) = match link.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor.to_owned())),
        None => (link, None),
    };
    let base = root().join(page);
    let path = if path.is_empty() { base } else { base.parent().unwrap().join(path) };
    (path, anchor)
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut dead = Vec::new();
    let mut looked_at = 0;
    for page in pages() {
        let (prose, _) = split(&read(&page));
        for link in links(&prose) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            looked_at += 1;
            let (path, anchor) = target(&page, &link);
            let found = path.canonicalize().is_ok_and(|path| {
                path.starts_with(root().canonicalize().unwrap())
                    && anchor.is_none_or(|anchor| {
                        anchors(&split(&fs::read_to_string(path).unwrap()).0).contains(&anchor)
                    })
            });
            if !found {
                dead.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
    assert!(looked_at > 40, "only {looked_at} links were found");
}

#[test]
fn the_readme_is_short_and_leads_to_every_page() {
    let readme = read("README.md");
    let lines = readme.lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; at most 150 are read");
    let linked: BTreeSet<PathBuf> = links(&split(&readme).0)
        .iter()
        .filter_map(|link| target("README.md", link).0.canonicalize().ok())
        .collect();
    for page in pages().iter().filter(|page| page.starts_with("docs/")) {
        assert!(
            linked.contains(&root().join(page).canonicalize().unwrap()),
            "README.md does not link {page}"
        );
    }
}

#[test]
fn every_example_of_a_configuration_is_valid() {
    let mut checked = 0;
    for page in pages().iter().filter(|page| *page == "README.md" || page.starts_with("docs/")) {
        for block in split(&read(page)).1.iter().filter(|block| block.language == "toml") {
            checked += 1;
            let folder = tempfile::tempdir().unwrap();
            let private = |name: &str, text: &str, mode| {
                fs::write(folder.path().join(name), text).unwrap();
                fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
            };
            let mut text = block.text.clone();
            for line in block.text.lines() {
                let (key, value) = line.split_once(" = ").unwrap_or_default();
                if key.ends_with("_file") {
                    let value = value.split('"').nth(1).unwrap();
                    let headers = key == "headers_file";
                    private(
                        value,
                        if headers { "Authorization: Bearer abc\n" } else { "a-good-secret-of-this-test\n" },
                        0o600,
                    );
                }
                if key == "command" {
                    let program = value.split('"').nth(1).unwrap();
                    private("program", "#!/bin/sh\n", 0o755);
                    text = text.replace(program, folder.path().join("program").to_str().unwrap());
                }
            }
            if !text.contains("[twitch]") {
                text = format!("[twitch]\nclient_id = \"abc\"\n{text}");
            }
            if !text.contains("[[subscription]]") {
                text += "\n[[subscription]]\ntype = [\"stream.online\", \"channel.follow\"]\nbroadcaster = \"ann\"\n";
            }
            private("config.toml", &text, 0o600);
            let options = LoadOptions {
                path: folder.path().join("config.toml"),
                state_dir: Some(folder.path().join("state")),
                env: Environment::default(),
                sandbox: false,
                secrets: Secrets::Optional,
            };
            match config::load(&options) {
                Ok(_) => {}
                Err(errors) => panic!("{page} shows a configuration with a mistake:\n{text}\n{errors}"),
            }
        }
    }
    assert!(checked > 10, "only {checked} examples were found");
}

#[test]
fn the_page_about_commands_has_each_command_once() {
    let help = Command::new(env!("CARGO_BIN_EXE_eventsubd")).arg("-h").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let list = help.split("\nCommands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let words = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands: BTreeSet<&str> = words.filter(|word| !["", "help"].contains(word)).collect();
    assert!(commands.len() > 10, "{commands:?}");
    let page = read("docs/commands.md");
    let table = page.split("\n## ").next().unwrap();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split("` | ").next());
    let described: BTreeSet<&str> =
        cells.flat_map(|cell| cell.split("`, `")).map(|usage| usage.split(' ').next().unwrap()).collect();
    assert_eq!(described, commands);
}

/// Splits a line of a shell into commands of words: quotes, comments, `&&`, `;`, `|` and redirections are understood.
fn shell_commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '&' | ';' | '|' | '>' | '(' | ')') => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is left open: {line}");
    words.extend(word);
    commands.push(words);
    commands
}

/// Returns the arguments of the commands of a script that run the program, each from the name of the program on.
fn invocations(script: &str) -> Vec<Vec<String>> {
    let script = script.replace("\\\n", " ");
    let lines = script.lines().map(|line| line.strip_prefix("$ ").unwrap_or(line));
    let commands = lines.flat_map(shell_commands).filter_map(|words| {
        let is_setting = |word: &&String| {
            word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && !name.starts_with('-'))
        };
        let words: Vec<String> =
            words.iter().skip_while(|word| *word == "sudo" || is_setting(word)).cloned().collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (["eventsubd", arguments @ ..] | ["cargo", "run", "--", arguments @ ..]) = words.as_slice()
        else {
            return None;
        };
        Some(["eventsubd"].iter().chain(arguments).map(|word| (*word).to_owned()).collect())
    });
    commands.collect()
}

#[test]
fn commands_are_found_in_scripts() {
    let script = "$ A=b sudo eventsubd run -c 'my file' # eventsubd nothing\nfalse && cargo run -- \\\n  status >x\nls eventsubd\n";
    assert_eq!(invocations(script), [&["eventsubd", "run", "-c", "my file"][..], &["eventsubd", "status"]]);
}

#[test]
fn every_command_in_a_script_of_a_page_can_be_typed() {
    let mut found = 0;
    for page in pages() {
        for block in
            split(&read(&page)).1.iter().filter(|block| ["sh", "console"].contains(&&*block.language))
        {
            for words in invocations(&block.text) {
                found += 1;
                if let Err(error) = Args::try_parse_from(&words) {
                    panic!("{page} shows a command that does not exist: {}\n{error}", words.join(" "));
                }
            }
        }
    }
    assert!(found > 15, "only {found} commands were found");
}

#[test]
fn every_command_in_the_prose_of_a_page_can_be_typed() {
    let mut found = 0;
    for page in pages() {
        let prose = split(&read(&page)).0;
        for code in prose.split('`').skip(1).step_by(2).filter(|code| code.starts_with("eventsubd ")) {
            let words = invocations(code).pop().unwrap_or_default();
            if words.get(1).is_some_and(|command| command == "COMMAND") {
                continue;
            }
            found += 1;
            let fine = match Args::try_parse_from(&words).map_err(|error| error.kind()) {
                Ok(_) | Err(ErrorKind::DisplayVersion) => true,
                // The bare name of a command that needs more.
                Err(
                    ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingRequiredArgument,
                ) => words.len() == 2,
                Err(_) => false,
            };
            assert!(fine, "{page} names a command that does not exist: `{code}`");
        }
    }
    assert!(found > 50, "only {found} commands were found");
}

/// A row of the table of keys.
fn row(key: &Key) -> String {
    let (kind, range) = key.kind.describe();
    let mut text = format!("{}{}.", key.doc[..1].to_uppercase(), &key.doc[1..]);
    for more in
        range.iter().map(String::as_str).chain(key.needs_restart.then_some("A reload cannot change it."))
    {
        text += &format!(" {more}");
    }
    if !key.only.is_empty() {
        let types: Vec<String> = key.only.iter().map(|only| format!("`{}`", only.name())).collect();
        text += &format!(" For {}.", types.join(", "));
    }
    let default = match key.default {
        Some(default) => format!("`{default}`"),
        None if key.required => "required".to_owned(),
        None => String::new(),
    };
    format!("| `{}` | {kind} | {default} | {text} |\n", key.name())
}

#[test]
fn the_page_of_keys_is_the_table_of_keys() {
    let mut page = String::from(
        "# All keys\n\nEvery key of the configuration file. [Configuration](configuration.md) explains how they go \
         together, and [`config.toml.example`](../config.toml.example) shows them in use. In the environment, a key is \
         `EVENTSUBD_SECTION__KEY`. `cargo test --test docs` compares this page with the table in `src/config/keys`; \
         with `UPDATE_EXPECT=1` it writes the page.\n",
    );
    let mut last = "";
    for key in config::keys() {
        let (section, _) = key.path.rsplit_once('.').unwrap();
        if section != last {
            last = section;
            let heading = match section {
                "subscription" => "[[subscription]]".to_owned(),
                section => format!("[{}]", section.replace('*', "NAME")),
            };
            page += &format!("\n## `{heading}`\n\n| key | value | default | meaning |\n|---|---|---|---|\n");
        }
        page += &row(key);
    }
    assert!(config::keys().len() > 50);
    let operating = read("docs/operating.md");
    for key in config::keys().iter().filter(|key| key.needs_restart) {
        assert!(
            operating.contains(&format!("`{}`", key.path)),
            "docs/operating.md: {} needs a restart",
            key.path
        );
    }
    expect_file![root().join("docs/keys.md")].assert_eq(&page);
}

/// Returns the program of a language in the README.
fn program(language: &str) -> String {
    let found = split(&read("README.md")).1.into_iter().find(|block| block.language == language);
    found.unwrap_or_else(|| panic!("README.md has no program in {language}")).text
}

#[test]
fn the_python_program_prints_who_is_live() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("on-event.py");
    fs::write(&path, program("python")).unwrap();
    let mut child = Command::new("python3")
        .arg(&path)
        .env("EVENTSUB_TYPE", "stream.online")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let message = r#"{"metadata":{},"payload":{"event":{"broadcaster_user_name":"Ann","started_at":"2026-11-02T09:00:00Z"}}}"#;
    child.stdin.take().unwrap().write_all(message.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "Ann is live since 2026-11-02T09:00:00Z\n");
}

#[test]
fn the_node_program_takes_signed_requests_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.mjs");
    let listen = ".listen(3000, \"127.0.0.1\")";
    let program = program("js");
    assert!(program.contains(listen), "{program}");
    let any_port = ".listen(0, \"127.0.0.1\", function () { console.log(this.address().port); })";
    fs::write(&path, program.replace(listen, any_port)).unwrap();
    let mut server = Command::new("node").arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let port: u16 = lines.next().unwrap().unwrap().parse().unwrap();
    let body = r#"{"subscription":{},"event":{"broadcaster_user_login":"ann"}}"#;
    let send = |secret: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("m12026-11-02T09:00:00Z{body}").as_bytes());
        let signature: String =
            mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\nTwitch-Eventsub-Message-Id: m1\r\n\
             Twitch-Eventsub-Message-Timestamp: 2026-11-02T09:00:00Z\r\nTwitch-Eventsub-Message-Signature: \
             sha256={signature}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(send("another-secret"), "403");
    assert_eq!(send("a-secret-of-your-own"), "204");
    assert!(lines.next().unwrap().unwrap().contains("broadcaster_user_login: 'ann'"));
    server.kill().unwrap();
    server.wait().unwrap();
}
