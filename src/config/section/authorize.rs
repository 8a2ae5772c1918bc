//! `[authorize]`: the page for invited users.

use std::net::SocketAddr;

use crate::config::keys::layers::Layers;
use crate::config::keys::table;
use crate::config::keys::url;
use crate::config::report::diagnostic::quote;
use crate::config::report::problems::Problems;
use crate::config::settings::Authorize;
use crate::model::webhook::Listen;

const REDIRECT_URI: &str = "authorize.redirect_uri";
const LISTEN: &str = "authorize.listen";
const CALLBACK: &str = "transport.webhook.callback";
/// Hint about the form of the address.
const EXAMPLE: &str =
    "it is written \"https://example.org/authorize\", exactly as at https://dev.twitch.tv/console/apps";

/// Everything that the section is checked with.
pub(in crate::config) struct Around<'a> {
    pub(in crate::config) layers: &'a Layers,
    pub(in crate::config) callback: Option<&'a str>,
    pub(in crate::config) webhook_listen: Listen,
    pub(in crate::config) admin_listen: Option<SocketAddr>,
}

/// Checks and builds it; `None` when there is no redirect URI.
pub(in crate::config) fn build(
    keys: &table::Authorize,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<Authorize> {
    let Around { layers, callback, webhook_listen, admin_listen } = *around;
    let Some(text) = &keys.redirect_uri else {
        // A key that is there, but wrong, has been reported.
        if keys.listen.is_some() && layers.seen(REDIRECT_URI).is_none() {
            problems
                .warning(layers.place(LISTEN), format!("`{LISTEN}` does nothing without `{REDIRECT_URI}`"))
                .hint(EXAMPLE);
        }
        return None;
    };
    let redirect = redirect(text, layers, problems)?;
    // The same address stands for the same listener.
    let listen =
        keys.listen.filter(|listen| callback.is_none() || webhook_listen != Listen::Address(*listen));
    let listen_is_wrong = keys.listen.is_none() && layers.seen(LISTEN).is_some();
    match (listen, callback) {
        (Some(listen), _) if listen.port() != 0 && Some(listen) == admin_listen => {
            problems
                .error(layers.place(LISTEN), format!("`{LISTEN}` and `admin.listen` are both {listen}"))
                .hint("take another port for one of them");
        }
        (None, Some(callback)) if same_path(&redirect, callback) => {
            problems
                .error(
                    layers.place(REDIRECT_URI),
                    format!("`{REDIRECT_URI}` and `{CALLBACK}` have the same path"),
                )
                .hint(
                    "one listener serves both: give them different paths, or set `listen` in `[authorize]`",
                );
        }
        (None, None) if layers.seen(CALLBACK).is_none() && !listen_is_wrong => {
            problems
                .error(layers.place(REDIRECT_URI), format!("`{REDIRECT_URI}` is given, and nothing serves it"))
                .hint("set `listen` in `[authorize]`, for example \"127.0.0.1:8081\", and have a proxy forward to it")
                .hint(format!("with `{CALLBACK}`, the webhook's listener serves it"));
        }
        _ => {}
    }
    Some(Authorize { redirect_uri: redirect.into(), listen })
}

fn same_path(redirect: &reqwest::Url, callback: &str) -> bool {
    reqwest::Url::parse(callback).is_ok_and(|callback| callback.path() == redirect.path())
}

fn redirect(text: &str, layers: &Layers, problems: &mut Problems) -> Option<reqwest::Url> {
    let mut complain = |message: String, hint: &str| {
        problems.error(layers.place(REDIRECT_URI), message).hint(hint);
        None
    };
    let parsed = match reqwest::Url::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => return complain(format!("`{REDIRECT_URI}` is not a valid URL: {error}"), EXAMPLE),
    };
    let host = parsed.host_str().unwrap_or_default();
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return complain(format!("`{REDIRECT_URI}` holds a user name or a password"), EXAMPLE);
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return complain(
            format!("`{REDIRECT_URI}` must end with its path"),
            "leave out what begins with `?` or `#`",
        );
    }
    match parsed.scheme() {
        "https" => {}
        "http" if url::is_loopback(host) => {}
        "http" => {
            return complain(
                format!(
                    "`{REDIRECT_URI}` must begin with https://, since {} is not this machine",
                    quote(host)
                ),
                "Twitch's codes and the visitor's cookie travel there; let a proxy end TLS",
            );
        }
        _ => return complain(format!("`{REDIRECT_URI}` must begin with https://"), EXAMPLE),
    }
    if host.is_empty() {
        return complain(format!("`{REDIRECT_URI}` names no host"), EXAMPLE);
    }
    // Twitch compares it letter by letter, and so do we.
    if parsed.as_str() != text {
        let right = quote(parsed.as_str());
        return complain(
            format!("`{REDIRECT_URI}` is not in its usual form"),
            &format!("write {right}, here and at https://dev.twitch.tv/console/apps"),
        );
    }
    Some(parsed)
}
