//! `[transport.webhook]`: where Twitch calls, and where the daemon listens.
//!
//! The checks depend on other keys: a callback may be plain `http` only while the API is on this machine, as it is
//! with the sandbox.

use super::secrets;
use crate::config::files::{self, Folder};
use crate::config::keys::layers::Layers;
use crate::config::keys::table;
use crate::config::keys::url;
use crate::config::report::diagnostic::quote;
use crate::config::report::problems::Problems;
use crate::config::settings::Webhook;
use crate::model::secret::Secret;
use crate::model::webhook::{TlsFiles, WebhookKey};

/// Hint about the form of a callback.
const EXAMPLE: &str = "it is written \"https://example.org/eventsub\"";

/// The mark of every kind of private key in PEM.
const PRIVATE_KEY: &[u8] = b"PRIVATE KEY-----";
/// The largest file of a certificate or a key that is looked at.
const MAX_PEM: u64 = 1 << 20;

/// Everything that the section is checked with.
pub(in crate::config) struct Around<'a> {
    pub(in crate::config) layers: &'a Layers,
    pub(in crate::config) folder: &'a Folder,
    /// The key that asks for webhooks, if one does.
    pub(in crate::config) used_by: Option<&'static str>,
    /// Whether Twitch is on this machine.
    pub(in crate::config) local: bool,
}

/// Checks and builds it; `None` when there is no callback.
pub(in crate::config) fn build(
    keys: &table::Webhook,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<Webhook> {
    let secret = keys.secret_file.as_deref().and_then(|text| secret(text, around, problems));
    let tls = tls(keys, around, problems);
    let Some(text) = &keys.callback else {
        const CALLBACK: &str = "transport.webhook.callback";
        // A key that is there, but wrong, has been reported.
        if let Some(used_by) = around.used_by
            && around.layers.seen(CALLBACK).is_none()
        {
            problems
                .error(around.layers.place(used_by), format!("`{used_by}` asks for webhooks, and `{CALLBACK}` is missing"))
                .hint("set it to the public URL of this daemon: callback = \"https://example.org/eventsub\" in `[transport.webhook]`");
        }
        return None;
    };
    let callback = callback(text, around, problems)?;
    Some(Webhook {
        callback,
        listen: keys.listen,
        secret,
        secret_file: keys.secret_file.as_ref().map(|text| around.folder.join(text)),
        tls,
    })
}

fn callback(text: &str, around: &Around<'_>, problems: &mut Problems) -> Option<String> {
    const PATH: &str = "transport.webhook.callback";
    let at = around.layers.place(PATH);
    let mut complain = |message: String, hint: &str| {
        problems.error(&at, message).hint(hint);
        None
    };
    let parsed = match reqwest::Url::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => return complain(format!("`{PATH}` is not a valid URL: {error}"), EXAMPLE),
    };
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return complain(
            format!("`{PATH}` holds a user name or a password"),
            "Twitch signs what it sends; nothing else is needed",
        );
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return complain(
            format!("`{PATH}` must end with its path"),
            "leave out what begins with `?` or `#`: the daemon adds a query of its own",
        );
    }
    let plain = parsed.scheme() == "http" && around.local;
    if parsed.scheme() != "https" && !plain {
        return complain(
            format!("`{PATH}` must begin with https://"),
            "Twitch calls nothing else; let a proxy end TLS, or set `tls_certificate` and `tls_key`. Plain http:// is for the sandbox",
        );
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return complain(format!("`{PATH}` names no host"), EXAMPLE);
    }
    if parsed.port().is_some() && !around.local {
        return complain(
            format!("`{PATH}` must not name a port"),
            "Twitch calls port 443 only; `listen` may be another one when a proxy stands in front",
        );
    }
    if parsed.host_str().is_some_and(url::is_loopback) && !around.local {
        return complain(
            format!(
                "`{PATH}` must name a public host, and {} is this machine",
                quote(parsed.host_str().unwrap_or_default())
            ),
            "Twitch calls it from outside",
        );
    }
    Some(parsed.into())
}

fn secret(text: &str, around: &Around<'_>, problems: &mut Problems) -> Option<Secret> {
    const PATH: &str = "transport.webhook.secret_file";
    let at = around.layers.place(PATH);
    let text_of_file = secrets::private_file(text, around.folder, &at, "the webhook secret", problems)?;
    let path = around.folder.join(text).display().to_string();
    let secret = Secret::new(&*text_of_file);
    let flaw = match files::flaw(&text_of_file) {
        Some(flaw) => flaw,
        None => match WebhookKey::new(secret.clone()) {
            Ok(_) => return Some(secret),
            Err(error) => error.to_string(),
        },
    };
    problems
        .error(at, format!("{} holds no webhook secret: {flaw}", quote(&path)))
        .hint("leave `secret_file` out to have one made");
    None
}

fn tls(keys: &table::Webhook, around: &Around<'_>, problems: &mut Problems) -> Option<TlsFiles> {
    const KEYS: [&str; 2] = ["transport.webhook.tls_certificate", "transport.webhook.tls_key"];
    match (&keys.tls_certificate, &keys.tls_key) {
        (Some(certificate), Some(key)) => {
            for (path, text) in KEYS.iter().zip([certificate, key]) {
                check_private_key(path, text, around, problems);
            }
            Some(TlsFiles { certificate: around.folder.join(certificate), key: around.folder.join(key) })
        }
        (None, None) => None,
        (certificate, _) => {
            let [given, missing] = if certificate.is_some() { KEYS } else { [KEYS[1], KEYS[0]] };
            if around.layers.seen(missing).is_none() {
                problems
                    .error(
                        around.layers.place(given),
                        format!("`{given}` is given, and `{missing}` is missing"),
                    )
                    .hint("set both, or neither and let a proxy end TLS");
            }
            None
        }
    }
}

/// A private key is for its owner's eyes only, also one that stands beside its certificate. What else is wrong with the
/// file is found when it is used.
fn check_private_key(path: &str, text: &str, around: &Around<'_>, problems: &mut Problems) {
    let Ok((bytes, access)) = around.folder.read(text, MAX_PEM) else { return };
    if bytes.windows(PRIVATE_KEY.len()).any(|window| window == PRIVATE_KEY) {
        let name = around.folder.join(text).display().to_string();
        let instead = ["give the daemon a copy of its own, with mode 0600".to_owned()];
        secrets::check_access(&name, access, "a private key", &around.layers.place(path), &instead, problems);
    }
}
