//! `[cluster]`: the NATS servers that join several hosts, and the names of cluster and host.

use super::secrets::private_file;
use crate::config::files::Folder;
use crate::config::keys::layers::Layers;
use crate::config::keys::table;
use crate::config::report::diagnostic::quote;
use crate::config::report::problems::Problems;
use crate::config::settings::{Cluster, Webhook};
use crate::model::secret::Secret;

const NATS: &str = "cluster.nats";
const CREDENTIALS: &str = "cluster.credentials";
const NAME: &str = "cluster.name";
const HOST: &str = "cluster.host";
/// The longest name of a cluster or a host.
const LONGEST: usize = 63;
/// The names that a host can have, for a hint.
pub(in crate::config) const HOST_NAME_HINT: &str = "up to 63 letters and digits, `_`, `.` and `-`";

/// Everything that the section is checked with.
pub(in crate::config) struct Around<'a> {
    pub(in crate::config) layers: &'a Layers,
    pub(in crate::config) folder: &'a Folder,
    pub(in crate::config) webhook: Option<&'a Webhook>,
    /// Whether this build can use NATS.
    pub(in crate::config) is_built_in: bool,
}

/// The cluster that the layers ask for; `None` if they name no NATS server.
pub(in crate::config) fn find(
    keys: &table::Cluster,
    around: &Around<'_>,
    problems: &mut Problems,
) -> Option<Cluster> {
    let Around { layers, folder, webhook, is_built_in } = *around;
    let nats = keys.nats.as_ref()?;
    let at = layers.place(NATS);
    if !is_built_in {
        problems
            .error(&at, "this build of eventsubd cannot use NATS, and `[cluster]` needs it")
            .hint("install a build with it, or build with `cargo build --release --features nats`");
        return None;
    }
    if !nats.expose().split(',').all(|url| is_server(url.trim())) {
        problems
            .error(&at, format!("`{NATS}` is not a list of NATS servers"))
            .hint("with commas between them: `nats = \"nats://n1:4222,nats://n2:4222,nats://n3:4222\"`; `tls://` for TLS");
    }
    check_name(NAME, &keys.name, false, layers, problems);
    if let Some(host) = &keys.host {
        check_name(HOST, host, true, layers, problems);
    }
    let credentials = keys.credentials.as_deref().and_then(|path| {
        private_file(path, folder, &layers.place(CREDENTIALS), "NATS credentials", problems)
    });
    if webhook.is_some_and(|webhook| webhook.secret_file.is_none()) {
        problems
            .error(&at, "`[cluster]` with webhooks needs `transport.webhook.secret_file`")
            .hint("Twitch signs with one secret, which every host must know; make a file with 10 to 100 characters, the same on each");
    }
    Some(Cluster {
        nats: nats.clone(),
        credentials: credentials.map(Secret::new),
        name: keys.name.clone(),
        host: keys.host.clone(),
        replicas: keys.replicas,
    })
}

fn is_server(text: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(text) else { return false };
    matches!(url.scheme(), "nats" | "tls") && url.host_str().is_some_and(|host| !host.is_empty())
}

fn check_name(path: &str, name: &str, dots: bool, layers: &Layers, problems: &mut Problems) {
    if is_name(name, dots) {
        return;
    }
    let hint = if dots { HOST_NAME_HINT } else { "up to 63 letters and digits, `_` and `-`" };
    problems.error(layers.place(path), format!("{} is not a valid `{path}`", quote(name))).hint(hint);
}

/// Whether a host can have this name.
pub(in crate::config) fn is_host_name(name: &str) -> bool {
    is_name(name, true)
}

fn is_name(name: &str, dots: bool) -> bool {
    let is_right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-') || (dots && c == '.');
    let has_bare_dot = name.split('.').any(str::is_empty);
    name.chars().all(is_right) && !has_bare_dot && name.len() <= LONGEST
}
