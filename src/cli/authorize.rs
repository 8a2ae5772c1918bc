//! `eventsubd authorize`: users allow the application what the file's subscriptions need of them.

use std::io::{self, IsTerminal};

use super::args::{Args, AuthorizeArgs};
use super::control::{Connection, block_on};
use super::invite;
use super::plan::{Api, desired, explain};
use super::target::load_options;
use super::term::{Failure, masked};
use super::{BAD_CONFIG, FAILED, TEMPORARY};
use crate::auth::oauth::{DeviceCode, TokenUser};
use crate::auth::{DeviceError, DeviceGrant};
use crate::config::{self, Config};
use crate::daemon;
use crate::invite::InvitedUser;
use crate::model::grants::{self, Scopes};
use crate::model::text::counted;
use crate::reconcile::{self, UserNeeds};

/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

pub(super) fn run(args: &Args, flags: &AuthorizeArgs) -> Result<u8, Failure> {
    let loaded = config::load(&load_options(args))
        .map_err(|errors| Failure::verbatim(errors.to_string()).code(BAD_CONFIG))?;
    block_on(async {
        tokio::select! {
            code = authorize(args, flags, &loaded.config) => code,
            _ = tokio::signal::ctrl_c() => {
                args.say("stopped; what was allowed before stays");
                Ok(INTERRUPTED)
            }
        }
    })
}

/// Somebody who is asked for something.
struct Asked {
    login: String,
    /// Twitch's id.
    user_id: Box<str>,
    scopes: Scopes,
}

async fn authorize(args: &Args, flags: &AuthorizeArgs, config: &Config) -> Result<u8, Failure> {
    if flags.status {
        return status(args, config).await;
    }
    if flags.link {
        return links(args, flags, config).await;
    }
    let (asked, is_whole) = whom(args, flags, config).await?;
    if asked.is_empty() {
        args.say(if is_whole {
            "nothing is missing"
        } else {
            "nothing is missing, as far as Twitch's answers can be read"
        });
        return Ok(if is_whole { 0 } else { FAILED });
    }
    let http = daemon::connections_to_twitch(config)
        .map_err(|error| Failure::new("cannot set up connections to Twitch").caused_by(&error))?;
    let mut code = 0;
    for (nth, user) in asked.iter().enumerate() {
        let scopes = grants::list(&user.scopes);
        let grant = DeviceGrant {
            http: &http,
            auth_url: &config.twitch.auth_url,
            client_id: &config.application.client_id,
            scopes: &scopes,
        };
        if asked.len() > 1 {
            args.say(&format!("{} of {}: {}", nth + 1, asked.len(), user.login));
        }
        match one(args, &grant, user).await {
            Ok(()) => {
                args.say(&format!(
                    "{} has allowed {scopes}: the subscriptions that needed it can be created now",
                    user.login
                ));
                tell_daemon(args, &user.user_id).await;
            }
            Err(failure) => {
                failure.report(&args.invocation());
                code = code.max(failure.exit_code());
            }
        }
    }
    Ok(code)
}

/// Prints invites, one a line.
async fn links(args: &Args, flags: &AuthorizeArgs, config: &Config) -> Result<u8, Failure> {
    let page = invite::page(config)?;
    let is_for_everyone = flags.users.is_empty() && !flags.missing;
    let (mut text, mut code) = (String::new(), 0);
    if is_for_everyone {
        text = invite::link(config, page, None, &flags.types)? + "\n";
    } else {
        let (asked, is_whole) = whom(args, flags, config).await?;
        if asked.is_empty() {
            args.say("nothing is missing");
        }
        let width = asked.iter().map(|user| user.login.chars().count()).max().unwrap_or(0);
        for user in asked {
            let invited = InvitedUser { id: user.user_id, login: user.login.as_str().into() };
            let link = invite::link(config, page, Some(invited), &flags.types)?;
            text.push_str(&format!("{:<width$}  {link}\n", masked(&user.login)));
        }
        code = if is_whole { 0 } else { FAILED };
    }
    args.print(&text)?;
    args.say(&invite::advice(page));
    Ok(code)
}

/// Lists who has granted what is needed, and who has not.
async fn status(args: &Args, config: &Config) -> Result<u8, Failure> {
    let api = Api::connect(config).await?;
    let desired = desired(config)?;
    let needs = reconcile::who_must_grant(&api.helix, &desired, None).await;
    let reconcile::Needs { users, remarks } = needs.map_err(|error| explain(&error))?;
    for remark in &remarks {
        args.say(&format!("warning: {remark}"));
    }
    if users.is_empty() {
        args.say("no subscription of the file needs anybody's permission");
    }
    args.print(&table(&users))
}

/// A line for each user.
fn table(users: &[UserNeeds]) -> String {
    let name = |user: &UserNeeds| masked(user.login.as_deref().unwrap_or(&user.user_id));
    let width = users.iter().map(|user| name(user).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for user in users {
        let (name, needed) = (name(user), grants::list(&user.scopes));
        let (mark, state) = match (user.is_known, user.missing.is_empty()) {
            (false, _) => ("?", format!("Twitch does not say; needed: {needed}")),
            (true, true) => ("✓", format!("has allowed {needed}")),
            (true, false) if user.login.is_some() => (
                "!",
                format!("must allow {}: `eventsubd authorize --user {name}`", grants::list(&user.missing)),
            ),
            (true, false) => ("!", format!("must allow {}", grants::list(&user.missing))),
        };
        text.push_str(&format!("{mark} {name:<width$}  {state}\n"));
    }
    let has = users.iter().filter(|user| user.is_known && user.missing.is_empty()).count();
    if !users.is_empty() {
        text.push_str(&format!(
            "{has} of {} have allowed what is needed\n",
            counted(users.len() as u64, "user")
        ));
    }
    text
}

/// Whom to ask for what, and whether Twitch's answers about it were read whole.
async fn whom(args: &Args, flags: &AuthorizeArgs, config: &Config) -> Result<(Vec<Asked>, bool), Failure> {
    let api = Api::connect(config).await?;
    let desired = desired(config)?;
    let logins: Vec<String> = flags.users.iter().map(|login| login.to_ascii_lowercase()).collect();
    let only = (!flags.missing).then_some(logins.as_slice());
    let reconcile::Needs { users: needs, remarks } =
        reconcile::who_must_grant(&api.helix, &desired, only).await.map_err(|error| explain(&error))?;
    for remark in &remarks {
        args.say(&format!("warning: {remark}"));
    }
    if flags.missing {
        let missing = needs.into_iter().filter(|user| user.is_known && !user.missing.is_empty());
        return Ok((missing.filter_map(|user| asked(user, None)).collect(), remarks.is_empty()));
    }
    let mut all = Vec::new();
    for login in &logins {
        let known = needs.iter().find(|user| user.login.as_deref() == Some(login));
        let scopes: Option<Scopes> =
            (!flags.scopes.is_empty()).then(|| flags.scopes.iter().map(|s| s.as_str().into()).collect());
        match (known.cloned(), scopes) {
            (Some(user), scopes) => all.extend(asked(user, scopes)),
            (None, Some(scopes)) => {
                let found = api.helix.users_by_login(&[login]).await.map_err(|error| {
                    Failure::new(format!("{login} could not be looked up"))
                        .caused_by(&error)
                        .code(super::plan::exit_code(&error))
                })?;
                let user = found.rows.into_iter().next().ok_or_else(|| {
                    Failure::new(format!("there is no Twitch user {login}")).hint("is it misspelt?")
                })?;
                all.push(Asked { login: login.clone(), user_id: user.id, scopes });
            }
            (None, None) => {
                return Err(Failure::new(format!(
                    "no subscription in the file needs a permission from {login}"
                ))
                .hint("name the scopes with --scopes, or correct the login"));
            }
        }
    }
    Ok((all, remarks.is_empty()))
}

fn asked(user: UserNeeds, scopes: Option<Scopes>) -> Option<Asked> {
    // Somebody without a login cannot be told to log in.
    let login = user.login?.into_string();
    Some(Asked { login, user_id: user.user_id, scopes: scopes.unwrap_or(user.scopes) })
}

async fn one(args: &Args, grant: &DeviceGrant<'_>, user: &Asked) -> Result<(), Failure> {
    let failed = |error: &DeviceError| {
        let failure = Failure::new(format!("{} has allowed nothing", user.login)).caused_by(error);
        match error {
            DeviceError::Unavailable(_) => failure.code(TEMPORARY),
            DeviceError::Refused(_) | DeviceError::Over => failure.code(FAILED),
        }
    };
    let code = grant.begin().await.map_err(|error| failed(&error))?;
    args.say(&format!("{} is asked to allow {}", user.login, grants::list(&user.scopes)));
    show(args, &code, user)?;
    let minutes = code.expires_in.as_secs().div_ceil(60);
    args.say(&format!(
        "waiting until {} has allowed it on Twitch's page, for {} at most; Ctrl-C stops",
        user.login,
        counted(minutes, "minute")
    ));
    let who: TokenUser = grant.wait(&code).await.map_err(|error| failed(&error))?;
    if who.user_id != user.user_id {
        return Err(Failure::new(format!("it was {} who allowed it, not {}", who.login, user.login))
            .hint("open the address in a browser where the right user is logged in, and run this again"));
    }
    let lacking: Scopes = user.scopes.difference(&who.scopes).cloned().collect();
    if !lacking.is_empty() {
        let lacking = grants::list(&lacking);
        return Err(Failure::new(format!("{} has not allowed {lacking}", user.login))
            .hint("run this again, and have that user allow all that is asked for"));
    }
    Ok(())
}

fn show(args: &Args, code: &DeviceCode, user: &Asked) -> Result<(), Failure> {
    let (uri, user_code) = (masked(&code.verification_uri), masked(&code.user_code));
    let minutes = code.expires_in.as_secs().div_ceil(60);
    let mut text = format!(
        "{} opens this address, logged in to Twitch, within {minutes} minutes:\n\n    {uri}\n\nand compares the code: \
         {user_code}\n",
        masked(&user.login)
    );
    if io::stdout().is_terminal()
        && let Ok(picture) = qrcode::QrCode::new(uri.as_bytes())
    {
        let picture = picture.render::<qrcode::render::unicode::Dense1x2>().build();
        text.push_str(&format!("\n{picture}\n"));
    }
    args.print(&text)?;
    Ok(())
}

/// A running daemon need not wait until Twitch tells it.
async fn tell_daemon(args: &Args, user_id: &str) {
    let query: String =
        form_urlencoded::Serializer::new(String::new()).append_pair("user_id", user_id).finish();
    let told = async { Connection::open(args).await?.post(&format!("/grants?{query}")).await };
    if let Err(failure) = told.await {
        if !failure.is_temporary() {
            failure.report(&args.invocation());
        }
        args.say("no daemon was told of it; one finds the grant when it starts");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_status_says_who_has_allowed_what_and_who_has_not() {
        let scopes = |names: &[&str]| -> Scopes { names.iter().map(|name| (*name).into()).collect() };
        let user = |id: &str, login: Option<&str>, missing: &[&str], is_known| UserNeeds {
            user_id: id.into(),
            login: login.map(Into::into),
            scopes: scopes(&["bits:read"]),
            granted: scopes(&[]),
            missing: scopes(missing),
            is_known,
        };
        let users = [
            user("1", Some("ann"), &[], true),
            user("2", Some("someone_else"), &["bits:read"], true),
            user("3", None, &["bits:read"], true),
            user("4", Some("dora"), &["bits:read"], false),
        ];
        expect![[r#"
            ✓ ann           has allowed bits:read
            ! someone_else  must allow bits:read: `eventsubd authorize --user someone_else`
            ! 3             must allow bits:read
            ? dora          Twitch does not say; needed: bits:read
            1 of 4 users have allowed what is needed
        "#]]
        .assert_eq(&table(&users));
        assert_eq!(table(&[]), "");
    }
}
