//! The status page: state, problems and what to do about them.
//!
//! The daemon renders all of it; the script fetches the page again, applies the differences, and follows events. The
//! page therefore reads the same without the script, and text from strangers is escaped in one place: the templates.
//! Nothing is loaded from other origins.

mod chart;
mod rows;
mod view;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::Html;
use axum::routing::get;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, HtmlEscape, Value, context, escape_formatter};

use self::rows::Query;
use super::reading::ReadState;
use crate::model::invocation::Invocation;
use crate::model::text::lines;

/// The templates. Their names end in `.html`, which turns on escaping.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters"));
    environment.add_filter("code", code);
    environment.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => escape_formatter(out, state, &Value::from(lines(text))),
        _ => escape_formatter(out, state, value),
    });
    for (name, text) in [("page.html", include_str!("page.html")), ("login.html", include_str!("login.html"))]
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
    render("login.html", context! { wrong })
}

async fn page(State(state): State<Arc<ReadState>>, uri: Uri) -> Html<String> {
    let status = state.control.status();
    let query = Query::parse(uri.query().unwrap_or_default());
    render("page.html", Value::from(Serde(view::view(&status, &query))))
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
    use std::sync::Arc;

    use super::rows::Query;
    use super::view::tests::{entry, well};
    use super::*;
    use crate::model::route::SinkName;
    use crate::model::status::{
        GrantStatus, Problem, RefusedReload, Status, SubscriptionState, WebhookStatus,
    };

    const HOSTILE: &str = "<script>alert(1)</script>'\"><img src=x onerror=alert(1)>\u{1b}[2J\u{202e}";

    fn html(status: &Status, query: &str) -> String {
        let view = view::view(status, &Query::parse(query));
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
        parked.key.subscription_type = HOSTILE.into();
        parked.key.version = HOSTILE.into();
        parked.id = Some(HOSTILE.into());
        parked.logins = Box::new([HOSTILE.into()]);
        status.subscriptions = Arc::from([parked]);
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
    fn commands_are_marked_as_code() {
        let credentials = |text: &str| code(text.to_owned(), String::new()).to_string();
        assert_eq!(
            code("`eventsubd plan`".to_owned(), " --config a.toml".to_owned()).to_string(),
            "<code>eventsubd plan --config a.toml</code>"
        );
        assert_eq!(credentials("run `a <b>`, then `c`"), "run <code>a &lt;b&gt;</code>, then <code>c</code>");
        assert_eq!(credentials("a ` b <"), "a ` b &lt;");
        assert_eq!(credentials(""), "");
    }
}
