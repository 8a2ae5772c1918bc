//! The status page: state, problems and what to do about them.
//!
//! The daemon renders all of it; the script fetches the page again, applies the differences, and follows events. The
//! page therefore reads the same without the script, and text from strangers is escaped in one place: the templates.
//! Nothing is loaded from other origins.

mod chart;
mod history;
mod hosts;
mod letters;
mod level;
mod rows;
mod view;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{Uri, header};
use axum::response::Html;
use axum::routing::get;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, HtmlEscape, UndefinedBehavior, Value, context, escape_formatter};
use tokio::time::Instant;
use tracing::debug;

use self::chart::{Chart, Range, chart};
use self::history::{Found, History, Whole};
use self::letters::Letters;
use self::rows::{Query, table};
use self::view::Extras;
use super::change::Change;
use super::rights::Rights;
use super::state::ReadState;
use crate::model::event::Seq;
use crate::model::invocation::Invocation;
use crate::model::route::SinkName;
use crate::model::status::Status;
use crate::model::text::lines;

/// Events read from the store at once, and their bytes.
const READ: usize = 500;
const READ_BYTES: usize = 2 << 20;
/// Time after which a search for events shows what it has found.
const SEARCH_LIMIT: Duration = Duration::from_secs(2);

/// The templates. Their names end in `.html`, which turns on escaping.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(syntax.expect("the usual delimiters"));
    environment.add_filter("code", code);
    environment.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => escape_formatter(out, state, &Value::from(lines(text))),
        _ => escape_formatter(out, state, value),
    });
    for (name, text) in [("page.html", include_str!("page.html")), ("small.html", include_str!("small.html"))]
    {
        environment.add_template(name, text).expect("the templates are tested");
    }
    environment
});

/// Marks commands and keys between backticks as code; commands get the flags of this daemon.
#[allow(clippy::needless_pass_by_value, reason = "the signature of filters")]
fn code(text: String, flags: String) -> Value {
    let text = Invocation::from_flags(&flags).complete(&text).into_owned();
    let text = lines(&text);
    let mut html = String::with_capacity(text.len() + 16);
    let mut parts = text.split('`').peekable();
    let mut inside = false;
    while let Some(part) = parts.next() {
        let escaped = HtmlEscape(part);
        // A last backtick without its pair is literal.
        match (inside, parts.peek().is_some()) {
            (true, true) => html.push_str(&format!("<code>{escaped}</code>")),
            (true, false) => html.push_str(&format!("`{escaped}")),
            (false, _) => html.push_str(&escaped.to_string()),
        }
        inside = !inside;
    }
    Value::from_safe_string(html)
}

fn render(name: &str, context: Value) -> Html<String> {
    let rendered = TEMPLATES.get_template(name).and_then(|template| template.render(context));
    Html(rendered.unwrap_or_else(|error| {
        tracing::error!(%error, "the page cannot be rendered");
        "<!doctype html><title>eventsubd</title><p>The page cannot be rendered; see the log.".to_owned()
    }))
}

/// Renders the login form.
pub(super) fn login(wrong: bool) -> Html<String> {
    render("small.html", context! { title => "Log in", text => (), wrong })
}

/// Renders the answer to a form that could not be carried out.
pub(super) fn message(text: &str) -> Html<String> {
    render("small.html", context! { title => "Not done", text, wrong => false })
}

/// The part of the page's query that is about dead letters and about a change that was made.
#[derive(Debug, Default)]
struct Asked {
    letters: Option<String>,
    letters_before: Option<i64>,
    done: Option<Change>,
    sink_done: Option<String>,
    /// Whether the stored events are wanted. The script asks without them, because it has them.
    events: bool,
}

impl Asked {
    fn parse(text: &str) -> Self {
        let mut asked = Self { events: true, ..Self::default() };
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "letters" => asked.letters = Some(value.into_owned()),
                "letters_before" => asked.letters_before = value.parse().ok(),
                "done" => asked.done = Change::named(&value),
                "sink_done" => asked.sink_done = Some(value.into_owned()),
                "events" => asked.events = value != "no",
                _ => {}
            }
        }
        asked
    }
}

async fn page(
    State(state): State<Arc<ReadState>>,
    rights: Option<Extension<Rights>>,
    uri: Uri,
) -> Html<String> {
    let status = state.control.status();
    let text = uri.query().unwrap_or_default();
    let asked = Asked::parse(text);
    let known = |name: &String| status.sinks.iter().any(|sink| sink.name.as_str() == name);
    let rights = rights.map_or(Rights::Read, |Extension(rights)| rights);
    let form_key = match rights {
        Rights::Read => None,
        Rights::Change => Some(String::new()),
        Rights::ChangeWith { form_key } => Some(form_key),
    };
    let sink_done = asked.sink_done.filter(|sink| known(sink));
    let extras = Extras {
        form_key,
        done: asked.done.zip(sink_done).map(|(change, sink)| change.done(&sink)),
        letters: match asked.letters.filter(known) {
            Some(sink) => dead_letters(&state, &status, &sink, asked.letters_before).await,
            None => None,
        },
        event: event(&state, &status, text).await,
        history: if asked.events { Some(history(&state, text).await) } else { None },
        chart: counts(&state, &status, Range::parse(text)).await,
    };
    let mut table = table(&status, &Query::parse(text));
    table.add_sinks(state.control.sinks_of());
    match state.store.activity(table.ids()).await {
        Ok(activity) => table.add_activity(&activity),
        Err(error) => debug!(%error, "the activity of subscriptions cannot be read for the page"),
    }
    render("page.html", Value::from(Serde(view::view(&status, table, &extras))))
}

async fn counts(state: &ReadState, status: &Status, range: Range) -> Chart {
    let counts = match range {
        Range::Hour => Ok(state.store.minute_counts()),
        Range::Day | Range::Week => state.store.hour_counts(range.first_hour(status.now)).await,
    };
    let counts = counts.inspect_err(|error| debug!(%error, "counts cannot be read for the page"));
    chart(range, &counts.unwrap_or_default(), status.now)
}

async fn dead_letters(
    state: &ReadState,
    status: &Status,
    sink: &str,
    before: Option<i64>,
) -> Option<Letters> {
    let before = before.unwrap_or(i64::MAX);
    let read = state
        .control
        .newest_letters(SinkName::new(sink), before, letters::SHOWN + 1)
        .await
        .inspect_err(|refused| debug!(error = refused.error, "dead letters cannot be read for the page"));
    let all = status.sinks.iter().find(|each| each.name.as_str() == sink).map_or(0, |sink| sink.dead_letters);
    read.ok().map(|read| letters::letters(sink, all, &read, status.now))
}

/// Returns the event that the query names.
async fn event(state: &ReadState, status: &Status, query: &str) -> Option<Whole> {
    let seq = history::Query::parse(query).event?;
    let read = state.store.read_before(Seq(seq.0.saturating_add(1)), 1, READ_BYTES).await;
    let found =
        read.inspect_err(|error| debug!(%error, "an event cannot be read for the page")).unwrap_or_default();
    let found = found.first().filter(|event| event.seq == seq);
    let takes = |sink: &SinkName| match (found, state.control.sink_filter(sink)) {
        (Some(stored), Some(filter)) => filter(&stored.event),
        _ => false,
    };
    let sinks = status.sinks.iter().map(|sink| &sink.name).filter(|sink| takes(sink));
    Some(history::whole(seq, found, sinks.map(SinkName::to_string).collect()))
}

/// Searches backwards for events that the query chooses.
async fn history(state: &ReadState, query: &str) -> History {
    let mut query = history::Query::parse(query);
    let filter = match state.filter(query.wanted.clone()) {
        Ok(filter) if query.problem.is_none() => filter,
        Ok(_) => return history::history(&query, &Found::default()),
        Err(problem) => {
            query.problem = Some(problem);
            return history::history(&query, &Found::default());
        }
    };
    let newest = *state.store.last_seq().borrow();
    let mut found = Found { newest, ..Found::default() };
    let end = Instant::now() + SEARCH_LIMIT;
    let mut before = query.before.unwrap_or(Seq(newest.0.saturating_add(1)));
    loop {
        let read = match state.store.read_before(before, READ, READ_BYTES).await {
            Ok(read) => read,
            Err(error) => {
                debug!(%error, "events cannot be read for the page");
                query.problem = Some("The event store cannot be read at present.".to_owned());
                break;
            }
        };
        let Some(last) = read.last().map(|event| event.seq) else { break };
        before = last;
        for event in read {
            found.searched += 1;
            if filter.matches(&event.event) {
                before = event.seq;
                found.events.push(event);
                if found.events.len() == history::SHOWN {
                    break;
                }
            }
        }
        if found.events.len() == history::SHOWN || found.searched >= history::SEARCHED || Instant::now() > end
        {
            found.older = (before.0 > state.store.status().borrow().first_seq.0).then_some(before);
            break;
        }
    }
    history::history(&query, &found)
}

/// Routes of the page and its files.
pub(super) fn routes() -> Router<Arc<ReadState>> {
    const fn file(
        kind: &'static str,
        text: &'static str,
    ) -> ([(header::HeaderName, &'static str); 1], &'static str) {
        ([(header::CONTENT_TYPE, kind)], text)
    }
    Router::new()
        .route("/", get(page))
        .route("/page.css", get(async || file("text/css; charset=utf-8", include_str!("page.css"))))
        .route("/page.js", get(async || file("text/javascript; charset=utf-8", include_str!("page.js"))))
        .route("/icon.svg", get(async || file("image/svg+xml", include_str!("icon.svg"))))
}

#[cfg(test)]
mod tests {
    use super::view::tests::{entry, well};
    use super::*;
    use crate::model::route::SinkName;
    use crate::model::status::{
        GrantStatus, Problem, RefusedReload, Status, SubscriptionState, WebhookStatus,
    };
    use crate::model::subscription::SubscriptionKey;
    use crate::model::subscriptions::LoginNames;
    use crate::store::TypeCount;

    const HOSTILE: &str = "<script>alert(1)</script>'\"><img src=x onerror=alert(1)>\u{1b}[2J\u{202e}";

    fn html(status: &Status, query: &str) -> String {
        let minute = status.now.unix_millis() / 60_000;
        let counts = [TypeCount { slot: minute, kind: HOSTILE.into(), events: 1 }];
        let chart = chart(Range::Hour, &counts, status.now);
        let extras = Extras { history: Some(History::default()), chart, ..Extras::default() };
        let mut table = table(status, &Query::parse(query));
        table.add_sinks(|_| vec![SinkName::new(HOSTILE)]);
        let view = view::view(status, table, &extras);
        TEMPLATES.get_template("page.html").unwrap().render(Value::from(Serde(view))).unwrap()
    }

    #[test]
    fn text_from_strangers_is_escaped() {
        let mut status = well();
        let text = || HOSTILE.to_owned();
        status.version = text();
        status.problems = vec![Problem { part: text(), message: text(), hint: format!("`{HOSTILE}`") }];
        status.config.path = text();
        status.config.refused = Some(RefusedReload { at: status.now, errors: vec![text()] });
        let mut parked = entry(HOSTILE, SubscriptionState::Parked, Some(HOSTILE));
        parked.key = SubscriptionKey::new(HOSTILE, HOSTILE, parked.key.condition.clone());
        parked.id = Some(HOSTILE.into());
        parked.logins = LoginNames::One(HOSTILE.into());
        status.set_subscriptions(vec![parked].into());
        status.shards[0].problem = Some(text());
        status.shards[0].state = crate::model::status::ShardState::Waiting;
        status.sinks[0].name = SinkName::new(HOSTILE);
        status.sinks[0].kind = text();
        status.sinks[0].problem = Some(text());
        status.reconcile.grants = vec![GrantStatus {
            user_id: "1".into(),
            login: Some(HOSTILE.into()),
            granted: Default::default(),
            missing: [HOSTILE.into()].into(),
        }];
        let mut cluster = crate::model::example::status().cluster.unwrap();
        (cluster.host, cluster.leader) = (text(), None);
        (cluster.problem, cluster.hint) = (Some(text()), Some(format!("`{HOSTILE}`")));
        let host = &mut cluster.hosts[0];
        (host.name, host.version, host.sinks) = (text(), text(), vec![text()]);
        status.cluster = Some(cluster);
        status.webhook = Some(WebhookStatus {
            callback: text(),
            listen: text(),
            rejected: [(text(), 1)].into(),
            ..WebhookStatus::default()
        });
        let search = form_urlencoded::Serializer::new(String::new()).append_pair("q", HOSTILE).finish();
        for query in ["", "state=<script>", &search] {
            let page = html(&status, query);
            assert!(page.matches("&lt;script&gt;").count() > 15, "{page}");
            assert!(!page.contains("<script>") && !page.contains("<img"), "{page}");
            assert!(!page.contains("'&quot;") && !page.contains("\"><img"), "{page}");
            assert!(!page.contains(['\u{1b}', '\u{202e}']) && page.contains("\\x1b[2J\\u{202e}"), "{page}");
            assert!(!page.contains(" style=") && !page.contains("http://") && !page.contains("https://"));
        }
        assert_eq!(html(&well(), "").matches("<script").count(), 1, "the page's own");
        assert!(login(true).0.contains("role=\"alert\"") && !login(false).0.contains("alert"));
    }

    #[test]
    fn hosts_are_shown_if_there_is_a_cluster() {
        let mut status = crate::model::example::healthy();
        status.cluster = crate::model::example::status().cluster;
        let page = html(&status, "");
        for part in
            ["This is web-1; it leads.", "file differs", "connection refused", "this one", "stands by"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        status.cluster = None;
        assert!(!html(&status, "").contains("hosts-title"));
    }

    #[test]
    fn commands_are_marked_as_code() {
        let marked = |text: &str| code(text.to_owned(), String::new()).to_string();
        assert_eq!(
            code("`eventsubd plan`".to_owned(), " --config a.toml".to_owned()).to_string(),
            "<code>eventsubd plan --config a.toml</code>"
        );
        assert_eq!(marked("run `a <b>`, then `c`"), "run <code>a &lt;b&gt;</code>, then <code>c</code>");
        assert_eq!(marked("a ` b <"), "a ` b &lt;");
        assert_eq!(marked(""), "");
    }
}
