//! `eventsubd init --from-twitch`: reads what the client has, and writes the files that list it.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::files::{SECRET, create_all, exists, invocation};
use super::listing::{AtTwitch, Listing, listing};

use crate::cli::args::{Args, InitArgs};
use crate::cli::control::block_on;
use crate::cli::plan::{Api, exit_code};
use crate::cli::target::load_options;
use crate::cli::term::{self, Failure};
use crate::cli::{BAD_CONFIG, FAILED};
use crate::config::{self, Config, LoadOptions};
use crate::helix::{Filter, HelixError};
use crate::model::text::counted;

/// Users in one request (Twitch: "Get Users").
const USERS: usize = 100;

pub(super) fn run(args: &Args, flags: &InitArgs, path: &Path) -> Result<u8, Failure> {
    if path.exists() {
        return Err(exists(path));
    }
    let config = credentials(args, flags, path)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let listing = block_on(read(&config, &stem))?;
    let Listing { text, lists, taken } = listing;
    let lists: Vec<(PathBuf, String)> =
        lists.into_iter().map(|(name, text)| (path.with_file_name(name), text)).collect();
    let secret = create_all(path, &text, &lists)?;
    let more = match lists.len() {
        0 => String::new(),
        count => format!(", {} with logins beside it", counted(count as u64, "file")),
    };
    let todo = if secret.is_empty() {
        format!("write the client secret into {}, then ", secret.path.display())
    } else {
        String::new()
    };
    term::say(
        &invocation(args, path),
        &format!(
            "wrote {}{more}: {}; what is not taken over stands in comments\n{todo}`eventsubd check --online` finds \
             mistakes, and `eventsubd plan` shows what would change",
            path.display(),
            counted(taken as u64, "subscription")
        ),
    );
    Ok(0)
}

/// A configuration for its credentials: the file of `--config`, else the one that commands take here, else the
/// environment, `--client-id` and the secret's file beside the new one.
fn credentials(args: &Args, flags: &InitArgs, path: &Path) -> Result<Config, Failure> {
    let choice = args.file();
    let mut options = LoadOptions { secrets: config::Secrets::Required, ..load_options(args) };
    let usable = choice.named || fs::File::open(&choice.path).is_ok();
    if usable && args.config.as_deref() != Some(path) && flags.client_id.is_none() {
        options.path = choice.path;
    } else {
        // An empty file: everything is in the environment.
        options.path = "/dev/null".into();
        options.state_dir.get_or_insert_with(|| path.with_file_name("."));
        if let Some(id) = &flags.client_id {
            options.env = options.env.with("EVENTSUBD_TWITCH__CLIENT_ID", id.as_str());
        }
        let secret = path.with_file_name(SECRET);
        if fs::metadata(&secret).is_ok_and(|file| file.len() > 0) {
            let secret = config::absolute(&secret).display().to_string();
            options.env = options.env.with("EVENTSUBD_TWITCH__CLIENT_SECRET_FILE", secret);
        }
    }
    let loaded = config::load(&options).map_err(|errors| {
        Failure::verbatim(errors.to_string())
            .hint(format!(
                "to read what the client has at Twitch, give --client-id and put the secret into {} or \
                 EVENTSUBD_TWITCH__CLIENT_SECRET, or name a file that has both with --config",
                path.with_file_name(SECRET).display()
            ))
            .code(BAD_CONFIG)
    })?;
    Ok(loaded.config)
}

async fn read(config: &Config, stem: &str) -> Result<Listing, Failure> {
    let failed = |what: &'static str| {
        move |error: HelixError| {
            let code = exit_code(&error);
            Failure::new(format!("{what} could not be read")).caused_by(&error).code(code)
        }
    };
    let api = Api::connect(config).await?;
    let conduits = api.helix.conduits().await.map_err(failed("the conduits"))?;
    let list = api.helix.subscriptions(&Filter::All, |_| {}).await.map_err(failed("the subscriptions"))?;
    if let Some(unread) = list.unread.first() {
        return Err(Failure::new(format!("part of Twitch's list cannot be read: {unread}")).code(FAILED));
    }
    let users: BTreeSet<&str> = list
        .rows
        .iter()
        .flat_map(|row| row.key.condition.iter())
        .filter(|(name, id)| name.ends_with("user_id") && !id.is_empty())
        .map(|(_, id)| id)
        .collect();
    let users: Vec<&str> = users.into_iter().collect();
    let mut logins = HashMap::new();
    for batch in users.chunks(USERS) {
        let found = api.helix.users_by_id(batch).await.map_err(failed("the logins"))?;
        logins.extend(found.rows.into_iter().map(|user| (user.id, user.login)));
    }
    let conduits: Vec<(String, u32)> =
        conduits.into_iter().map(|conduit| (conduit.id, conduit.shard_count)).collect();
    let at_twitch = AtTwitch {
        client_id: &config.application.client_id,
        addresses: addresses(config),
        rows: &list.rows,
        conduits: &conduits,
        logins: &logins,
    };
    Ok(listing(&at_twitch, stem))
}

/// The lines of `[twitch]` for addresses that are not Twitch's own.
fn addresses(config: &Config) -> String {
    let twitch = &config.twitch;
    let own = [
        ("auth_url", &twitch.auth_url, "https://id.twitch.tv/oauth2"),
        ("api_url", &twitch.api_url, "https://api.twitch.tv/helix"),
        ("eventsub_url", &twitch.eventsub_url, "wss://eventsub.wss.twitch.tv/ws"),
    ];
    let own = own.iter().filter(|(_, url, usual)| url != usual);
    own.map(|(key, url, _)| format!("{key} = {}\n", serde_json::Value::from(url.as_str()))).collect()
}
