//! The page for people.

use std::sync::LazyLock;

use axum::response::Html;
use minijinja::{Environment, context};

/// The templates. Their names end with `.html`, so that whatever is put into them is escaped.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.add_template("login.html", include_str!("login.html")).expect("the templates are tested");
    environment
});

fn render(name: &str, context: minijinja::Value) -> Html<String> {
    let rendered = TEMPLATES.get_template(name).and_then(|template| template.render(context));
    Html(rendered.unwrap_or_else(|error| {
        tracing::error!(%error, "the page cannot be rendered");
        "<!doctype html><title>eventsubd</title><p>The page cannot be rendered; see the log.".to_owned()
    }))
}

/// The form that asks for the token.
pub(super) fn login(wrong: bool) -> Html<String> {
    render("login.html", context! { wrong })
}
