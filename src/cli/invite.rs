//! Invites to the page of `[authorize]`, as `authorize --link` and `check --online` need them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::BAD_CONFIG;
use super::term::Failure;
use crate::auth::Outward;
use crate::auth::oauth::consent_url;
use crate::config::{Authorize, Config};
use crate::daemon;
use crate::invite::{Invitation, InvitationKey, InvitedUser, LIFE};

/// Time limit for one request of [`reach`] and [`is_registered`].
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// The largest answer that is looked at, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Returns the settings of the page.
///
/// # Errors
/// The file has none.
pub(super) fn page(config: &Config) -> Result<&Authorize, Failure> {
    config.authorize.as_ref().ok_or_else(|| {
        Failure::new("there is no page that an invite could lead to: `authorize.redirect_uri` is missing")
            .hint(
                "set `redirect_uri` in `[authorize]` to the public URL of the page, for example \
                 \"https://example.org/authorize\", and register it at https://dev.twitch.tv/console/apps",
            )
            .code(BAD_CONFIG)
    })
}

/// Writes an invite. `user` is `None` for everyone.
///
/// # Errors
/// The clock stands before 1970.
pub(super) fn link(
    config: &Config,
    page: &Authorize,
    user: Option<InvitedUser>,
    types: &[String],
) -> Result<String, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|error| Failure::new("this machine's clock is wrong").caused_by(&error))?;
    let expires = (now + LIFE).as_secs();
    let credentials = daemon::credentials(config);
    let key = InvitationKey::new(&credentials.client_id, &credentials.client_secret);
    let invite = key.write(&Invitation { user, types: types.to_vec(), expires });
    Ok(format!("{}?invite={invite}", page.redirect_uri))
}

/// Returns what has to be done for invites to work.
pub(super) fn advice(page: &Authorize) -> String {
    format!(
        "whoever opens it within 30 days is asked, while the daemon runs; {} must be one of the OAuth Redirect URLs of the \
         application at https://dev.twitch.tv/console/apps (`eventsubd check --online` looks)",
        page.redirect_uri
    )
}

/// Opens the page by its public name. Returns how long it took.
///
/// # Errors
/// The reason why it is not there, for people.
pub(super) async fn reach(outward: &Outward, config: &Config, page: &Authorize) -> Result<Duration, String> {
    let link = link(config, page, None, &[]).map_err(|failure| failure.text())?;
    let begun = std::time::Instant::now();
    let (status, body) = get(outward, &link).await?;
    let is_ours = String::from_utf8_lossy(&body).contains("content=\"eventsubd\"");
    match status {
        200 if is_ours => Ok(begun.elapsed()),
        _ if is_ours => Err(format!(
            "{} answers {status}: does the daemon there run with this client secret?",
            page.redirect_uri
        )),
        _ => Err(format!(
            "{} answers {status}, and not with the daemon's page: run the daemon, and have the proxy forward this path to \
             `authorize.listen`, or to `transport.webhook.listen` when that is left out",
            page.redirect_uri
        )),
    }
}

/// Asks Twitch's consent page whether it knows the redirect URI. `None` if its answer does not tell.
///
/// # Errors
/// The reason for having no answer, for people.
pub(super) async fn is_registered(
    outward: &Outward,
    config: &Config,
    page: &Authorize,
) -> Result<Option<bool>, String> {
    let client_id = &config.application.client_id;
    let url = consent_url(&config.twitch.auth_url, client_id, &page.redirect_uri, "", "check");
    let (status, body) = get(outward, &url).await?;
    let body = String::from_utf8_lossy(&body).to_ascii_lowercase();
    Ok(match status {
        200..=399 => Some(true),
        400 if body.contains("redirect") => Some(false),
        _ => None,
    })
}

async fn get(outward: &Outward, url: &str) -> Result<(u16, Vec<u8>), String> {
    let request = outward.client().get(url).timeout(REQUEST_LIMIT);
    let answer = request.send().await.map_err(|error| outward.explain(&error))?;
    let status = answer.status().as_u16();
    // A long page is cut short: its head is enough.
    let body = crate::auth::read_bounded(answer, MAX_ANSWER).await.unwrap_or_default();
    Ok((status, body))
}
