//! The house rules that the compiler does not know: who may import whom, and which files are pure.
//!
//! `ARCHITECTURE.md` explains both tables. Every check asserts that it read files, so that a moved
//! directory cannot make it pass by looking at nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Who may import whom. Everybody may import itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("admission", &[]),
    ("samples", &["model"]),
    ("config", &["model", "samples"]),
    ("telemetry", &["model"]),
    ("store", &["model"]),
    ("platform", &["model"]),
    ("sandbox", &["model", "samples", "platform"]),
    ("auth", &["model", "telemetry"]),
    ("helix", &["model", "auth", "telemetry"]),
    ("transport", &["model", "admission", "auth", "store", "telemetry"]),
    ("delivery", &["model", "samples", "auth", "store", "telemetry"]),
    ("reconcile", &["model", "helix", "telemetry"]),
    ("gaps", &["model", "helix", "store", "telemetry"]),
    ("admin", &["model", "admission", "store", "telemetry"]),
    (
        "daemon",
        &[
            "model",
            "admission",
            "samples",
            "config",
            "telemetry",
            "store",
            "platform",
            "sandbox",
            "auth",
            "helix",
            "transport",
            "delivery",
            "reconcile",
            "gaps",
            "admin",
        ],
    ),
    (
        "cli",
        &[
            "model",
            "admission",
            "samples",
            "config",
            "telemetry",
            "store",
            "platform",
            "sandbox",
            "auth",
            "helix",
            "transport",
            "delivery",
            "reconcile",
            "gaps",
            "admin",
            "daemon",
        ],
    ),
];

/// The pure files (or folders): told the time, no runtime, no input or output, no logging.
const PURE: &[&str] = &[
    "model",
    "samples",
    "config/keys/schema",
    "config/subscription/expand",
    "config/report/diagnostic",
    "config/diff",
    "telemetry/metrics",
    "telemetry/limit",
    "admission/activity",
    "admission/places",
    "auth/token",
    "auth/oauth",
    "helix/request",
    "helix/answer",
    "helix/status",
    "helix/pacer",
    "platform/exchange",
    "platform/ids",
    "platform/message",
    "platform/moment",
    "platform/request",
    "platform/routing",
    "platform/rules",
    "platform/session",
    "platform/status",
    "platform/subscription",
    "platform/webhook",
    "sandbox/edit",
    "reconcile/decide",
    "reconcile/bind/hooks",
    "reconcile/bind/shards",
    "reconcile/preview/limits",
    "reconcile/preview/render",
    "store/age",
    "store/ids",
    "store/places",
    "store/removals",
    "transport/notification",
    "transport/webhook/clock",
    "transport/webhook/verify",
    "transport/websocket/dating",
    "transport/websocket/frame",
    "transport/websocket/session",
    "delivery/gate",
    "delivery/outgoing",
    "delivery/backlog",
    "delivery/retry",
    "delivery/format",
    "delivery/select",
    "delivery/verdict",
    "delivery/window",
    "gaps/event",
    "gaps/memory",
    "gaps/sights",
    "gaps/timeline",
    "gaps/watcher",
    "admin/page/chart",
    "admin/page/rows",
    "admin/page/view",
    "admin/search",
    "admin/subscriptions",
    "admin/tail",
    "admin/throttle",
    "admin/token",
    "daemon/watchdog",
];

/// What a pure file must not name.
const IMPURE_NAMES: &[&str] = &[
    "tokio",
    "tokio_util",
    "tokio_tungstenite",
    "tracing",
    "reqwest",
    "rusqlite",
    "hyper",
    "hyper_util",
    "axum",
    "fastrand",
    "fs",
    "net",
    "thread",
    "process",
    "stdout",
    "stderr",
    "println",
    "eprintln",
    "elapsed",
    "env",
];

/// Stands in the head of each pure file; that of a `mod.rs` is for its folder.
const MARK: char = '◆';

struct Source {
    /// Relative to `src`, without `.rs`; `mod.rs` stands for its folder.
    name: String,
    room: String,
    tokens: TokenStream,
    is_marked: bool,
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable folder") {
        let path = entry.expect("readable entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    rust_files(&root, &mut paths);
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let relative = path.strip_prefix(&root).expect("below src").with_extension("");
            let name = relative.to_str().expect("UTF-8").trim_end_matches("/mod").to_owned();
            let room = name.split('/').next().expect("not empty").to_owned();
            let text = fs::read_to_string(path).expect("readable file");
            let tokens = text.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
            let is_marked =
                text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains(MARK));
            Source { name, room, tokens, is_marked }
        })
        .collect()
}

/// Calls `visit` with every run of tokens between two delimiters. `mod tests { … }` is left out
/// unless `with_tests`.
fn walk(tokens: TokenStream, with_tests: bool, visit: &mut impl FnMut(&[TokenTree])) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    visit(&trees);
    let is = |tree: Option<&TokenTree>, text: &str| tree.is_some_and(|t| t.to_string() == text);
    for (index, tree) in trees.iter().enumerate() {
        let TokenTree::Group(group) = tree else { continue };
        let of_tests = index >= 2
            && group.delimiter() == Delimiter::Brace
            && is(trees.get(index - 1), "tests")
            && is(trees.get(index - 2), "mod");
        if with_tests || !of_tests {
            walk(group.stream(), with_tests, visit);
        }
    }
}

fn ident(tree: Option<&TokenTree>) -> Option<String> {
    match tree {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

/// The rooms that a file names by `crate::room` or `crate::{room, …}`.
fn imports(source: &Source) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    walk(source.tokens.clone(), true, &mut |trees| {
        for (index, tree) in trees.iter().enumerate() {
            if ident(Some(tree)).is_none_or(|name| name != "crate") {
                continue;
            }
            match trees.get(index + 3) {
                Some(TokenTree::Ident(room)) => {
                    rooms.insert(room.to_string());
                }
                Some(TokenTree::Group(group)) => {
                    let mut first = true;
                    for inner in group.stream() {
                        match &inner {
                            TokenTree::Ident(room) if first => {
                                rooms.insert(room.to_string());
                                first = false;
                            }
                            TokenTree::Punct(p) if p.as_char() == ',' => first = true,
                            _ => first = false,
                        }
                    }
                }
                _ => {}
            }
        }
    });
    rooms
}

#[test]
fn every_room_imports_only_what_the_table_allows() {
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut read = BTreeMap::<String, usize>::new();
    let mut arrows = 0;
    for source in sources().iter().filter(|s| !["lib", "main"].contains(&s.room.as_str())) {
        *read.entry(source.room.clone()).or_default() += 1;
        let Some(allowed) = table.get(source.room.as_str()) else {
            wrong.push(format!("src/{}.rs: the room `{}` is not in the table", source.name, source.room));
            continue;
        };
        for room in imports(source) {
            if table.contains_key(room.as_str()) && room != source.room {
                arrows += 1;
                if !allowed.contains(&room.as_str()) {
                    wrong.push(format!("src/{}.rs imports crate::{room}", source.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "not in the import table:\n{}", wrong.join("\n"));
    for (room, _) in MAY_IMPORT {
        assert!(read.get(*room).is_some_and(|files| *files > 0), "no file of the room `{room}` was read");
    }
    assert!(arrows > 20, "only {arrows} imports between rooms were found: the check looks at nothing");
}

/// Whether a name of `std::net` is an address, or a group of addresses.
fn is_address(tree: &TokenTree) -> bool {
    const ADDRESSES: [&str; 3] = ["IpAddr", "SocketAddr", "AddrParseError"];
    match tree {
        TokenTree::Ident(name) => ADDRESSES.contains(&name.to_string().as_str()),
        TokenTree::Group(group) => {
            let mut inner = group.stream().into_iter();
            inner.all(|tree| !matches!(tree, TokenTree::Ident(_)) || is_address(&tree))
        }
        _ => false,
    }
}

#[test]
fn pure_files_are_told_the_time_and_touch_nothing() {
    let sources = sources();
    let mut wrong = Vec::new();
    for pure in PURE {
        let files: Vec<&Source> = sources
            .iter()
            .filter(|s| {
                s.name == *pure || s.name.strip_prefix(pure).is_some_and(|rest| rest.starts_with('/'))
            })
            .filter(|s| !s.name.ends_with("tests"))
            .collect();
        assert!(!files.is_empty(), "no file is called src/{pure}.rs or lies in src/{pure}/");
        for source in files {
            walk(source.tokens.clone(), false, &mut |trees| {
                for (index, tree) in trees.iter().enumerate() {
                    let Some(name) = ident(Some(tree)) else { continue };
                    let follows_path = index >= 1 && trees[index - 1].to_string() == ":";
                    let starts_path =
                        trees.get(index + 1).is_some_and(|t| [":", "!"].contains(&t.to_string().as_str()));
                    if name == "now" && follows_path && index >= 3 {
                        let of = trees[index - 3].to_string();
                        if ["Instant", "SystemTime"].contains(&of.as_str()) {
                            wrong.push(format!("src/{}.rs reads the clock: {of}::now", source.name));
                        }
                    }
                    let is_method = index >= 1 && trees[index - 1].to_string() == ".";
                    // `Instant::elapsed` takes no argument.
                    let reads_clock = matches!(
                        trees.get(index + 1), Some(TokenTree::Group(arguments)) if arguments.stream().is_empty()
                    );
                    let named = IMPURE_NAMES.contains(&name.as_str());
                    let is_used = match name.as_str() {
                        // Any struct may have a field of that name.
                        "elapsed" => is_method && reads_clock,
                        // Addresses are data.
                        "net" => trees.get(index + 3).is_some_and(|next| !is_address(next)) && follows_path,
                        _ => follows_path || starts_path,
                    };
                    if named && is_used {
                        wrong.push(format!("src/{}.rs names `{name}`", source.name));
                    }
                }
            });
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "impure:\n{}", wrong.join("\n"));
}

#[test]
fn the_mark_is_in_the_head_of_every_pure_file_and_of_no_other() {
    let mut wrong = Vec::new();
    let mut marked = 0;
    for source in sources() {
        let is_entry = PURE.contains(&source.name.as_str());
        let is_pure = is_entry
            || PURE
                .iter()
                .any(|pure| source.name.strip_prefix(pure).is_some_and(|rest| rest.starts_with('/')));
        marked += usize::from(source.is_marked);
        if is_entry && !source.is_marked {
            wrong.push(format!("src/{}.rs is in the list of pure files: its head needs {MARK}", source.name));
        }
        if source.is_marked && !is_pure {
            wrong.push(format!("src/{}.rs is marked {MARK}: add it to the list of pure files", source.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(marked >= PURE.len(), "only {marked} files are marked");
}

/// Macros that write a log line.
const LOG_MACROS: &[&str] = &[
    "trace",
    "debug",
    "info",
    "warn",
    "error",
    "event",
    "trace_span",
    "debug_span",
    "info_span",
    "warn_span",
    "error_span",
];

/// Files that may use Rust's `Debug` to write text, and why.
const DEBUG_FORMAT: &[(&str, &str)] = &[
    ("telemetry/journal", "gets each value of a log line as `Debug`"),
    ("telemetry/fields", "gets each value of a log line as `Debug`"),
    ("telemetry/metrics/encode", "writes a floating-point number so that it has a decimal point"),
];

/// Whether a field of a log macro is written as `?value` or `name = ?value`. The operator `?` follows a value.
fn has_debug_field(arguments: TokenStream) -> bool {
    let trees: Vec<TokenTree> = arguments.into_iter().collect();
    trees.iter().enumerate().any(|(index, tree)| {
        let follows_value = index > 0
            && !matches!(&trees[index - 1], TokenTree::Punct(p) if [',', '='].contains(&p.as_char()));
        matches!(tree, TokenTree::Punct(p) if p.as_char() == '?') && !follows_value
    })
}

/// Whether a literal has a placeholder such as `{:?}` or `{name:#?}`.
fn has_debug_placeholder(tree: &TokenTree) -> bool {
    match tree {
        TokenTree::Literal(literal) => literal.to_string().contains("?}"),
        TokenTree::Group(group) => group.stream().into_iter().any(|inner| has_debug_placeholder(&inner)),
        _ => false,
    }
}

#[test]
fn debug_fields_and_placeholders_are_found() {
    let fields = |text: &str| has_debug_field(text.parse().expect("tokens"));
    assert!(fields("?error, \"x\"") && fields("a = 1, why = ?error") && fields("%a, ?b"));
    assert!(!fields("error = call()?, \"x\"") && !fields("%error, a = b.c()?"));
    let literal = |text: &str| {
        text.parse::<TokenStream>().expect("tokens").into_iter().any(|tree| has_debug_placeholder(&tree))
    };
    assert!(literal("f(\"{:?}\", a)") && literal("\"{a:#?}\""));
    assert!(!literal("\"why? {a}\""));
}

#[test]
fn people_never_read_debug_text() {
    let (mut wrong, mut logs, mut formats) = (Vec::new(), 0, 0);
    for source in sources() {
        if source.name.ends_with("tests") || source.name.contains("/tests/") || source.name.ends_with("/fake")
        {
            continue;
        }
        let excepted = DEBUG_FORMAT.iter().any(|(name, _)| *name == source.name);
        walk(source.tokens.clone(), false, &mut |trees| {
            for (index, tree) in trees.iter().enumerate() {
                let (Some(name), Some(TokenTree::Group(arguments))) =
                    (ident(Some(tree)), trees.get(index + 2))
                else {
                    continue;
                };
                if trees.get(index + 1).is_none_or(|next| next.to_string() != "!") {
                    continue;
                }
                let is_log = LOG_MACROS.contains(&name.as_str());
                logs += usize::from(is_log);
                formats += 1;
                if is_log && has_debug_field(arguments.stream()) {
                    wrong.push(format!("src/{}.rs: {name}! writes a field with `?`", source.name));
                }
                if !excepted && has_debug_placeholder(&trees[index + 2]) {
                    wrong.push(format!("src/{}.rs: {name}! writes a value with `{{:?}}`", source.name));
                }
            }
        });
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "Rust's `Debug` is for developers:\n{}", wrong.join("\n"));
    assert!(logs > 100 && formats > 500, "only {logs} log calls and {formats} macros were found");
    for (name, why) in DEBUG_FORMAT {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{name}.rs"));
        assert!(path.exists(), "{name} is gone; it was said that it {why}");
    }
}

/// Returns `1.89` as (1, 89).
fn rust_version(text: &str) -> (u64, u64) {
    let mut numbers = text.split('.').map(|number| number.parse().expect("a number"));
    (numbers.next().expect("a major version"), numbers.next().unwrap_or(0))
}

#[test]
fn no_dependency_needs_a_newer_rust_than_the_manifest_names() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours = rust_version(env!("CARGO_PKG_RUST_VERSION"));
    let needs = packages
        .iter()
        .filter_map(|package| Some((package["name"].as_str()?, package["rust_version"].as_str()?)));
    let (mut newer, mut looked_at) = (Vec::new(), 0);
    for (name, version) in needs {
        looked_at += 1;
        if rust_version(version) > ours {
            newer.push(format!("{name} needs {version}"));
        }
    }
    assert!(newer.is_empty(), "newer than {ours:?}: {newer:?}");
    assert!(looked_at > 100, "only {looked_at} dependencies name a version");
}

/// Returns the bodies of the functions of a file, without those of its tests, as text without blanks between tokens.
fn bodies(source: &Source) -> Vec<String> {
    let mut bodies = Vec::new();
    walk(source.tokens.clone(), false, &mut |trees| {
        for (index, _) in trees.iter().enumerate().filter(|(_, tree)| tree.to_string() == "fn") {
            let body = trees[index..].iter().find_map(|tree| match tree {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group),
                _ => None,
            });
            bodies.extend(body.map(|body| body.stream().to_string().replace([' ', '\n'], "")));
        }
    });
    bodies
}

/// A command in a message carries the flags that this one was given, which `Args::say`, `Args::print` and
/// `Failure::report` add. `term::write` is for data.
#[test]
fn no_message_of_a_command_bypasses_the_function_that_completes_its_commands() {
    let sources = sources();
    let (mut wrong, mut said, mut written) = (Vec::new(), 0, 0);
    for source in sources.iter().filter(|source| source.room == "cli" && source.name != "cli/term") {
        for body in bodies(source) {
            let names_a_command = body.contains("`eventsubd");
            let writes_data = body.contains("term::write(");
            said += usize::from(names_a_command);
            written += usize::from(writes_data);
            if body.contains("stderr()") {
                wrong.push(format!("src/{}.rs writes to stderr by itself: use `Args::say`", source.name));
            }
            if names_a_command && writes_data {
                wrong.push(format!("src/{}.rs writes a command as data: use `Args::print`", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(said > 10 && written > 2, "{said} functions with commands and {written} with data were found");
}
