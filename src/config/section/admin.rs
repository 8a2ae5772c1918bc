//! `[admin]`: the address of the admin endpoint, its token and trusted proxies.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::secret::Secret;

use super::secrets::private_file;
use crate::config::files::{Folder, flaw_of_secret};
use crate::config::keys::layers::Layers;
use crate::config::keys::table;
use crate::config::report::diagnostic::quote;
use crate::config::report::private;
use crate::config::report::problems::{At, Problems};
use crate::config::settings::Admin;

const LISTEN: &str = "admin.listen";
const TOKEN_FILE: &str = "admin.token_file";
const TRUSTED_PROXIES: &str = "admin.trusted_proxies";
/// The shortest token, in characters: long enough that nobody guesses it.
const MIN_TOKEN: usize = 16;
/// The longest token, which has to fit into a header.
const MAX_TOKEN: usize = 1024;
/// Hint about making a token.
const MAKE_TOKEN: &str = "make one with `openssl rand -hex 24`";

/// The endpoint that the layers ask for. Relative paths start in `folder`.
pub(in crate::config) fn find(
    keys: &table::Admin,
    layers: &Layers,
    folder: &Folder,
    problems: &mut Problems,
) -> Option<Admin> {
    let trusted_proxies = trusted_proxies(keys, &layers.place(TRUSTED_PROXIES), problems);
    let Some(listen) = keys.listen else {
        // A key that is there, but wrong, has been reported.
        if keys.token_file.is_some() && layers.seen(LISTEN).is_none() {
            problems
                .warning(layers.place(TOKEN_FILE), format!("`{TOKEN_FILE}` does nothing without `{LISTEN}`"))
                .hint("for example `listen = \"127.0.0.1:9464\"`");
        }
        return None;
    };
    let place = layers.place(TOKEN_FILE);
    let token = keys.token_file.as_deref().map(|name| token(name, folder, &place, problems));
    if token.is_none() && layers.seen(TOKEN_FILE).is_none() && !is_loopback(listen.ip()) {
        problems
            .error(
                layers.place(LISTEN),
                format!("{listen} can be reached from other machines, and there is no token"),
            )
            .hint(format!("set `token_file` in `[admin]` to a file with a token in it; {MAKE_TOKEN}"))
            .hint(format!("or listen on this machine only: \"127.0.0.1:{}\"", listen.port()));
    }
    Some(Admin { listen, token: token.flatten(), trusted_proxies })
}

/// Single addresses are networks of one address.
fn trusted_proxies(keys: &table::Admin, at: &At, problems: &mut Problems) -> Arc<[IpNet]> {
    let texts = keys.trusted_proxies.iter().flatten().map(|text| text.trim());
    let parsed = texts.filter_map(|text| match text.parse().or_else(|_| text.parse().map(single)) {
        Ok(network) => Some(network),
        Err(_) => {
            problems
                .error(
                    at,
                    format!("{} in `{TRUSTED_PROXIES}` is not an address or a network", private::shown(text)),
                )
                .hint("write for example \"127.0.0.1\", \"10.0.0.0/8\" or \"2001:db8::/32\"");
            None
        }
    });
    parsed.collect()
}

fn single(ip: IpAddr) -> IpNet {
    IpNet::from(ip.to_canonical())
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn token(name: &str, folder: &Folder, at: &At, problems: &mut Problems) -> Option<Secret> {
    let token = private_file(name, folder, at, "the token of the admin endpoint", problems)?;
    let problem = if let Some(flaw) = flaw_of_secret(&token) {
        flaw
    } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        "it may only hold visible ASCII characters".to_owned()
    } else if token.len() < MIN_TOKEN {
        format!("it has {} characters, and needs {MIN_TOKEN} or more", token.len())
    } else if token.len() > MAX_TOKEN {
        format!("it has {} characters, and may have {MAX_TOKEN}", token.len())
    } else {
        return Some(Secret::new(token));
    };
    let path = folder.join(name).display().to_string();
    problems.error(at, format!("no token in {}: {problem}", quote(&path))).hint(MAKE_TOKEN);
    None
}
