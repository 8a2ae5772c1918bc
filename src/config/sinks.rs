//! The sinks: which keys go with which type, and what two sinks cannot share.

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use http::{HeaderName, header};

use crate::model::catalog;
use crate::model::event::GAP;
use crate::model::route::SinkName;
use crate::model::secret::Secret;

use super::check::Layer;
use super::diagnostic::{Level, closest, quote};
use super::environment::Environment;
use super::files::open_to_others;
use super::mask::is_secret_key;
use super::merge;
use super::problems::{At, Problems};
use super::schema;
use super::secrets::private_file;
use super::settings::{Format, Sink, SinkKind};

/// The sink that a file without any has.
const DEFAULT_SINK: &str = "stdout";
/// Where programs are looked for when the environment does not say.
const DEFAULT_SEARCH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The lengths that Twitch allows for the secret of a webhook, in bytes ("Create EventSub Subscription").
const WEBHOOK_SECRET: std::ops::RangeInclusive<usize> = 10..=100;
/// Headers that belong to the connection.
const CONNECTION_HEADERS: [HeaderName; 5] =
    [header::CONNECTION, header::CONTENT_LENGTH, header::HOST, header::TE, header::TRANSFER_ENCODING];
/// From this length on a part of a URL that has letters and digits is taken for a secret.
const LONG_PART: usize = 24;

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

/// What sinks are built from, beside their own keys.
pub(super) struct Around<'a> {
    pub(super) file: &'a Layer,
    pub(super) variables: &'a Layer,
    /// Relative paths start here.
    pub(super) base: &'a Path,
    /// Of the configuration file.
    pub(super) metadata: &'a Metadata,
    /// The configuration file.
    pub(super) path: &'a Path,
    pub(super) environment: &'a Environment,
}

/// Checks and builds the sinks.
pub(super) fn build(
    merged: BTreeMap<String, merge::Sink>,
    around: &Around<'_>,
    problems: &mut Problems,
) -> BTreeMap<SinkName, Sink> {
    let mut builder = Builder { around, problems, targets: HashMap::new() };
    let mut sinks: BTreeMap<SinkName, Sink> = merged
        .into_iter()
        .filter_map(|(name, sink)| {
            let sink = builder.sink(&name, sink)?;
            Some((SinkName::new(name), sink))
        })
        .collect();
    if around.file.sinks.is_empty() && around.variables.sinks.is_empty() {
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
        format: Format::Eventsub,
        from_beginning: false,
        retry_max: default("retry_max"),
        give_up_after: default("give_up_after"),
        kind: SinkKind::Stdout,
    }
}

struct Builder<'a> {
    around: &'a Around<'a>,
    problems: &'a mut Problems,
    /// What is written to, and by which sink.
    targets: HashMap<Option<PathBuf>, (String, At)>,
}

impl Builder<'_> {
    fn sink(&mut self, name: &str, sink: merge::Sink) -> Option<Sink> {
        let header = self.around.file.sinks.get(name).or_else(|| self.around.variables.sinks.get(name));
        let header = header.cloned().unwrap_or(At::Nowhere);
        self.check_types(name, &sink.types);
        let Some(kind) = sink.kind.clone() else {
            // A type that is there, but wrong, has been reported.
            if self.seen(name, "type").is_none() {
                self.problems
                    .error(&header, format!("sink `{name}` has no `type`"))
                    .hint("for example `type = \"stdout\"` or `type = \"file\"`");
            }
            return None;
        };
        self.check_keys(name, &kind);
        let format = self.format(name, &kind, &sink, &header);
        let built = match kind.as_str() {
            "file" => self.file(name, &sink, &header),
            "command" => self.command(name, &sink, &header),
            "http" => self.http(name, &sink, format, &header),
            "nats" => self.nats(name, &sink, &header),
            _ => Some(SinkKind::Stdout),
        };
        let kind = built?;
        self.check_target(name, &kind, header);
        Some(Sink {
            types: sink.types,
            format,
            from_beginning: sink.from == "beginning",
            retry_max: sink.retry_max,
            give_up_after: sink.give_up_after,
            kind,
        })
    }

    /// A `body` says by itself that it is a template.
    fn format(&mut self, name: &str, kind: &str, sink: &merge::Sink, header: &At) -> Format {
        let at = self.seen(name, "format");
        let is_http = kind == "http";
        match (sink.format.as_str(), &at) {
            ("template", Some(at)) if !is_http => {
                self.problems
                    .error(at, format!("a sink of type `{kind}` cannot have the format `template`"))
                    .hint("templates are for the `body` of sinks of type `http`");
                Format::Template
            }
            ("template", _) if is_http && self.seen(name, "body").is_none() => {
                self.problems
                    .error(header, format!("sink `{name}` has the format `template`, and no `body`"))
                    .hint("for example body = '{ \"content\": {{ event.broadcaster_user_name | tojson }} }'");
                Format::Template
            }
            ("template", _) => Format::Template,
            (_, None) if is_http && sink.body.is_some() => Format::Template,
            (other, _) => {
                if let (Some(body), true) = (self.seen(name, "body"), is_http) {
                    self.problems
                        .error(&body, format!("`body` does not go with `format = \"{other}\"`"))
                        .hint("leave `format` out: a sink with a `body` sends that");
                }
                if other == "cloudevents" { Format::Cloudevents } else { Format::Eventsub }
            }
        }
    }

    fn file(&mut self, name: &str, sink: &merge::Sink, header: &At) -> Option<SinkKind> {
        if sink.rotate_size.is_none()
            && let Some(at) = self.seen(name, "rotate_keep")
        {
            self.problems
                .warning(&at, "`rotate_keep` does nothing without `rotate_size`")
                .hint("for example `rotate_size = \"100MiB\"`");
        }
        let hint = "the file that events are appended to: `path = \"events.jsonl\"`";
        let path = self.required(name, "path", sink.path.as_deref(), header, hint)?;
        let path = self.around.base.join(path);
        Some(SinkKind::File { path, rotate_size: sink.rotate_size, rotate_keep: sink.rotate_keep })
    }

    fn command(&mut self, name: &str, sink: &merge::Sink, header: &At) -> Option<SinkKind> {
        let hint = "the program and its arguments: `command = [\"./on-event\", \"--quiet\"]`";
        let command = self.required(name, "command", sink.command.as_deref(), header, hint)?;
        let at = self.value_place(name, "command");
        let Some((program, arguments)) = command.split_first().filter(|(program, _)| !program.is_empty())
        else {
            self.problems.error(&at, "`command` names no program").hint(hint);
            return None;
        };
        if command.iter().any(|part| part.contains('\0')) {
            self.problems.error(&at, "`command` has a part with a NUL character, which no program can get");
            return None;
        }
        let program = self.program(program, arguments.is_empty(), &at)?;
        Some(SinkKind::Command {
            program,
            arguments: arguments.to_vec(),
            timeout: sink.timeout,
            concurrency: sink.concurrency as usize,
        })
    }

    /// A path starts at the file's folder; a bare name is looked for as a shell does.
    fn program(&mut self, text: &str, alone: bool, at: &At) -> Option<PathBuf> {
        let shown = quote(text);
        let found = if text.contains('/') {
            let path = normal(&self.around.base.join(text));
            match std::fs::metadata(&path) {
                Ok(found) if !found.is_file() => Err(format!("the program {shown} is no file")),
                Ok(found) if found.permissions().mode() & 0o111 == 0 => {
                    let diagnostic =
                        self.problems.error(at, format!("the program {shown} is not executable"));
                    diagnostic.hint(format!("run `chmod +x {}`", path.display()));
                    return None;
                }
                Ok(_) => Ok(path),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    Err(format!("the program {shown} cannot be looked at: permission denied"))
                }
                Err(_) => Err(format!("there is no program {}", quote(&path.display().to_string()))),
            }
        } else {
            let search = self.around.environment.get("PATH").unwrap_or(DEFAULT_SEARCH);
            let is_program = |path: &PathBuf| {
                std::fs::metadata(path)
                    .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
            };
            let mut places = search.split(':').filter(|folder| folder.starts_with('/'));
            places
                .find_map(|folder| Some(Path::new(folder).join(text)).filter(is_program))
                .ok_or_else(|| format!("there is no program {shown} in {search}"))
        };
        found
            .map_err(|message| {
                let diagnostic = self.problems.error(at, message);
                if alone && text.contains(char::is_whitespace) {
                    diagnostic
                        .hint("the program and each argument are parts of their own: [\"prog\", \"arg\"]");
                } else {
                    diagnostic.hint(
                        "a bare name is looked for in $PATH; a path with `/` starts at the file's folder",
                    );
                }
            })
            .ok()
    }

    fn http(&mut self, name: &str, sink: &merge::Sink, format: Format, header: &At) -> Option<SinkKind> {
        let hint = "where events are sent to: `url = \"https://example.org/hook\"`";
        let url = self.required(name, "url", sink.url.as_deref(), header, hint)?;
        let at = self.value_place(name, "url");
        let url_is_right = self.check_url(name, url, &at, &["https", "http"]);
        let headers = self.headers(name, sink);
        let secret = sink.secret_file.as_deref().and_then(|path| self.webhook_secret(name, path));
        if let (Some(at), true) = (self.seen(name, "secret_file"), format != Format::Eventsub) {
            self.problems
                .warning(
                    &at,
                    "`secret_file` does nothing here: only requests of the format `eventsub` are signed",
                )
                .hint("put a token for the receiver into `headers_file`");
        }
        url_is_right.then(|| SinkKind::Http {
            url: Secret::new(url),
            // The schema has checked it.
            method: sink.method.parse().unwrap_or(http::Method::POST),
            headers,
            secret,
            body: sink.body.clone().filter(|_| format == Format::Template),
            timeout: sink.timeout,
            concurrency: sink.concurrency as usize,
        })
    }

    fn nats(&mut self, name: &str, sink: &merge::Sink, header: &At) -> Option<SinkKind> {
        let hint = "the server, or several with commas between them: `url = \"nats://127.0.0.1:4222\"`";
        let url = self.required(name, "url", sink.url.as_deref(), header, hint)?;
        let at = self.value_place(name, "url");
        let right = url.split(',').all(|url| self.check_url(name, url.trim(), &at, &["tls", "nats"]));
        if let Some(stream) = &sink.stream
            && (stream.is_empty()
                || stream.contains([' ', '.', '*', '>', '/', '\\'])
                || stream.contains(char::is_control))
        {
            self.problems
                .error(self.value_place(name, "stream"), format!("{} is no name for a stream", quote(stream)))
                .hint("letters, digits, `_` and `-`, for example \"EVENTSUB\"");
        }
        let credentials = sink.credentials.as_deref().and_then(|path| {
            let at = self.value_place(name, "credentials");
            private_file(path, self.around.base, &at, "NATS credentials", self.problems)
        });
        right.then(|| SinkKind::Nats {
            url: Secret::new(url),
            subject: sink.subject.clone(),
            stream: sink.stream.clone(),
            credentials: credentials.map(Secret::new),
        })
    }

    /// An address of one of these schemes. Its text may be secret, and is not shown.
    fn check_url(&mut self, name: &str, text: &str, at: &At, schemes: &[&str]) -> bool {
        let [first, .., other] = schemes else { return false };
        let form = format!("it is written \"{first}://host\", with a port and a path as needed");
        let url = match reqwest::Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                self.problems.error(at, format!("`url` of sink `{name}` is no URL: {error}")).hint(form);
                return false;
            }
        };
        if !schemes.contains(&url.scheme()) {
            self.problems
                .error(at, format!("`url` of sink `{name}` must begin with {first}:// or {other}://"))
                .hint(form);
            return false;
        }
        if url.host_str().unwrap_or_default().is_empty() {
            self.problems.error(at, format!("`url` of sink `{name}` names no host")).hint(form);
            return false;
        }
        let what = if url.password().is_some() || !url.username().is_empty() {
            "a password"
        } else if url
            .path()
            .split('/')
            .chain(url.query().into_iter().flat_map(|q| q.split(['&', '='])))
            .any(is_token)
        {
            "what looks like a secret"
        } else {
            return true;
        };
        if let At::Place(_) = at {
            self.check_private(&format!("{what} in `url` of sink `{name}`"), at, |problem| {
                let variable = format!("EVENTSUBD_SINK__{}__URL", name.to_ascii_uppercase());
                problem.hint(format!("or take the URL out, and set the environment variable {variable}"));
            });
        }
        true
    }

    /// Something secret stands in the configuration file itself.
    fn check_private(&mut self, what: &str, at: &At, more: impl FnOnce(&mut super::Diagnostic)) {
        let Some(mode) = open_to_others(self.around.metadata) else { return };
        let path = self.around.path.display().to_string();
        let message = format!("{} holds {what}, and others can read it (mode {mode:04o})", quote(&path));
        let diagnostic = self.problems.error(at, message);
        diagnostic.hint(format!("run `chmod 600 {path}`"));
        more(diagnostic);
    }

    /// Those of the file, then those of `headers_file`.
    fn headers(&mut self, name: &str, sink: &merge::Sink) -> Vec<(HeaderName, Secret)> {
        let mut headers = Vec::new();
        for (header, value, at) in self.around.file.headers.get(name).into_iter().flatten() {
            // A template that takes the secret from nowhere has none.
            if is_secret_key(header.as_str(), "") {
                self.check_private(&format!("the header `{header}` of sink `{name}`"), at, |problem| {
                    problem.hint("or move the header into a file of its own: `headers_file`");
                });
            }
            self.check_header(header, at);
            headers.push((header.clone(), value.clone()));
        }
        let Some(path) = &sink.headers_file else { return headers };
        let at = self.value_place(name, "headers_file");
        let Some(text) = private_file(path, self.around.base, &at, "headers", self.problems) else {
            return headers;
        };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let header = line.split_once(':').and_then(|(header, value)| {
                Some((HeaderName::from_bytes(header.trim().as_bytes()).ok()?, Secret::new(value.trim())))
            });
            match header {
                Some((header, value)) => {
                    self.check_header(&header, &at);
                    headers.push((header, value));
                }
                None => {
                    let number = index + 1;
                    self.problems
                        .error(&at, format!("line {number} of {} is no header", quote(path)))
                        .hint("each line is `Name: value`, such as `Authorization: Bearer …`");
                }
            }
        }
        headers
    }

    fn check_header(&mut self, header: &HeaderName, at: &At) {
        if CONNECTION_HEADERS.contains(header) {
            self.problems
                .error(at, format!("the header `{header}` belongs to the connection, and cannot be set"))
                .hint("leave it out");
        }
    }

    fn webhook_secret(&mut self, name: &str, path: &str) -> Option<Secret> {
        let at = self.value_place(name, "secret_file");
        let text = private_file(path, self.around.base, &at, "the secret of a sink", self.problems)?;
        let secret = text.trim_end_matches(['\r', '\n']);
        if !WEBHOOK_SECRET.contains(&secret.len())
            || !secret.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        {
            self.problems
                .error(
                    &at,
                    format!("the secret in {} must be one line of 10 to 100 ASCII characters", quote(path)),
                )
                .hint(format!("make one with `openssl rand -hex 20 > {path}`, and give it to the receiver"));
            return None;
        }
        Some(Secret::new(secret))
    }

    /// A key that this type must have; one that is there, but wrong, has been reported.
    fn required<'a, T: ?Sized>(
        &mut self,
        name: &str,
        key: &str,
        value: Option<&'a T>,
        header: &At,
        hint: &str,
    ) -> Option<&'a T> {
        if value.is_none() && self.seen(name, key).is_none() {
            self.problems.error(header, format!("sink `{name}` has no `{key}`")).hint(hint);
        }
        value
    }

    /// Where a key of a sink is.
    fn seen(&self, name: &str, key: &str) -> Option<At> {
        let path = format!("sink.{name}.{key}");
        let around = self.around;
        around.variables.seen.get(&path).or_else(|| around.file.seen.get(&path)).cloned()
    }

    /// Where the value of a key is.
    fn value_place(&self, name: &str, key: &str) -> At {
        let path = format!("sink.{name}.{key}");
        let value = self.around.variables.values.get(&path).or_else(|| self.around.file.values.get(&path));
        value.map_or(At::Nowhere, |(_, at)| at.clone())
    }

    /// Keys that are there, but belong to another type of sink.
    fn check_keys(&mut self, name: &str, kind: &str) {
        for key in schema::keys().iter().filter(|key| !key.only.is_empty() && !key.only.contains(&kind)) {
            let Some(at) = self.seen(name, key.name()) else { continue };
            let types = key.only.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(" and ");
            self.problems
                .error(&at, format!("a sink of type `{kind}` has no `{}`", key.name()))
                .hint(format!("it belongs to sinks of type {types}"));
        }
    }

    fn check_types(&mut self, name: &str, types: &[String]) {
        if types.is_empty() {
            let at = self.value_place(name, "types");
            self.problems
                .warning(&at, format!("`types` of sink `{name}` is an empty list: it gets no events"))
                .hint("leave it out to send it all events");
        }
        for text in types {
            match globset::Glob::new(text) {
                Err(error) => {
                    let at = self.value_place(name, "types");
                    self.problems
                        .error(&at, format!("{} is no glob: {}", quote(text), error.kind()))
                        .hint("for example \"stream.*\" or \"channel.chat.*\"");
                }
                Ok(glob) => {
                    let matcher = glob.compile_matcher();
                    if !matcher.is_match(GAP) && !catalog::names().any(|name| matcher.is_match(name)) {
                        let at = self.value_place(name, "types");
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
                let at = self.value_place(name, "path");
                (Some(normal(path)), at, "write to the same file")
            }
            SinkKind::Stdout => (None, header, "are both of type `stdout`"),
            SinkKind::Command { .. } | SinkKind::Http { .. } | SinkKind::Nats { .. } => return,
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

/// Whether a part of a URL is probably a secret, as in the addresses that chat services hand out.
fn is_token(part: &str) -> bool {
    part.len() >= LONG_PART
        && part.bytes().any(|b| b.is_ascii_digit())
        && part.bytes().any(|b| b.is_ascii_alphabetic())
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
