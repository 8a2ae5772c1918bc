//! The sinks: which keys go with which type, and what two sinks cannot share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobSet, GlobSetBuilder};
use http::{HeaderName, header};

use crate::model::catalog;
use crate::model::event::{OWN_TYPES, REVOCATION};
use crate::model::route::{SinkName, Unasked};
use crate::model::script;
use crate::model::secret::Secret;
use crate::model::sink::{
    CommandOptions, FileOptions, Format, HttpBody, HttpOptions, MqttOptions, NatsOptions, RedisOptions,
    RedisTarget, SinkKind, SinkOptions, SinkType,
};
use crate::model::subscription::SubscriptionSpec;
use crate::model::template::{Makes, fixed_base, has_dot_segment, is_template};

use super::secrets::{self, private_file};
use super::template::{self, Trial};
use crate::config::files::{self, Access, Folder};
use crate::config::keys::environment::Environment;
use crate::config::keys::layers::Layers;
use crate::config::keys::schema::{Key, variable};
use crate::config::keys::table::{self, Sink as Keys};
use crate::config::keys::typed::SinkFormat;
use crate::config::report::diagnostic::{Level, closest, quote};
use crate::config::report::private;
use crate::config::report::problems::{At, Problems};

/// Search path for programs if the environment has no `PATH`.
const DEFAULT_SEARCH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The lengths that Twitch allows for the secret of a webhook, in bytes ("Create EventSub Subscription").
const WEBHOOK_SECRET: std::ops::RangeInclusive<usize> = 10..=100;
/// Headers that belong to the connection.
const CONNECTION_HEADERS: [HeaderName; 5] =
    [header::CONNECTION, header::CONTENT_LENGTH, header::HOST, header::TE, header::TRANSFER_ENCODING];
/// The longest glob, in bytes: some ten types of Twitch in braces.
const MAX_GLOB: usize = 256;
/// More pairs of braces than a glob needs.
const MAX_BRACES: usize = 16;
const WHERE_PROGRAMS_ARE: &str = "a bare name is looked for in $PATH; a path with `/` starts at the file's folder, in which the program also runs";

/// Everything that sinks are built from, beside their own keys.
pub(in crate::config) struct Around<'a> {
    pub(in crate::config) layers: &'a Layers,
    pub(in crate::config) folder: &'a Folder,
    /// Access rights of the configuration file.
    pub(in crate::config) access: Access,
    /// The configuration file.
    pub(in crate::config) path: &'a Path,
    pub(in crate::config) environment: &'a Environment,
    /// Whether this build has sinks of a type.
    pub(in crate::config) is_built_in: fn(SinkType) -> bool,
    /// Empty while the file has errors.
    pub(in crate::config) subscriptions: &'a [SubscriptionSpec],
}

/// Checks and builds the sinks.
pub(in crate::config) fn build(
    sinks: &BTreeMap<String, Keys>,
    around: &Around<'_>,
    problems: &mut Problems,
) -> BTreeMap<SinkName, SinkOptions> {
    let trial = Trial::new(around.subscriptions);
    let mut builder = Builder { around, problems, targets: HashMap::new(), trial };
    let built = sinks.iter().filter_map(|(name, keys)| builder.sink(name, keys));
    built.map(|sink| (sink.name.clone(), sink)).collect()
}

struct Builder<'a> {
    around: &'a Around<'a>,
    problems: &'a mut Problems,
    /// Targets that are written to, with the sink and its place.
    targets: HashMap<Option<PathBuf>, (String, At)>,
    trial: Trial<'a>,
}

impl Builder<'_> {
    fn sink(&mut self, name: &str, sink: &Keys) -> Option<SinkOptions> {
        let header = self.around.layers.place_of_sink(name);
        // The sink of a file without any has nothing to check.
        if header != At::Nowhere {
            self.check_types(name, &sink.types, &header);
        }
        let Some(sink_type) = sink.sink_type else {
            // A type that is there, but wrong, has been reported.
            if self.seen(name, "type").is_none() {
                self.problems
                    .error(&header, format!("sink `{name}` has no `type`"))
                    .hint("for example `type = \"stdout\"` or `type = \"file\"`");
            }
            return None;
        };
        if !(self.around.is_built_in)(sink_type) {
            let (at, word) = (self.value_place(name, "type"), sink_type.name());
            self.problems.error(&at, format!("this build of eventsubd has no sinks of type `{word}`")).hint(
                format!("install a build with it, or build with `cargo build --release --features {word}`"),
            );
            return None;
        }
        self.check_keys(name, sink_type);
        let format = self.format(name, sink_type, sink, &header);
        let kind = match sink_type {
            SinkType::Stdout => SinkKind::Stdout,
            SinkType::File => SinkKind::File(self.file(name, sink, &header)?),
            SinkType::Command => SinkKind::Command(self.command(name, sink, &header)?),
            SinkType::Http => SinkKind::Http(self.http(name, sink, format, &header)?),
            SinkType::Nats => SinkKind::Nats(self.nats(name, sink, &header)?),
            SinkType::Mqtt => SinkKind::Mqtt(self.mqtt(name, sink, &header)?),
            SinkType::Redis => SinkKind::Redis(self.redis(name, sink, &header)?),
        };
        self.check_target(name, &kind, header);
        let format = match format {
            SinkFormat::Plain(format) => format,
            // Only `http` has templates, and a body of its own.
            SinkFormat::Template => Format::Eventsub,
        };
        Some(SinkOptions {
            name: SinkName::new(name),
            types: sink.types.clone(),
            format,
            start: sink.from,
            retry_max: sink.retry_max,
            give_up_after: sink.give_up_after,
            host: sink.host.as_deref().map(Into::into),
            kind,
        })
    }

    /// A `body` says by itself that it is a template.
    fn format(&mut self, name: &str, sink_type: SinkType, sink: &Keys, header: &At) -> SinkFormat {
        let at = self.seen(name, "format");
        let is_http = sink_type == SinkType::Http;
        match (sink.format, &at) {
            (SinkFormat::Template, Some(at)) if !is_http => {
                self.problems
                    .error(
                        at,
                        format!("a sink of type `{}` cannot have the format `template`", sink_type.name()),
                    )
                    .hint("templates are for the `body` of sinks of type `http`");
                SinkFormat::Template
            }
            (SinkFormat::Template, _) if is_http && self.seen(name, "body").is_none() => {
                self.problems
                    .error(header, format!("sink `{name}` has the format `template`, and no `body`"))
                    .hint("for example body = '{ \"content\": {{ event.broadcaster_user_name | tojson }} }'");
                SinkFormat::Template
            }
            (SinkFormat::Template, _) => SinkFormat::Template,
            (SinkFormat::Plain(_), None) if is_http && sink.body.is_some() => SinkFormat::Template,
            (SinkFormat::Plain(format), _) => {
                if let (Some(body), true) = (self.seen(name, "body"), is_http) {
                    self.problems
                        .error(&body, format!("`body` does not go with `format = \"{}\"`", format.name()))
                        .hint("leave `format` out: a sink with a `body` sends that");
                }
                sink.format
            }
        }
    }

    fn file(&mut self, name: &str, sink: &Keys, header: &At) -> Option<FileOptions> {
        if sink.rotate_size.is_none()
            && let Some(at) = self.seen(name, "rotate_keep")
        {
            self.problems
                .warning(&at, "`rotate_keep` does nothing without `rotate_size`")
                .hint("for example `rotate_size = \"100MiB\"`");
        }
        let hint = "the file that events are appended to: `path = \"events.jsonl\"`";
        let path = self.required(name, "path", sink.path.as_deref(), header, hint)?;
        let path = self.around.folder.join(path);
        Some(FileOptions {
            path,
            rotate_size: sink.rotate_size.map(|size| size.as_u64()),
            rotate_keep: sink.rotate_keep,
        })
    }

    fn command(&mut self, name: &str, sink: &Keys, header: &At) -> Option<CommandOptions> {
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
        if let At::Place(_) = at
            && private::holds_secret(&command.join(" "))
        {
            let what = format!("what looks like a secret in `command` of sink `{name}`");
            self.check_private(&what, &at, "give the program a file to read it from");
        }
        let program = self.program(program, arguments.is_empty(), &at)?;
        Some(CommandOptions {
            program,
            folder: self.around.folder.path().to_owned(),
            arguments: arguments.to_vec(),
            timeout: sink.timeout,
            concurrency: sink.concurrency,
        })
    }

    /// Finds a program: a path starts at the file's folder; a bare name is searched as a shell does.
    fn program(&mut self, text: &str, alone: bool, at: &At) -> Option<PathBuf> {
        let found = if text.contains('/') { self.program_at(text) } else { self.program_in_path(text) };
        let (message, hint) = match found.and_then(|path| self.check_program(&path).map(|()| path)) {
            Ok(path) => return Some(path),
            Err(complaint) => complaint,
        };
        let diagnostic = self.problems.error(at, message);
        if alone && text.contains(char::is_whitespace) {
            diagnostic.hint("the program and each argument are parts of their own: [\"prog\", \"arg\"]");
        } else {
            diagnostic.hints.extend(hint);
        }
        None
    }

    fn program_at(&self, text: &str) -> Result<PathBuf, (String, Option<String>)> {
        let folder = self.around.folder;
        // Without the `./`, which `join` keeps.
        let path: PathBuf = folder.join(text).components().collect();
        let shown = path.display().to_string();
        let name = program_name(text, &shown);
        let missing = || (format!("there is no {name}"), Some(WHERE_PROGRAMS_ARE.to_owned()));
        if !folder.is_open() {
            return Err(missing());
        }
        match std::fs::metadata(&path) {
            Ok(found) if !found.is_file() => {
                Err((format!("the program {} is not a file", quote(&shown)), None))
            }
            Ok(found) if found.permissions().mode() & 0o111 == 0 => Err((
                format!("the program {} is not executable", quote(&shown)),
                Some(format!("run `chmod +x {}`", path.display())),
            )),
            Ok(_) => Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Err((format!("the program {} cannot be looked at: permission denied", quote(&shown)), None))
            }
            Err(_) => Err(missing()),
        }
    }

    fn program_in_path(&self, text: &str) -> Result<PathBuf, (String, Option<String>)> {
        let search = self.around.environment.get("PATH").unwrap_or(DEFAULT_SEARCH);
        let found = if self.around.folder.is_open() { in_path(text, search) } else { None };
        found.ok_or_else(|| {
            let message = format!("there is no {} in {search}", program_name(text, text));
            (message, Some(WHERE_PROGRAMS_ARE.to_owned()))
        })
    }

    /// Fails if the system would not start the program.
    fn check_program(&self, path: &Path) -> Result<(), (String, Option<String>)> {
        let mut head = Vec::new();
        let read = File::open(path).and_then(|file| file.take(script::HEAD as u64).read_to_end(&mut head));
        // A program may be executable but not readable.
        if read.is_err() {
            return Ok(());
        }
        let search = self.around.environment.get("PATH").unwrap_or(DEFAULT_SEARCH);
        let exists = |name: &str| {
            if name.contains('/') {
                is_program(&self.around.folder.join(name))
            } else {
                in_path(name, search).is_some()
            }
        };
        match script::problem(&path.display().to_string(), &head, exists) {
            Some(problem) => {
                let (message, hint) = problem.split_once("; ").unwrap_or((&problem, ""));
                Err((message.to_owned(), Some(hint.to_owned()).filter(|hint| !hint.is_empty())))
            }
            None => Ok(()),
        }
    }

    fn http(&mut self, name: &str, sink: &Keys, format: SinkFormat, header: &At) -> Option<HttpOptions> {
        let hint = "where events are sent to: `url = \"https://example.org/hook\"`";
        let url = self.required(name, "url", sink.url.as_ref().map(Secret::expose), header, hint)?;
        let at = self.value_place(name, "url");
        let url_is_right = if is_template(url) {
            self.check_url_template(name, sink, url, &at)
        } else {
            self.check_url(name, url, &at, &["https", "http"])
        };
        let headers = self.headers(name, sink);
        let secret = sink.secret_file.as_deref().and_then(|path| self.webhook_secret(name, path));
        if let Some(body) = sink.body.as_ref().map(Secret::expose)
            && let at @ At::Place(_) = self.value_place(name, "body")
            && private::holds_secret(body)
        {
            let what = format!("what looks like a secret in `body` of sink `{name}`");
            self.check_private(
                &what,
                &at,
                &format!(
                    "take it out, and set the environment variable {}",
                    variable(&format!("sink.{name}.body"))
                ),
            );
        }
        if let (Some(at), true) =
            (self.seen(name, "secret_file"), format != SinkFormat::Plain(Format::Eventsub))
        {
            self.problems
                .warning(
                    &at,
                    "`secret_file` does nothing here: only requests of the format `eventsub` are signed",
                )
                .hint("put a token for the receiver into `headers_file`");
        }
        let body = match (format, &sink.body) {
            (SinkFormat::Template, Some(body)) => {
                self.check_body(name, sink, body.expose(), &headers);
                HttpBody::Template(body.expose().into())
            }
            (SinkFormat::Plain(Format::Cloudevents), _) => HttpBody::Cloudevents,
            // A template without a body has been reported.
            (SinkFormat::Plain(Format::Eventsub) | SinkFormat::Template, _) => HttpBody::Eventsub(secret),
        };
        let headers = headers.into_iter().map(|(header, value, _)| (header, value)).collect();
        url_is_right.then(|| HttpOptions {
            url: Secret::new(url),
            method: sink.method.clone(),
            headers,
            body,
            timeout: sink.timeout,
            concurrency: sink.concurrency,
        })
    }

    /// A body and the headers that go with it.
    fn check_body(&mut self, name: &str, sink: &Keys, body: &str, headers: &[(HeaderName, Secret, At)]) {
        let events = self.trial.events(name, &sink.types, Unasked::Nothing);
        let at = self.value_place(name, "body");
        let source =
            template::Source { sink: name, key: "body", text: body, at, makes: Makes::Text, exact: true };
        let rendered = template::check(&source, &events, self.problems);
        let content_type = headers.iter().find(|(header, ..)| header == header::CONTENT_TYPE);
        if template::is_meant_as_json(body, content_type.map(|(_, value, _)| value.expose())) {
            source.check_json(&rendered, self.problems);
        }
        for (header, value, at) in headers {
            let source = template::Source {
                sink: name,
                key: &format!("headers.{header}"),
                text: value.expose(),
                at: at.clone(),
                makes: Makes::Text,
                exact: false,
            };
            template::check(&source, &events, self.problems);
        }
    }

    /// A template of an address within a broker.
    fn check_address(&mut self, name: &str, sink: &Keys, key: &str, text: &str) {
        let events = self.trial.events(name, &sink.types, Unasked::All);
        let at = self.value_place(name, key);
        let source = template::Source { sink: name, key, text, at, makes: Makes::Text, exact: true };
        template::check(&source, &events, self.problems);
    }

    fn nats(&mut self, name: &str, sink: &Keys, header: &At) -> Option<NatsOptions> {
        let hint = "the server, or several with commas between them: `url = \"nats://127.0.0.1:4222\"`";
        let url = self.required(name, "url", sink.url.as_ref().map(Secret::expose), header, hint)?;
        let at = self.value_place(name, "url");
        let right = url.split(',').all(|url| self.check_url(name, url.trim(), &at, &["tls", "nats"]));
        if let Some(stream) = &sink.stream
            && (stream.is_empty()
                || stream.contains([' ', '.', '*', '>', '/', '\\'])
                || stream.contains(char::is_control))
        {
            self.problems
                .error(
                    self.value_place(name, "stream"),
                    format!("`stream` of sink `{name}` is not a valid name"),
                )
                .hint("letters, digits, `_` and `-`, for example \"EVENTSUB\"");
        }
        self.check_address(name, sink, "subject", &sink.subject);
        let credentials = sink.credentials.as_deref().and_then(|path| {
            let at = self.value_place(name, "credentials");
            private_file(path, self.around.folder, &at, "NATS credentials", self.problems)
        });
        right.then(|| NatsOptions {
            // If the URL lists several servers, the credentials go to no others.
            discover: sink.discover.unwrap_or_else(|| !url.contains(',')),
            url: Secret::new(url),
            subject: sink.subject.as_str().into(),
            stream: sink.stream.clone(),
            credentials: credentials.map(Secret::new),
        })
    }

    fn mqtt(&mut self, name: &str, sink: &Keys, header: &At) -> Option<MqttOptions> {
        let hint = "the broker: `url = \"mqtt://127.0.0.1:1883\"`, or `mqtts://` with TLS";
        let url = self.required(name, "url", sink.url.as_ref().map(Secret::expose), header, hint)?;
        let at = self.value_place(name, "url");
        let right = self.check_url(name, url, &at, &["mqtts", "mqtt"]);
        self.check_address(name, sink, "topic", &sink.topic);
        if sink.qos == 0 {
            self.problems
                .warning(
                    self.value_place(name, "qos"),
                    format!(
                        "sink `{name}` delivers at most once: with `qos = 0` the broker acknowledges nothing"
                    ),
                )
                .hint("leave `qos` out: with 1 an event that the broker does not acknowledge is sent again");
        }
        let credentials = sink.credentials.as_deref().and_then(|path| {
            let at = self.value_place(name, "credentials");
            let text = private_file(path, self.around.folder, &at, "MQTT credentials", self.problems)?;
            let text = text.trim_end_matches(['\r', '\n']).to_owned();
            if !text.contains(':') || text.contains(['\r', '\n']) {
                self.problems
                    .error(&at, format!("{} is not one line of the form `user:password`", quote(path)))
                    .hint("write the user name, a colon and the password into it");
                return None;
            }
            Some(Secret::new(text))
        });
        right.then(|| MqttOptions {
            url: Secret::new(url),
            topic: sink.topic.as_str().into(),
            qos: sink.qos,
            retain: sink.retain,
            credentials,
        })
    }

    fn redis(&mut self, name: &str, sink: &Keys, header: &At) -> Option<RedisOptions> {
        let hint = "the server: `url = \"redis://127.0.0.1:6379\"`, or `rediss://` with TLS";
        let url = self.required(name, "url", sink.url.as_ref().map(Secret::expose), header, hint)?;
        let at = self.value_place(name, "url");
        let right = self.check_url(name, url, &at, &["rediss", "redis"]);
        let target = match (&sink.stream, &sink.channel) {
            (Some(stream), None) => {
                self.check_address(name, sink, "stream", stream);
                RedisTarget::Stream { key: stream.as_str().into(), max_len: sink.max_len }
            }
            (None, Some(channel)) => {
                self.check_address(name, sink, "channel", channel);
                self.problems
                    .warning(
                        self.value_place(name, "channel"),
                        format!("sink `{name}` delivers at most once: a channel keeps nothing for those who do not listen"),
                    )
                    .hint("`stream` keeps events until they are read");
                if let Some(at) = self.seen(name, "max_len") {
                    self.problems
                        .warning(&at, "`max_len` does nothing with a `channel`")
                        .hint("leave it out");
                }
                RedisTarget::Channel(channel.as_str().into())
            }
            (Some(_), Some(_)) => {
                let at = self.value_place(name, "channel");
                self.problems
                    .error(&at, format!("sink `{name}` has both `stream` and `channel`"))
                    .hint("make two sinks of it, or leave one of them out");
                return None;
            }
            (None, None) => {
                self.problems
                    .error(header, format!("sink `{name}` has neither `stream` nor `channel`"))
                    .hint("for example `stream = \"eventsub\"`");
                return None;
            }
        };
        right.then(|| RedisOptions { url: Secret::new(url), target })
    }

    /// A template of an address, which must fix the host.
    fn check_url_template(&mut self, name: &str, sink: &Keys, url: &str, at: &At) -> bool {
        let Some(base) = fixed_base(url) else {
            self.problems
                .error(at, format!("the host of `url` of sink `{name}` must be the same for every event"))
                .hint("an event must not decide who gets the headers and their secrets: \"https://host/path/{{ type }}\"");
            return false;
        };
        let right = self.check_url(name, base, at, &["https", "http"]);
        let unasked = if sink.body.is_none() { Unasked::Revocations } else { Unasked::Nothing };
        let events = self.trial.events(name, &sink.types, unasked);
        let source = template::Source {
            sink: name,
            key: "url",
            text: url,
            at: at.clone(),
            makes: Makes::Url,
            exact: false,
        };
        let rendered = template::check(&source, &events, self.problems);
        if rendered.iter().any(|url| has_dot_segment(url)) {
            self.problems
                .error(at, format!("`url` of sink `{name}` has `.` or `..` as a part of its path"))
                .hint("write the path without them");
            return false;
        }
        right
    }

    /// An address of one of these schemes. Its text may be secret, and is not shown.
    fn check_url(&mut self, name: &str, text: &str, at: &At, schemes: &[&str]) -> bool {
        let [first, .., other] = schemes else { return false };
        let form = format!("it is written \"{first}://host\", with a port and a path as needed");
        let url = match reqwest::Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                self.problems
                    .error(at, format!("`url` of sink `{name}` is not a valid URL: {error}"))
                    .hint(form);
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
        if let At::Place(_) = at
            && let Some(what) = private::secret_of_url(text)
        {
            let what = format!("{what} in `url` of sink `{name}`");
            self.check_private(
                &what,
                at,
                &format!(
                    "take the URL out, and set the environment variable {}",
                    variable(&format!("sink.{name}.url"))
                ),
            );
        }
        true
    }

    /// Something secret stands in the configuration file itself.
    fn check_private(&mut self, what: &str, at: &At, instead: &str) {
        let path = self.around.path.display().to_string();
        secrets::check_access(&path, self.around.access, what, at, &[instead.to_owned()], self.problems);
    }

    /// The headers of the file, then those of `headers_file`.
    fn headers(&mut self, name: &str, sink: &Keys) -> Vec<(HeaderName, Secret, At)> {
        let mut headers = Vec::new();
        for (header, value, at) in self.around.layers.headers(name) {
            if !private::is_pure_template(value.expose()) {
                self.check_private(
                    &format!("the header `{header}` of sink `{name}`"),
                    at,
                    "move the header into a file of its own: `headers_file`",
                );
            }
            self.check_header(header, at);
            headers.push((header.clone(), value.clone(), at.clone()));
        }
        let Some(path) = &sink.headers_file else { return headers };
        let at = self.value_place(name, "headers_file");
        let Some(text) = private_file(path, self.around.folder, &at, "headers", self.problems) else {
            return headers;
        };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let header = line.split_once(':').and_then(|(header, value)| {
                Some((HeaderName::from_bytes(header.trim().as_bytes()).ok()?, value.trim()))
            });
            let number = index + 1;
            let Some((header, value)) = header else {
                self.problems.error(&at, format!("line {number} of {} is not a header", quote(path))).hint(
                    "each line is `Name: value`, such as `Authorization: Bearer …`, without quotes around it",
                );
                continue;
            };
            if let Some(flaw) = files::flaw(value) {
                self.problems.error(&at, format!("the value in line {number} of {}: {flaw}", quote(path)));
            }
            self.check_header(&header, &at);
            headers.push((header, Secret::new(value), at.clone()));
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
        let text = private_file(path, self.around.folder, &at, "the secret of a sink", self.problems)?;
        let (few, many) = (*WEBHOOK_SECRET.start(), *WEBHOOK_SECRET.end());
        let flaw = if text.contains(['\n', '\r']) {
            "it holds more than one line".to_owned()
        } else if let Some(flaw) = files::flaw(&text) {
            flaw
        } else if !text.is_ascii() || !WEBHOOK_SECRET.contains(&text.len()) {
            format!("it must have {few} to {many} ASCII characters")
        } else {
            return Some(Secret::new(text));
        };
        self.problems
            .error(&at, format!("no secret in {}: {flaw}", quote(path)))
            .hint(format!("make one with `openssl rand -hex 20 > {path}`, and give it to the receiver"));
        None
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

    /// The place of a key of a sink.
    fn seen(&self, name: &str, key: &str) -> Option<At> {
        self.around.layers.seen(&format!("sink.{name}.{key}")).cloned()
    }

    /// The place of the value of a key.
    fn value_place(&self, name: &str, key: &str) -> At {
        self.around.layers.place(&format!("sink.{name}.{key}"))
    }

    /// Keys that are there, but belong to another type of sink.
    fn check_keys(&mut self, name: &str, sink_type: SinkType) {
        let is_foreign = |key: &&Key| !key.only.is_empty() && !key.only.contains(&sink_type);
        for key in table::keys().iter().filter(is_foreign) {
            let Some(at) = self.seen(name, key.name()) else { continue };
            let mut types = key.only.iter().map(|other| format!("`{}`", other.name())).collect::<Vec<_>>();
            let last = types.pop().unwrap_or_default();
            let types = if types.is_empty() { last } else { format!("{} and {last}", types.join(", ")) };
            self.problems
                .error(&at, format!("a sink of type `{}` has no `{}`", sink_type.name(), key.name()))
                .hint(format!("it belongs to sinks of type {types}"));
        }
    }

    fn check_types(&mut self, name: &str, types: &[String], header: &At) {
        if types.is_empty() {
            let at = self.value_place(name, "types");
            self.problems
                .warning(&at, format!("`types` of sink `{name}` is an empty list: it gets no events"))
                .hint("leave it out to send it all events");
        }
        let at = self.value_place(name, "types");
        let mut matchers = Vec::new();
        for (index, text) in types.iter().enumerate() {
            let shown = if private::is_type_glob(text) {
                quote(text)
            } else {
                format!("item {} of `types`", index + 1)
            };
            match matcher(text) {
                Err(problem) => {
                    self.problems
                        .error(&at, format!("{shown} is not a valid glob: {problem}"))
                        .hint("for example \"stream.*\" or \"channel.chat.*\"");
                }
                Ok(matcher) => {
                    let ours = is_own(&matcher);
                    if !ours && !catalog::names().any(|name| matcher.is_match(name)) {
                        let diagnostic = self.problems.warning(&at, format!("{shown} matches no known type"));
                        diagnostic.hints.extend(meant_by_glob(text));
                    } else {
                        matchers.push((text, matcher));
                    }
                }
            }
        }
        self.check_reach(name, if at == At::Nowhere { header } else { &at }, &matchers);
    }

    /// Types that are known, and that no subscription of the sink has.
    fn check_reach(&mut self, name: &str, at: &At, matchers: &[(&String, GlobSet)]) {
        let reaches = |spec: &&SubscriptionSpec| {
            spec.sinks.as_ref().is_none_or(|sinks| sinks.iter().any(|sink| sink.as_str() == name))
        };
        let subscribed: BTreeSet<&str> =
            self.around.subscriptions.iter().filter(reaches).map(|spec| &*spec.subscription_type).collect();
        // Without subscriptions there is nothing to compare with.
        let own_events =
            matchers.iter().all(|(text, _)| text.starts_with("eventsubd.") || *text == REVOCATION);
        if self.around.subscriptions.is_empty() || own_events {
            return;
        }
        if subscribed.is_empty() {
            self.problems
                .warning(at, format!("no subscription names sink `{name}` in its `sinks`: it gets none"))
                .hint(format!("add \"{name}\" to the `sinks` of a subscription, or leave `sinks` out there"));
            return;
        }
        let is_needless =
            |matcher: &GlobSet| !is_own(matcher) && !subscribed.iter().any(|name| matcher.is_match(name));
        let needless: Vec<String> = matchers
            .iter()
            .filter(|(_, matcher)| is_needless(matcher))
            .map(|(text, _)| quote(text))
            .collect();
        if needless.is_empty() {
            return;
        }
        let message = if needless.len() == matchers.len() {
            format!("nothing that is subscribed fits the `types` of sink `{name}`: it gets none")
        } else {
            format!("nothing that is subscribed fits {} of sink `{name}`", needless.join(", "))
        };
        let listed = subscribed.iter().take(8).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let more = if subscribed.len() > 8 { ", …" } else { "" };
        self.problems.warning(at, message).hint(format!("subscribed for it: {listed}{more}"));
    }

    /// Two sinks that write to one place would mix their lines.
    fn check_target(&mut self, name: &str, kind: &SinkKind, header: At) {
        let (target, at, what) = match kind {
            SinkKind::File(FileOptions { path, .. }) => {
                let at = self.value_place(name, "path");
                (Some(normal(path)), at, "write to the same file")
            }
            SinkKind::Stdout => (None, header, "are both of type `stdout`"),
            SinkKind::Command(_)
            | SinkKind::Http(_)
            | SinkKind::Nats(_)
            | SinkKind::Mqtt(_)
            | SinkKind::Redis(_) => return,
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

/// The matcher of a glob, which has few levels of braces, since each is one of the regular expression's.
fn matcher(text: &str) -> Result<GlobSet, String> {
    if text.len() > MAX_GLOB {
        return Err(format!("it has more than {MAX_GLOB} characters"));
    }
    if text.bytes().filter(|byte| *byte == b'{').count() > MAX_BRACES {
        return Err(format!("it has more than {MAX_BRACES} pairs of braces"));
    }
    let glob = Glob::new(text).map_err(|error| error.kind().to_string())?;
    GlobSetBuilder::new().add(glob).build().map_err(|_| "it is too complex".to_owned())
}

/// The glob that one without any match was probably meant to be.
fn meant_by_glob(text: &str) -> Option<String> {
    let family = format!("{}.*", text.trim_end_matches('.'));
    if matcher(&family).is_ok_and(|glob| catalog::names().any(|name| glob.is_match(name))) {
        return Some(format!("did you mean `{family}`?"));
    }
    closest(text, catalog::names()).map(|meant| format!("did you mean `{meant}`?"))
}

/// A program within a message: its name, unless that may be anything.
fn program_name(text: &str, shown: &str) -> String {
    let plain = private::is_plain_name(text) || private::reads_like_a_path(text);
    if plain { format!("program {}", quote(shown)) } else { "such program".to_owned() }
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The program that a shell would find.
fn in_path(name: &str, search: &str) -> Option<PathBuf> {
    let mut folders = search.split(':').filter(|folder| folder.starts_with('/'));
    folders.find_map(|folder| Some(Path::new(folder).join(name)).filter(|path| is_program(path)))
}

/// Whether it matches events that no subscription has: revocations, and those of the daemon.
fn is_own(matcher: &GlobSet) -> bool {
    matcher.is_match(REVOCATION) || OWN_TYPES.iter().any(|kind| matcher.is_match(kind))
}
