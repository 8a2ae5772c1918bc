//! The house rules that the compiler does not know: who may import whom, and which files are pure.
//!
//! `ARCHITECTURE.md` explains both tables. Every check asserts that it read files, so that a moved
//! directory cannot make it pass by looking at nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Permitted imports of each room. A room may import itself.
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
    ("delivery", &["model", "samples", "auth", "store", "cluster", "telemetry"]),
    ("reconcile", &["model", "helix", "telemetry"]),
    ("gaps", &["model", "helix", "store", "telemetry"]),
    ("cluster", &["model", "auth", "store", "telemetry"]),
    ("admin", &["model", "admission", "store", "telemetry"]),
    ("invite", &["model", "samples", "admission", "auth", "telemetry"]),
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
            "cluster",
            "admin",
            "invite",
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
            "cluster",
            "admin",
            "invite",
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
    "telemetry/outage",
    "admission/activity",
    "admission/places",
    "auth/token",
    "auth/oauth",
    "invite/bucket",
    "invite/invitation",
    "invite/needs",
    "invite/outcomes",
    "invite/page",
    "invite/request",
    "invite/visits",
    "invite/words",
    "helix/request",
    "helix/answer",
    "helix/status",
    "helix/pacer",
    "platform/endpoint",
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
    "reconcile/bind/alone",
    "reconcile/bind/hooks",
    "reconcile/bind/schedule",
    "reconcile/bind/shards",
    "reconcile/preview/limits",
    "reconcile/preview/render",
    "store/age",
    "store/ids",
    "store/pending",
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
    "delivery/returning",
    "delivery/format",
    "delivery/select",
    "delivery/verdict",
    "delivery/window",
    "gaps/breaks",
    "gaps/catch_up/decide",
    "gaps/catch_up/elsewhere",
    "gaps/catch_up/findings",
    "gaps/catch_up/latest",
    "gaps/catch_up/list",
    "gaps/catch_up/make",
    "gaps/catch_up/options",
    "gaps/catch_up/schedule",
    "gaps/event",
    "gaps/gap",
    "gaps/memory",
    "gaps/sights",
    "gaps/timeline",
    "gaps/view",
    "gaps/watcher",
    "cluster/age",
    "cluster/alone",
    "cluster/assign",
    "cluster/assigner",
    "cluster/bound",
    "cluster/era",
    "cluster/handover",
    "cluster/health",
    "cluster/lease",
    "cluster/log/letter",
    "cluster/log/message",
    "cluster/log/ring",
    "cluster/offset",
    "cluster/own_keys",
    "cluster/parts",
    "cluster/place",
    "cluster/presence",
    "cluster/remembered",
    "cluster/report",
    "cluster/saving",
    "cluster/sessions",
    "cluster/sight",
    "cluster/standing",
    "cluster/term",
    "cluster/values",
    "admin/change",
    "admin/filter",
    "admin/page/chart",
    "admin/page/history",
    "admin/page/hosts",
    "admin/page/level",
    "admin/page/rows",
    "admin/page/view",
    "admin/rights",
    "admin/search",
    "admin/subscriptions",
    "admin/tail",
    "admin/throttle",
    "admin/token",
    "daemon/pinned",
    "daemon/watchdog",
    "cli/brief",
    "cli/init/listing",
    "cli/moment",
];

/// Names that a pure file must not use.
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
    ("telemetry/json", "gets each value of a log line as `Debug`"),
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

#[test]
fn only_one_file_has_a_call_that_the_compiler_cannot_check() {
    let mut found = BTreeSet::new();
    for source in sources() {
        walk(source.tokens, true, &mut |trees| {
            if trees.iter().any(|tree| tree.to_string() == "unsafe") {
                found.insert(source.name.clone());
            }
        });
    }
    assert_eq!(found, BTreeSet::from(["store/heap".to_owned()]));
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
    for source in sources.iter().filter(|source| {
        source.room == "cli" && !["cli/term", "cli/progress"].contains(&source.name.as_str())
    }) {
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

/// Files and folders that may name each other, and why.
const CIRCLES: &[(&[&str], &str)] =
    &[(&["sandbox"], "every handler names the world's state, which names the handlers' types")];

/// Whether all files of a circle are among these files, or in these folders.
fn are_in(files: &[String], named: &[&str]) -> bool {
    let is_in = |file: &String| {
        named
            .iter()
            .any(|name| file == name || file.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')))
    };
    files.iter().all(is_in)
}

/// One `use` of an item, as path segments from the root of the crate, and the name that it gets.
struct Used {
    path: Vec<String>,
    name: String,
    is_reexport: bool,
}

/// The tokens without what is compiled for tests only.
fn without_tests(tokens: TokenStream) -> Vec<TokenTree> {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let mut kept = Vec::new();
    let mut index = 0;
    while index < trees.len() {
        let is_test = trees[index].to_string() == "#"
            && matches!(trees.get(index + 1), Some(TokenTree::Group(group)) if {
                let text: String = group.stream().to_string().split_whitespace().collect();
                text == "cfg(test)"
            });
        if !is_test {
            kept.push(trees[index].clone());
            index += 1;
            continue;
        }
        // The item ends with its block or its semicolon.
        index += 2;
        while let Some(tree) = trees.get(index) {
            index += 1;
            let ends = match tree {
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                tree => tree.to_string() == ";",
            };
            if ends {
                break;
            }
        }
    }
    kept
}

/// Adds the paths of a `use` tree.
fn use_tree(trees: &[TokenTree], prefix: &[String], found: &mut Vec<(Vec<String>, String)>) {
    for part in trees.split(|tree| tree.to_string() == ",") {
        let mut path = prefix.to_vec();
        let mut name = None;
        let mut rest = part.iter().peekable();
        let mut is_group = false;
        while let Some(tree) = rest.next() {
            match tree {
                TokenTree::Group(group) => {
                    is_group = true;
                    use_tree(&group.stream().into_iter().collect::<Vec<_>>(), &path, found);
                }
                TokenTree::Ident(ident) if *ident == "as" => name = rest.next().map(ToString::to_string),
                TokenTree::Ident(ident) => path.push(ident.to_string()),
                _ => {}
            }
        }
        if is_group || path.len() == prefix.len() {
            continue;
        }
        // `{self, …}` stands for the module itself.
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
        found.push((path, name));
    }
}

/// The uses of a file's items and, as re-exports without a name, the paths within its code.
fn uses(trees: &[TokenTree], found: &mut Vec<Used>) {
    let mut index = 0;
    while index < trees.len() {
        match &trees[index] {
            TokenTree::Ident(ident) if *ident == "use" => {
                let end = trees[index..].iter().position(|tree| tree.to_string() == ";");
                let end = end.map_or(trees.len(), |end| index + end);
                // `pub use`, or `pub(in …) use`.
                let before = trees[..index].iter().rev().take(2).map(ToString::to_string).collect::<Vec<_>>();
                let is_reexport = before.first().is_some_and(|last| last == "pub")
                    || before.first().is_some_and(|last| last.starts_with('('))
                        && before.get(1).is_some_and(|pub_| pub_ == "pub");
                let mut paths = Vec::new();
                use_tree(&trees[index + 1..end], &[], &mut paths);
                found.extend(paths.into_iter().map(|(path, name)| Used { path, name, is_reexport }));
                index = end;
            }
            TokenTree::Ident(ident) => {
                let before =
                    |back: usize, text: &str| index >= back && trees[index - back].to_string() == text;
                // One colon stands before a type.
                let follows_path = before(1, ".") || before(1, ":") && before(2, ":");
                let mut path = vec![ident.to_string()];
                let mut next = index + 1;
                let is = |at: usize, text: &str| trees.get(at).is_some_and(|tree| tree.to_string() == text);
                while is(next, ":") && is(next + 1, ":") {
                    let Some(TokenTree::Ident(segment)) = trees.get(next + 2) else { break };
                    path.push(segment.to_string());
                    next += 3;
                }
                if path.len() > 1 && !follows_path {
                    found.push(Used { path, name: String::new(), is_reexport: false });
                }
                index = next - 1;
            }
            // Where something is visible is not a use.
            TokenTree::Group(group) if index > 0 && trees[index - 1].to_string() == "pub" => {
                let _ = group;
            }
            TokenTree::Group(group) => uses(&without_tests(group.stream()), found),
            _ => {}
        }
        index += 1;
    }
}

/// A path of a file from the root of the crate; `None` if it leads out of the crate.
fn absolute(file: &[String], path: &[String], modules: &BTreeSet<String>) -> Option<Vec<String>> {
    let first = path.first()?;
    let mut base = file.to_vec();
    match first.as_str() {
        "crate" => return Some(path[1..].to_vec()),
        "self" => base.extend_from_slice(&path[1..]),
        "super" => {
            let ups = path.iter().take_while(|segment| *segment == "super").count();
            base.truncate(base.len().saturating_sub(ups));
            base.extend_from_slice(&path[ups..]);
        }
        _ => {
            // A module below this file.
            base.extend_from_slice(path);
            if !modules.contains(&base[..=file.len()].join("/")) {
                return None;
            }
        }
    }
    Some(base)
}

type Reexports = BTreeMap<(String, String), Vec<String>>;

/// The file in which the item of a path is defined.
fn defined_in(
    path: &[String],
    modules: &BTreeSet<String>,
    reexports: &Reexports,
    depth: usize,
) -> Option<String> {
    let module = (1..=path.len()).rev().find(|end| modules.contains(&path[..*end].join("/")))?;
    let name = path[..module].join("/");
    let Some(item) = path.get(module) else { return Some(name) };
    match reexports.get(&(name.clone(), item.clone())) {
        Some(target) if depth < 8 => {
            let target: Vec<String> = target.iter().chain(&path[module + 1..]).cloned().collect();
            defined_in(&target, modules, reexports, depth + 1)
        }
        _ => Some(name),
    }
}

/// The files of each circle: those that can be reached from each other.
fn circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<Vec<String>> {
    let reached = |start: &str| {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = vec![start];
        while let Some(file) = open.pop() {
            for next in arrows.get(file).into_iter().flatten() {
                if reached.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        reached
    };
    let all: BTreeMap<&str, BTreeSet<&str>> =
        arrows.keys().map(|file| (file.as_str(), reached(file))).collect();
    let circle = |file: &str| -> Vec<String> {
        let back = |other: &&str| all.get(other).is_some_and(|reached| reached.contains(file));
        all[file].iter().copied().filter(back).map(str::to_owned).collect()
    };
    all.keys().map(|file| circle(file)).filter(|files| files.len() > 1).collect()
}

/// Which file of a room names an item of which other file of that room.
fn arrows(sources: &[(String, TokenStream)]) -> BTreeMap<String, BTreeSet<String>> {
    let modules: BTreeSet<String> = sources.iter().map(|(name, _)| name.clone()).collect();
    let mut reexports = Reexports::new();
    let mut used = Vec::new();
    for (name, tokens) in sources {
        let file: Vec<String> = name.split('/').map(str::to_owned).collect();
        let mut found = Vec::new();
        uses(&without_tests(tokens.clone()), &mut found);
        for Used { path, name: item, is_reexport } in found {
            let Some(path) = absolute(&file, &path, &modules) else { continue };
            if is_reexport {
                reexports.insert((name.clone(), item), path);
            } else {
                used.push((name.clone(), path));
            }
        }
    }
    let mut arrows = BTreeMap::<String, BTreeSet<String>>::new();
    for (from, path) in used {
        let Some(to) = defined_in(&path, &modules, &reexports, 0) else { continue };
        if to != from && to.split('/').next() == from.split('/').next() {
            arrows.entry(from).or_default().insert(to);
        }
    }
    arrows
}

#[test]
fn circles_are_found() {
    let found = |files: &[(&str, &str)]| {
        let sources: Vec<(String, TokenStream)> =
            files.iter().map(|(name, text)| ((*name).to_owned(), text.parse().expect("tokens"))).collect();
        circles(&arrows(&sources)).into_iter().map(|files| files.join(" ")).collect::<Vec<_>>()
    };
    // A type in the room's face that a file below it names.
    assert_eq!(found(&[("a", "mod b; use self::b::B; pub struct A;"), ("a/b", "use super::A;")]), ["a a/b"]);
    assert_eq!(found(&[("a", "mod b; fn f() { b::g() }"), ("a/b", "fn g() { crate::a::f() }")]), ["a a/b"]);
    let groups = [("a/b", "use super::{c::{C, D}, X};"), ("a/c", "fn f(x: super::b::B) {}"), ("a", "")];
    assert_eq!(found(&groups), ["a/b a/c"]);
    // A re-export is the file that it leads to, and by itself no use.
    let face = ("a", "mod b; mod c; pub use self::b::B; pub(crate) use self::c::C;");
    assert_eq!(found(&[face, ("a/b", "use super::C;"), ("a/c", "")]), [""; 0]);
    assert_eq!(found(&[face, ("a/b", "use super::C;"), ("a/c", "use crate::a::B as Other;")]), ["a/b a/c"]);
    // Tests may look at everything, and visibility is no use.
    let tests = "#[cfg(test)] mod tests { use super::super::A; } pub(in crate::a) fn g() {}";
    assert_eq!(found(&[("a", "mod b; use self::b::B;"), ("a/b", tests)]), [""; 0]);
    // Another room is the business of the import table.
    assert_eq!(found(&[("a", "use crate::b::B;"), ("b", "use crate::a::A;")]), [""; 0]);
}

#[test]
fn files_of_a_room_do_not_run_in_circles() {
    let sources: Vec<(String, TokenStream)> = sources()
        .into_iter()
        .filter(|source| !["lib", "main"].contains(&source.room.as_str()) && !is_for_tests(&source.name))
        .map(|source| (source.name, source.tokens))
        .collect();
    let arrows = arrows(&sources);
    let count: usize = arrows.values().map(BTreeSet::len).sum();
    assert!(sources.len() > 200 && count > 400, "only {count} arrows between {} files", sources.len());
    let found = circles(&arrows);
    let is_named = |files: &&Vec<String>| CIRCLES.iter().any(|(named, _)| are_in(files, named));
    let wrong: Vec<String> = found
        .iter()
        .filter(|files| !is_named(files))
        .map(|files| {
            let inside = |file: &String| {
                let to = arrows[file].iter().filter(|to| files.contains(to)).cloned().collect::<Vec<_>>();
                format!("  {file} names {}", to.join(", "))
            };
            files.iter().map(inside).collect::<Vec<_>>().join("\n")
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "files that name each other; move what both need into a file of its own:\n{}",
        wrong.join("\n\n")
    );
    for (named, why) in CIRCLES {
        let stays = found.iter().any(|files| are_in(files, named));
        assert!(stays, "{named:?} has no circle any more ({why}): take it off the list");
    }
}

/// Whether a file is compiled for tests only.
fn is_for_tests(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("tests") || name.ends_with("/fake") || name == "model/example"
}
