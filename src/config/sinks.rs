//! The sinks: which keys go with which type, and what two sinks cannot share.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use crate::model::catalog;
use crate::model::route::SinkName;

use super::check::Layer;
use super::diagnostic::{Level, closest, quote};
use super::merge;
use super::problems::{At, Problems};
use super::schema;
use super::settings::{Sink, SinkKind};

/// The sink that a file without any has.
const DEFAULT_SINK: &str = "stdout";

/// The names of all sinks, also of those with errors.
pub(super) fn names<'a>(file: &'a Layer, variables: &'a Layer) -> Vec<&'a str> {
    let mut names: Vec<&str> = file.sinks.keys().chain(variables.sinks.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        names.push(DEFAULT_SINK);
    }
    names
}

/// Checks and builds the sinks. Relative paths start at `base`.
pub(super) fn build(
    merged: BTreeMap<String, merge::Sink>,
    file: &Layer,
    variables: &Layer,
    base: &Path,
    problems: &mut Problems,
) -> BTreeMap<SinkName, Sink> {
    let mut builder = Builder { file, variables, base, problems, targets: HashMap::new() };
    let mut sinks: BTreeMap<SinkName, Sink> = merged
        .into_iter()
        .filter_map(|(name, sink)| {
            let sink = builder.sink(&name, sink)?;
            Some((SinkName::new(name), sink))
        })
        .collect();
    if file.sinks.is_empty() && variables.sinks.is_empty() {
        sinks.insert(SinkName::new(DEFAULT_SINK), default_sink());
    }
    sinks
}

fn default_sink() -> Sink {
    let default = |name: &str| {
        let text = schema::find(&format!("sink.*.{name}")).and_then(|key| key.default).unwrap_or_default();
        humantime::parse_duration(text.trim_matches('"')).unwrap_or_default()
    };
    Sink {
        types: vec!["*".to_owned()],
        retry_max: default("retry_max"),
        give_up_after: default("give_up_after"),
        kind: SinkKind::Stdout,
    }
}

struct Builder<'a> {
    file: &'a Layer,
    variables: &'a Layer,
    base: &'a Path,
    problems: &'a mut Problems,
    /// What is written to, and by which sink.
    targets: HashMap<Option<PathBuf>, (String, At)>,
}

impl Builder<'_> {
    fn sink(&mut self, name: &str, sink: merge::Sink) -> Option<Sink> {
        let header = self.file.sinks.get(name).or_else(|| self.variables.sinks.get(name));
        let header = header.cloned().unwrap_or(At::Nowhere);
        self.check_types(name, &sink.types);
        let Some(kind) = sink.kind else {
            // A type that is there, but wrong, has been reported.
            if self.seen(&format!("sink.{name}.type")).is_none() {
                self.problems
                    .error(&header, format!("sink `{name}` has no `type`"))
                    .hint("for example `type = \"stdout\"` or `type = \"file\"`");
            }
            return None;
        };
        self.check_keys(name, &kind);
        let kind = if kind == "file" {
            if sink.rotate_size.is_none()
                && let Some(at) = self.seen(&format!("sink.{name}.rotate_keep"))
            {
                self.problems
                    .warning(&at, "`rotate_keep` does nothing without `rotate_size`")
                    .hint("for example `rotate_size = \"100MiB\"`");
            }
            let Some(path) = &sink.path else {
                if self.seen(&format!("sink.{name}.path")).is_none() {
                    self.problems
                        .error(&header, format!("sink `{name}` has no `path`"))
                        .hint("the file that events are appended to: `path = \"events.jsonl\"`");
                }
                return None;
            };
            let path = self.base.join(path);
            SinkKind::File { path, rotate_size: sink.rotate_size, rotate_keep: sink.rotate_keep }
        } else {
            SinkKind::Stdout
        };
        self.check_target(name, &kind, header);
        Some(Sink { types: sink.types, retry_max: sink.retry_max, give_up_after: sink.give_up_after, kind })
    }

    fn seen(&self, path: &str) -> Option<At> {
        self.variables.seen.get(path).or_else(|| self.file.seen.get(path)).cloned()
    }

    fn value_place(&self, path: &str) -> At {
        let value = self.variables.values.get(path).or_else(|| self.file.values.get(path));
        value.map_or(At::Nowhere, |(_, at)| at.clone())
    }

    /// Keys that are there, but belong to another type of sink.
    fn check_keys(&mut self, name: &str, kind: &str) {
        for key in schema::keys().iter().filter(|key| !key.only.is_empty() && !key.only.contains(&kind)) {
            let Some(at) = self.seen(&format!("sink.{name}.{}", key.name())) else { continue };
            let types = key.only.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(" and ");
            let later = if key.supported { "" } else { ", which are not supported yet" };
            self.problems
                .error(&at, format!("a sink of type `{kind}` has no `{}`", key.name()))
                .hint(format!("it belongs to sinks of type {types}{later}"));
        }
    }

    fn check_types(&mut self, name: &str, types: &[String]) {
        let path = format!("sink.{name}.types");
        if types.is_empty() {
            let at = self.value_place(&path);
            self.problems
                .warning(&at, format!("`types` of sink `{name}` is an empty list: it gets no events"))
                .hint("leave it out to send it all events");
        }
        for text in types {
            match globset::Glob::new(text) {
                Err(error) => {
                    let at = self.value_place(&path);
                    self.problems
                        .error(&at, format!("{} is no glob: {}", quote(text), error.kind()))
                        .hint("for example \"stream.*\" or \"channel.chat.*\"");
                }
                Ok(glob) => {
                    let matcher = glob.compile_matcher();
                    if !catalog::names().any(|name| matcher.is_match(name)) {
                        let at = self.value_place(&path);
                        let diagnostic =
                            self.problems.warning(&at, format!("{} matches no known type", quote(text)));
                        diagnostic.hints.extend(
                            closest(text, catalog::names()).map(|meant| format!("did you mean `{meant}`?")),
                        );
                    }
                }
            }
        }
    }

    /// Two sinks that write to one place would mix their lines.
    fn check_target(&mut self, name: &str, kind: &SinkKind, header: At) {
        let (target, at, what) = match kind {
            SinkKind::File { path, .. } => {
                let at = self.value_place(&format!("sink.{name}.path"));
                (Some(normal(path)), at, "write to the same file")
            }
            SinkKind::Stdout => (None, header, "are both of type `stdout`"),
        };
        if let Some((other, first)) = self.targets.get(&target) {
            // Sinks come by name: the later one in the file is the second.
            let (here, there) = match (&at, first) {
                (At::Place(here), At::Place(there)) if here < there => (first, &at),
                _ => (&at, first),
            };
            self.problems
                .pair(
                    Level::Error,
                    here,
                    format!("sinks `{other}` and `{name}` {what}"),
                    (there, "the other one"),
                )
                .hint("one sink can take all events: `sinks` and `types` choose among them");
            return;
        }
        self.targets.insert(target, (name.to_owned(), at));
    }
}

/// Without `.` and `..` where that needs no look at the disk.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(normal.components().next_back(), Some(Component::Normal(_))) => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}
