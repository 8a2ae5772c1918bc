//! Why a subscription is not there, and what a person can do about it: Twitch's statuses and
//! refusals in words. ◆

use super::park::Obstacle;
use crate::helix::HelixError;
use crate::model::catalog::{self, Auth};
use crate::model::subscription::{SubscriptionKey, SubscriptionStatus};

/// Twitch has not called back in time.
pub(in crate::reconcile) fn overdue() -> (Obstacle, String) {
    let status = SubscriptionStatus::WebhookCallbackVerificationPending;
    (Obstacle::Ended, format!("Twitch's challenge has not come; it is created again by itself ({status})"))
}

/// The obstacle that a dead row's status stands for (Twitch: "Get EventSub Subscriptions"); `None` for live ones.
pub(in crate::reconcile) fn of_status(status: &SubscriptionStatus) -> Option<(Obstacle, String)> {
    use SubscriptionStatus as S;
    let (obstacle, words) = match status {
        S::Enabled | S::WebhookCallbackVerificationPending => return None,
        S::AuthorizationRevoked => (
            Obstacle::Grant,
            "a user of the condition disconnected the application or changed the password; \
             have that user authorize the application again",
        ),
        S::ModeratorRemoved => (
            Obstacle::Grant,
            "the user of moderator_user_id is no longer a moderator of the channel; \
             make that user a moderator again, or name another one",
        ),
        S::UserRemoved => (
            Obstacle::Removed,
            "a user of the condition is suspended or no longer exists; it is created again by itself once the user \
             is back, or take it out of the file",
        ),
        S::ChatUserBanned => {
            (Obstacle::Chat, "the chatting user is banned or timed out in the channel; have the ban lifted")
        }
        S::VersionRemoved => (
            Obstacle::Removed,
            "Twitch has retired this type or version; `eventsubd types` lists the versions that exist",
        ),
        S::BetaMaintenance => (Obstacle::Beta, "Twitch has taken this beta type down for maintenance; wait"),
        S::NotificationFailuresExceeded => (
            Obstacle::Ended,
            "Twitch gave up after too many failed deliveries; it is created again by itself",
        ),
        S::WebhookCallbackVerificationFailed => {
            (Obstacle::Ended, "the callback did not pass Twitch's challenge; it is created again by itself")
        }
        S::ConduitDeleted => (Obstacle::Ended, "its conduit was deleted; it is created again by itself"),
        S::Other(_) => (Obstacle::Ended, "Twitch ended it; it is created again by itself"),
    };
    Some((obstacle, format!("{words} ({status})")))
}

/// A remark about rows of an answer of Twitch's that could not be read.
pub(in crate::reconcile) fn unread_rows(what: &str, unread: &[Box<str>]) -> Option<String> {
    let first = unread.first()?;
    let more = match unread.len() - 1 {
        0 => String::new(),
        1 => ", and 1 more row".to_owned(),
        more => format!(", and {more} more rows"),
    };
    Some(format!("part of Twitch's answer about {what} cannot be read: {first}{more}"))
}

/// The obstacle that the refusal of a create stands for; `None` if it is not about this subscription.
pub(in crate::reconcile) fn of_failure<'a>(
    key: &SubscriptionKey,
    failure: &HelixError,
    login_of: impl Fn(&str) -> Option<&'a str>,
) -> Option<(Obstacle, String)> {
    Some(match failure {
        HelixError::Forbidden { message } => forbidden(key, message, login_of),
        HelixError::Invalid { message } => (
            Obstacle::Invalid,
            format!("Twitch refuses it as invalid (400: {message}); correct its version and condition"),
        ),
        HelixError::NotFound { message } => (
            Obstacle::Invalid,
            format!("Twitch does not find what it names (404: {message}); correct its condition"),
        ),
        HelixError::Gone { message } => (
            Obstacle::Removed,
            format!(
                "Twitch has retired this type or version (410: {message}); `eventsubd types` lists the versions there are"
            ),
        ),
        HelixError::Quota { message } if is_cost(message) => (Obstacle::Cost, cost_limit()),
        HelixError::Quota { message } => (
            Obstacle::Quota,
            format!(
                "Twitch allows three subscriptions with the same type and condition, over all transports of \
                 this client id, and they exist (429: {message}); delete one of them elsewhere"
            ),
        ),
        HelixError::Conflict { .. }
        | HelixError::Unauthorized { .. }
        | HelixError::RateLimited
        | HelixError::Outage { .. }
        | HelixError::Unreachable { .. }
        | HelixError::Garbled { .. }
        | HelixError::StandingBy
        | HelixError::Token(_) => return None,
    })
}

/// Whether a create was refused for its cost.
pub(in crate::reconcile) fn is_cost_limit(failure: &HelixError) -> bool {
    matches!(failure, HelixError::Quota { message } if is_cost(message))
}

fn is_cost(message: &str) -> bool {
    message.to_ascii_lowercase().contains("cost")
}

/// The reason of what is held back for its cost.
pub(in crate::reconcile) fn cost_limit() -> String {
    "no room under Twitch's max_total_cost; take subscriptions out of the file, or have the broadcasters \
     authorize the application: theirs cost nothing"
        .to_owned()
}

/// The reason for a subscription whose equal exists and is not ours to use.
pub(in crate::reconcile) fn conflict(id: Option<&str>) -> String {
    let id = id.map(|id| format!(" ({id})")).unwrap_or_default();
    format!(
        "Twitch says that an equal subscription exists{id}, but does not list it as ours and alive; tried again"
    )
}

fn forbidden<'a>(
    key: &SubscriptionKey,
    message: &str,
    login_of: impl Fn(&str) -> Option<&'a str>,
) -> (Obstacle, String) {
    let said = if message.is_empty() { "403".to_owned() } else { format!("403: {message}") };
    let who = |field: &str| match key.condition.get(field) {
        Some(id) => match login_of(id) {
            Some(login) => format!("{login} ({id})"),
            None => format!("user {id}"),
        },
        None => format!("the user of {field}"),
    };
    let Some(row) = catalog::lookup(&key.subscription_type, &key.version) else {
        return (
            Obstacle::Grant,
            format!(
                "Twitch asks for a grant that is missing ({said}); have the user authorize the application with the scope that Twitch's page of this type names"
            ),
        );
    };
    let scopes = |groups: &[Vec<String>]| {
        groups.iter().map(|group| group.join(" or ")).collect::<Vec<_>>().join(" and ")
    };
    let granting = row.scope_granted_by.as_deref().unwrap_or("user_id");
    let needed = scopes(&row.scopes);
    match row.auth {
        Auth::Bot => {
            let broadcaster = who("broadcaster_user_id");
            let user = who(granting);
            let extra = row
                .additional_grants
                .first()
                .map(|grant| {
                    format!(
                        " and either {} granted {} or {user} moderates there",
                        who(&grant.field),
                        scopes(&grant.scopes)
                    )
                })
                .unwrap_or_default();
            let text = format!(
                "blocked in chat ({said}), for one of three reasons: a grant is missing ({user} must have granted \
                 {needed}{extra}), {user} is banned or timed out in the channel of {broadcaster}, or {user} has \
                 reached the limit of 100 joined channels"
            );
            (Obstacle::Chat, text)
        }
        Auth::App => (
            Obstacle::Grant,
            format!(
                "the application itself is not entitled to it ({said}); check the client id in the condition and the organization in Twitch's console"
            ),
        ),
        Auth::None if needed.is_empty() => (
            Obstacle::Grant,
            format!(
                "Twitch asks for a grant that this release does not know of ({said}); see Twitch's page of this type"
            ),
        ),
        Auth::None | Auth::Broadcaster | Auth::Moderator | Auth::User => {
            let moderates = if row.auth == Auth::Moderator && granting != "broadcaster_user_id" {
                ", or does not moderate the channel"
            } else {
                ""
            };
            let text = format!(
                "{} has not granted {needed} to this client id{moderates} ({said}); have that user authorize \
                 the application with it",
                who(granting)
            );
            (Obstacle::Grant, text)
        }
    }
}

/// The reason for a login without a user.
pub(in crate::reconcile) fn login_not_found(login: &str) -> String {
    format!(
        "Twitch knows no user with the login {login}: misspelt, renamed, banned or deleted; correct the file"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::subscription::Condition;

    fn key(name: &str, version: &str) -> SubscriptionKey {
        SubscriptionKey::new(
            name,
            version,
            Condition::from_pairs([
                ("broadcaster_user_id", "1"),
                ("moderator_user_id", "2"),
                ("user_id", "3"),
            ]),
        )
    }

    #[test]
    fn refusals_name_who_must_do_what() {
        let refused = HelixError::Forbidden { message: "subscription missing proper authorization".into() };
        let login_of = |id: &str| (id == "2").then_some("helper");
        let (obstacle, text) = of_failure(&key("channel.follow", "2"), &refused, login_of).expect("a reason");
        assert_eq!(obstacle, Obstacle::Grant);
        assert!(text.starts_with("helper (2) has not granted moderator:read:followers"), "{text}");
        let (obstacle, text) =
            of_failure(&key("channel.chat.message", "1"), &refused, login_of).expect("a reason");
        assert_eq!(obstacle, Obstacle::Chat);
        for part in ["user:read:chat and user:bot", "channel:bot", "banned", "100 joined"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for row in catalog::all() {
            let (_, text) = of_failure(&key(&row.name, &row.version), &refused, login_of).expect("a reason");
            assert!(!text.contains("granted  to"), "{}: {text}", row.name);
        }
    }

    #[test]
    fn the_two_quotas_are_told_apart() {
        let quota = |message: &str| HelixError::Quota { message: message.into() };
        let of =
            |message| of_failure(&key("stream.online", "1"), &quota(message), |_| None).expect("a reason");
        assert_eq!(of("websocket transport subscriptions total cost exceeded").0, Obstacle::Cost);
        let (obstacle, text) = of("maximum subscriptions with type and condition exceeded");
        assert_eq!(obstacle, Obstacle::Quota);
        assert!(text.contains("three"), "{text}");
    }

    #[test]
    fn only_live_statuses_have_no_reason() {
        for text in ["authorization_revoked", "version_removed", "new_in_2027", "conduit_deleted"] {
            let (_, reason) = of_status(&SubscriptionStatus::parse(text)).expect("dead");
            assert!(reason.contains(text));
        }
        assert_eq!(of_status(&SubscriptionStatus::Enabled), None);
    }
}
