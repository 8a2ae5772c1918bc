//! The pages that a visitor sees, as HTML. Text from elsewhere is escaped in one place: the template. ◆

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::needs::Needs;
use super::outcomes::Outcome;
use super::words;
use crate::model::grants::Scopes;
use crate::samples;

const STYLE: &str = include_str!("page.css");

/// The name of the template ends in `.html`, which turns on escaping.
static TEMPLATE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters"));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_template("page.html", include_str!("page.html")).expect("the template is tested");
    environment
});

/// The hash of the style sheet, which the policy names.
static STYLE_HASH: LazyLock<String> = LazyLock::new(|| STANDARD.encode(Sha256::digest(STYLE)));

/// The application that asks, and where its users are sent to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    pub(super) client_id: &'a str,
    /// Host of the redirect URI.
    pub(super) host: &'a str,
    /// The address of Twitch, or of what stands in for it.
    pub(super) auth_url: &'a str,
}

/// Everything that a visitor can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// An invite for everyone: the visitor has to sign in first.
    SignIn {
        invite: String,
    },
    /// The grants that this user is asked for.
    Ask {
        login: Box<str>,
        needs: Needs,
        invite: String,
    },
    /// Nothing is needed of this user.
    Nothing {
        login: Box<str>,
    },
    Done {
        login: Box<str>,
        scopes: Scopes,
    },
    /// The user has allowed only a part.
    Missing {
        login: Box<str>,
        missing: Scopes,
        invite: String,
    },
    WrongUser {
        login: Box<str>,
        invited: Box<str>,
        invite: String,
    },
    /// The user has declined.
    Declined {
        invite: String,
    },
    NoInvite,
    UnknownInvite,
    ExpiredInvite,
    /// The visit was ended before, has expired, or never began.
    Stale,
    OtherBrowser,
    /// Twitch does not take the code.
    Code,
    /// Twitch refuses the application.
    Client,
    TwitchAway {
        invite: String,
    },
    TooMany,
    /// The daemon does not know yet what the file needs.
    Starting,
    Malformed,
}

#[derive(Serialize)]
struct ScopeLine<'a> {
    name: &'a str,
    words: &'a str,
}

#[derive(Serialize)]
struct Reason<'a> {
    name: &'a str,
    sentence: &'a str,
    channels: u64,
}

/// The parts of a page.
#[derive(Default, Serialize)]
struct Parts<'a> {
    status: u16,
    is_problem: bool,
    client_id: &'a str,
    host: &'a str,
    style: &'a str,
    title: &'a str,
    texts: Vec<String>,
    scopes_title: &'a str,
    scopes: Vec<ScopeLine<'a>>,
    reasons: Vec<Reason<'a>>,
    button: &'a str,
    invite: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn new(status: u16, title: &'a str, text: impl Into<String>) -> Self {
        Self { status, is_problem: status >= 400, title, texts: vec![text.into()], ..Self::default() }
    }

    fn text(mut self, text: &str) -> Self {
        self.texts.push(text.to_owned());
        self
    }

    fn button(mut self, label: &'a str, invite: &'a str) -> Self {
        self.button = label;
        self.invite = Some(invite);
        self
    }

    fn scopes(mut self, title: &'a str, scopes: &'a Scopes) -> Self {
        self.scopes_title = title;
        let line = |name: &'a str| ScopeLine { name, words: words::of_scope(name).unwrap_or(name) };
        self.scopes = scopes.iter().map(|name| line(name)).collect();
        self
    }

    fn reasons(mut self, needs: &'a Needs) -> Self {
        let reason = |((name, version), channels): (&'a (Box<str>, Box<str>), &u64)| {
            let sentence = samples::description(name, version).map_or("", |found| found.sentence);
            Reason { name, sentence, channels: *channels }
        };
        self.reasons = needs.types.iter().map(reason).collect();
        self
    }
}

impl View {
    /// Whether only somebody with an invite sees this.
    pub(super) fn is_for_invited(&self) -> bool {
        match self {
            Self::NoInvite
            | Self::UnknownInvite
            | Self::ExpiredInvite
            | Self::Stale
            | Self::OtherBrowser
            | Self::TooMany
            | Self::Malformed => false,
            Self::SignIn { .. }
            | Self::Ask { .. }
            | Self::Nothing { .. }
            | Self::Done { .. }
            | Self::Missing { .. }
            | Self::WrongUser { .. }
            | Self::Declined { .. }
            | Self::Code
            | Self::Client
            | Self::TwitchAway { .. }
            | Self::Starting => true,
        }
    }

    /// How the request ended, with its reason; `None` for a page on the way.
    pub(super) fn outcome(&self) -> Option<(Outcome, &'static str)> {
        Some(match self {
            Self::SignIn { .. } | Self::Ask { .. } | Self::Nothing { .. } => return None,
            Self::Done { .. } => (Outcome::Granted, "done"),
            Self::Declined { .. } => (Outcome::Declined, "declined"),
            Self::Missing { .. } => (Outcome::Declined, "allowed a part"),
            Self::NoInvite => (Outcome::Refused, "no invite"),
            Self::UnknownInvite => (Outcome::Refused, "unknown invite"),
            Self::ExpiredInvite => (Outcome::Refused, "expired invite"),
            Self::Stale => (Outcome::Refused, "no such visit"),
            Self::OtherBrowser => (Outcome::Refused, "another browser"),
            Self::WrongUser { .. } => (Outcome::Refused, "another user"),
            Self::Malformed => (Outcome::Refused, "malformed"),
            Self::TooMany => (Outcome::Limited, "too many requests"),
            Self::Starting => (Outcome::Limited, "starting"),
            Self::Code => (Outcome::Failed, "code"),
            Self::Client => (Outcome::Failed, "application"),
            Self::TwitchAway { .. } => (Outcome::Failed, "no answer"),
        })
    }

    fn parts(&self) -> Parts<'_> {
        const CONNECT: &str = "Connect with Twitch";
        const AGAIN: &str = "Try again";
        match self {
            Self::SignIn { invite } => Parts::new(
                200,
                "You are invited",
                "An application asks for your permission to be told of events on Twitch.",
            )
            .text("Sign in with Twitch first, which permits nothing yet. This page then says what is asked of you, and why.")
            .button("Sign in with Twitch", invite),
            Self::Ask { login, needs, invite } => Parts::new(
                200,
                "You are asked for a permission",
                format!("An application asks {login} for a permission on Twitch."),
            )
            .scopes("What it asks for", &needs.scopes)
            .reasons(needs)
            .button(CONNECT, invite),
            Self::Nothing { login } => {
                Parts::new(200, "Nothing to do", format!("Nothing is needed of {login}."))
                    .text("If you expected something else, tell the person who gave you the link.")
            }
            Self::Done { login, scopes } => {
                Parts::new(200, "Done", format!("Thank you, {login}. You can close this page."))
                    .scopes("What you have allowed", scopes)
            }
            Self::Missing { login, missing, invite } => {
                Parts::new(200, "Something is missing", format!("{login} has not allowed all of it."))
                    .scopes("What is missing", missing)
                    .button(AGAIN, invite)
            }
            Self::WrongUser { login, invited, invite } => Parts::new(
                403,
                "Another account",
                format!("You are signed in to Twitch as {login}, and {invited} is asked."),
            )
            .text("Choose the other account on Twitch's page, or open the link in the browser where it is signed in.")
            .button(AGAIN, invite),
            Self::Declined { invite } => {
                Parts::new(200, "Nothing was allowed", "You have declined on Twitch's page.")
                    .text("You can close this page, or think again.")
                    .button(AGAIN, invite)
            }
            Self::TwitchAway { invite } => {
                Parts::new(502, "Twitch does not answer", "Twitch could not be asked just now.")
                    .text("Try again in a few minutes.")
                    .button(AGAIN, invite)
            }
            other => other.plain(),
        }
    }

    /// Pages without a button.
    fn plain(&self) -> Parts<'_> {
        let ask = "Ask the person who gave you the link for a new one.";
        let open = "Open the link that you were given once more.";
        match self {
            Self::NoInvite => Parts::new(404, "No invite", "This page opens with an invite only.").text(ask),
            Self::UnknownInvite => {
                Parts::new(403, "This invite is not valid", "The link is incomplete, or no longer valid.")
                    .text(ask)
            }
            Self::ExpiredInvite => {
                Parts::new(403, "This invite has expired", "The link is too old.").text(ask)
            }
            Self::Stale => Parts::new(
                400,
                "This visit is over",
                "It took too long, or this page was opened a second time.",
            )
            .text(open),
            Self::OtherBrowser => Parts::new(
                400,
                "Another browser",
                "This visit began in another browser, or cookies are blocked.",
            )
            .text(open),
            Self::Code => Parts::new(
                400,
                "Twitch did not confirm it",
                "What Twitch sent with you was used before, or is too old.",
            )
            .text(open),
            Self::Client => Parts::new(
                502,
                "Twitch refuses this application",
                "Its settings have to be corrected. You cannot do anything about it.",
            )
            .text("Tell the person who gave you the link."),
            Self::TooMany => {
                Parts::new(429, "Too many visitors", "Try again in a minute: load this page once more.")
            }
            Self::Starting => {
                Parts::new(503, "Not ready yet", "Try again in a minute: load this page once more.")
            }
            _ => Parts::new(400, "This cannot be understood", "The request is not one of this page.")
                .text(open),
        }
    }
}

pub(super) fn render(view: &View, asker: Asker<'_>) -> Response<Bytes> {
    let parts = Parts { client_id: asker.client_id, host: asker.host, style: STYLE, ..view.parts() };
    let status = parts.status;
    let rendered = TEMPLATE.get_template("page.html");
    let rendered = rendered.and_then(|template| template.render(Value::from(Serde(parts))));
    let text = rendered.unwrap_or_else(|_| "<!doctype html><title>eventsubd</title>".to_owned());
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if status == 429 || status == 503 {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    }
    secure(&mut response, asker);
    response
}

/// Adds the headers of every answer. Not `no-referrer`, because the form would then be sent with the origin `null`.
pub(super) fn secure(response: &mut Response<Bytes>, asker: Asker<'_>) {
    const HEADERS: [(HeaderName, &str); 8] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
    ];
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; img-src data:; form-action 'self'{}; base-uri 'none'; \
         frame-ancestors 'none'",
        *STYLE_HASH,
        form_targets(asker.auth_url)
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
}

/// Browsers apply `form-action` to redirects as well: to Twitch's consent page, and from there to its login.
fn form_targets(auth_url: &str) -> String {
    let Ok(url) = auth_url.parse::<http::Uri>() else { return String::new() };
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else { return String::new() };
    let twitch = if authority.host().ends_with(".twitch.tv") { " https://*.twitch.tv" } else { "" };
    format!(" {scheme}://{authority}{twitch}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: Asker<'_> =
        Asker { client_id: "us<", host: "a.example", auth_url: "https://id.twitch.tv/oauth2" };

    fn text(view: &View) -> (u16, String) {
        let response = render(view, ASKER);
        let text = String::from_utf8(response.body().to_vec()).unwrap();
        (response.status().as_u16(), text)
    }

    fn needs(scopes: &[&str]) -> Needs {
        let types = [(("channel.follow".into(), "2".into()), 2), (("channel.<b>".into(), "1".into()), 1)];
        Needs { scopes: scopes.iter().map(|name| (*name).into()).collect(), types: types.into() }
    }

    #[test]
    fn the_page_says_who_asks_for_what_and_why() {
        let needs = needs(&["moderator:read:followers", "new:<scope>"]);
        let ask = View::Ask { login: "<i>ann</i>".into(), needs, invite: "in\"vite".to_owned() };
        let (status, text) = text(&ask);
        assert_eq!(status, 200);
        for part in [
            "See the followers of the channels that you own or moderate <code>moderator:read:followers</code>",
            "<li>new:&lt;scope&gt;</li>",
            "<code>channel.follow</code>, 2 times",
            "<code>channel.&lt;b&gt;</code>",
            "&lt;i&gt;ann&lt;&#x2f;i&gt;",
            "value=\"in&quot;vite\"",
            "<code>us&lt;</code> at <code>a.example</code>",
            "<button>Connect with Twitch</button>",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let described = samples::description("channel.follow", "2").unwrap().sentence;
        assert!(!described.is_empty() && text.contains(described), "{text}");
    }

    #[test]
    fn every_answer_has_the_strict_headers() {
        for view in [View::NoInvite, View::TooMany, View::SignIn { invite: "x".to_owned() }] {
            let response = render(&view, ASKER);
            let policy = response.headers()["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
            assert!(
                policy.contains("form-action 'self' https://id.twitch.tv https://*.twitch.tv;"),
                "{policy}"
            );
            assert_eq!(response.headers()["cache-control"], "no-store");
            assert_eq!(response.headers()["x-frame-options"], "DENY");
        }
        assert_eq!(form_targets("http://127.0.0.1:8790/oauth2"), " http://127.0.0.1:8790");
    }

    #[test]
    fn problems_are_announced_and_offer_a_button_only_where_it_helps() {
        let invite = || "i".to_owned();
        let login = || Box::<str>::from("ann");
        let scopes: Scopes = ["bits:read".into()].into();
        for (view, status, title, has_button) in [
            (View::Nothing { login: login() }, 200, "Nothing to do", false),
            (View::Done { login: login(), scopes: scopes.clone() }, 200, "Done", false),
            (
                View::Missing { login: login(), missing: scopes, invite: invite() },
                200,
                "Something is missing",
                true,
            ),
            (
                View::WrongUser { login: login(), invited: "bob".into(), invite: invite() },
                403,
                "Another account",
                true,
            ),
            (View::Declined { invite: invite() }, 200, "Nothing was allowed", true),
            (View::NoInvite, 404, "No invite", false),
            (View::UnknownInvite, 403, "This invite is not valid", false),
            (View::ExpiredInvite, 403, "This invite has expired", false),
            (View::Stale, 400, "This visit is over", false),
            (View::OtherBrowser, 400, "Another browser", false),
            (View::Code, 400, "Twitch did not confirm it", false),
            (View::Client, 502, "Twitch refuses this application", false),
            (View::TwitchAway { invite: invite() }, 502, "Twitch does not answer", true),
            (View::TooMany, 429, "Too many visitors", false),
            (View::Starting, 503, "Not ready yet", false),
            (View::Malformed, 400, "This cannot be understood", false),
        ] {
            let (code, text) = text(&view);
            assert_eq!(code, status, "{title}");
            assert!(text.contains(&format!("<h1>{title}</h1>")), "{title}: {text}");
            assert_eq!(text.contains("role=\"alert\""), status >= 400, "{title}");
            assert_eq!(text.contains("<form method=\"post\">"), has_button, "{title}");
        }
    }
}
