//! Rules for a subscription: type, condition, kind of token, grants, and what it costs (Twitch: "EventSub
//! Subscription Types", "Managing Event Subscriptions"). ◆

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::exchange::Answer;
use super::request::CreateRequest;
use super::subscription::ConditionFields;
use crate::model::catalog::{self, Auth, TypeVersion};
use crate::model::grants::{self, Scopes};
use crate::model::subscription::SubscriptionKey;

/// The client behind a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    pub client_id: String,
    /// User id and scopes; `None` for an app access token.
    pub user: Option<(String, Vec<String>)>,
}

/// Limits of an application.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Equal subscriptions over all transports.
    pub equal: usize,
    /// Cost of the WebSocket subscriptions of one user.
    pub websocket_cost: u64,
    /// Sessions of one user that have an enabled subscription.
    pub websocket_sessions: usize,
    /// Enabled subscriptions of one session.
    pub session_subscriptions: usize,
    /// Rows on one page of shards.
    pub shard_page: usize,
}

impl Limits {
    pub const TWITCH: Self = Self {
        equal: 3,
        websocket_cost: 10,
        websocket_sessions: 3,
        session_subscriptions: 300,
        shard_page: 100,
    };
}

fn bad(message: &str) -> Answer {
    Answer::error(400, message)
}

/// The type and version of a request.
///
/// # Errors
/// 400 for one that does not exist, 410 for one that was removed, 400 for a batched one without batching.
pub fn check_type(request: &CreateRequest) -> Result<&'static TypeVersion, Answer> {
    let row = catalog::lookup(&request.kind, &request.version)
        .ok_or_else(|| bad("invalid subscription type and version"))?;
    if row.removed {
        return Err(Answer::error(410, "subscription type and version have been removed"));
    }
    if row.batched && request.is_batching_enabled != Some(true) {
        return Err(bad(&format!("is_batching_enabled must be true for {} subscriptions", row.name)));
    }
    Ok(row)
}

/// The place of a field in Twitch's order.
fn rank(field: &str) -> usize {
    ["organization_id", "category_id", "campaign_id"].iter().position(|&known| known == field).unwrap_or(3)
}

/// Every field of the type, empty when omitted. Members that the type does not have are passed over if they are empty.
///
/// # Errors
/// 400: a field is missing or not a string, or there is no such user.
pub fn check_condition(
    row: &TypeVersion,
    client_id: &str,
    given: &Map<String, Value>,
    user_exists: impl Fn(&str) -> bool,
) -> Result<ConditionFields, Answer> {
    let is_empty = |value: &Value| value.is_null() || value.as_str() == Some("");
    if let Some((name, _)) = given.iter().find(|(name, v)| !row.condition.contains_key(*name) && !is_empty(v))
    {
        return Err(bad(&format!("unknown condition field: {name}")));
    }
    let mut fields: Vec<_> = row.condition.iter().collect();
    fields.sort_by_key(|(name, _)| rank(name));
    let mut condition = Vec::new();
    for (name, field) in fields {
        let value = match given.get(name) {
            None | Some(Value::Null) => "",
            Some(Value::String(text)) => text,
            Some(_) => return Err(bad(&format!("condition field {name} must be a string"))),
        };
        if field.required && value.is_empty() {
            return Err(bad(&format!("missing or unparseable subscription condition: {name}")));
        }
        if field.kind == "user_id" && !value.is_empty() && !user_exists(value) {
            return Err(bad(&format!("user in the condition does not exist: {name}")));
        }
        if field.kind == "client_id" && !value.is_empty() && value != client_id {
            return Err(bad("client_id in the condition must be that of the token"));
        }
        condition.push((name.clone(), value.to_owned()));
    }
    if !condition.is_empty() && condition.iter().all(|(_, value)| value.is_empty()) {
        return Err(bad("missing or unparseable subscription condition"));
    }
    Ok(ConditionFields(condition))
}

/// Scopes that a WebSocket subscription needs not, since its token is the user's own.
const APP_ONLY: &str = "user:bot";

/// Whether something is missing that a user must have granted.
///
/// With an app access token, what users have granted to the application counts, and being a moderator where that
/// serves as well. With a user's token, that user must be the one who grants, and the token must have the scopes.
pub fn missing_scopes(
    key: &SubscriptionKey,
    asker: &Asker,
    granted: impl Fn(&str) -> Scopes,
    is_moderator: impl Fn(&str, &str) -> bool,
) -> bool {
    let needs = grants::needs(key);
    let Some((user, scopes)) = &asker.user else {
        return needs.iter().any(|need| {
            let excused = !need.certain
                && needs.iter().any(|other| other.certain && is_moderator(need.user_id, other.user_id));
            !excused && !need.missing(&granted(need.user_id)).is_empty()
        });
    };
    let mut scopes: Scopes = scopes.iter().map(|scope| scope.as_str().into()).collect();
    scopes.insert(APP_ONLY.into());
    needs.iter().any(|need| need.certain && (need.user_id != user || !need.missing(&scopes).is_empty()))
}

/// Whether a subscription of a moderator's type names a user who is no moderator of the channel. The kind of token makes
/// no difference.
pub fn lacks_moderator(
    row: &TypeVersion,
    condition: &ConditionFields,
    is_moderator: impl Fn(&str, &str) -> bool,
) -> bool {
    let users = condition.get("broadcaster_user_id").zip(condition.get("moderator_user_id"));
    row.auth == Auth::Moderator && users.is_some_and(|(channel, user)| !is_moderator(channel, user))
}

/// The cost of a subscription: 0 if its type needs a user's grant or names a user who has authorized the application.
pub fn cost(row: &TypeVersion, condition: &ConditionFields, has_authorized: impl Fn(&str) -> bool) -> u64 {
    match row.cost().fixed() {
        Some(cost) => cost,
        None if condition.users().any(has_authorized) => 0,
        None => row.cost().worst(),
    }
}

/// All scopes of the catalogue.
pub fn every_scope() -> BTreeSet<String> {
    let rows = catalog::all().iter();
    let groups =
        rows.flat_map(|row| row.scopes.iter().chain(row.additional_grants.iter().flat_map(|g| &g.scopes)));
    groups.flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(name: &str) -> &'static TypeVersion {
        catalog::default_version(name).expect("known")
    }

    fn condition(name: &str, given: &Value) -> Result<ConditionFields, u16> {
        let given = given.as_object().expect("an object");
        check_condition(row(name), "c", given, |id| id != "404").map_err(|answer| answer.status)
    }

    #[test]
    fn empty_members_of_other_types_are_passed_over() {
        let given = json!({"broadcaster_user_id": "1", "reward_id": "", "user_id": null, "client_id": ""});
        let fields = condition("stream.online", &given).expect("good");
        assert_eq!(fields.0, [("broadcaster_user_id".to_owned(), "1".to_owned())]);
        for (name, given) in [
            ("stream.online", json!({"broadcaster_user_id": "1", "reward_id": "r"})),
            ("stream.online", json!({"broadcaster_user_id": ""})),
            ("stream.online", json!({"broadcaster_user_id": 1})),
            ("stream.online", json!({"broadcaster_user_id": "404"})),
            ("user.authorization.grant", json!({"client_id": "other"})),
            ("channel.raid", json!({})),
        ] {
            assert_eq!(condition(name, &given), Err(400), "{given}");
        }
        let drops = json!({"campaign_id": "x", "organization_id": "o"});
        let fields = condition("drop.entitlement.grant", &drops).expect("good");
        let names: Vec<_> = fields.0.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["organization_id", "category_id", "campaign_id"]);
    }

    #[test]
    fn what_needs_a_grant_or_names_somebody_who_gave_one_is_free() {
        for (name, given, stranger, friend) in [
            ("stream.online", json!({"broadcaster_user_id": "1"}), 1, 0),
            ("channel.raid", json!({"to_broadcaster_user_id": "1"}), 1, 0),
            ("channel.subscribe", json!({"broadcaster_user_id": "1"}), 0, 0),
            ("user.authorization.grant", json!({"client_id": "c"}), 1, 1),
            ("user.authorization.revoke", json!({"client_id": "c"}), 1, 1),
            ("conduit.shard.disabled", json!({"client_id": "c"}), 0, 0),
            ("extension.bits_transaction.create", json!({"extension_client_id": "c"}), 0, 0),
        ] {
            let fields = condition(name, &given).expect("good");
            assert_eq!(cost(row(name), &fields, |_| false), stranger, "{name}");
            assert_eq!(cost(row(name), &fields, |id| id == "1"), friend, "{name}");
        }
    }

    #[test]
    fn grants_are_missing_exactly_when_the_catalogue_says_so() {
        let app = Asker { client_id: "c".to_owned(), user: None };
        let mut checked = 0;
        for row in catalog::all().iter().filter(|row| !row.removed) {
            let fields: Vec<(String, String)> = row
                .condition
                .keys()
                .enumerate()
                .map(|(nth, name)| (name.clone(), (100 + nth).to_string()))
                .collect();
            let user_of =
                |field: &str| fields.iter().find(|(name, _)| name == field).map(|(_, id)| id.clone());
            let key =
                SubscriptionKey::new(&row.name, &row.version, ConditionFields(fields.clone()).to_condition());
            // Each group of scopes with the field whose user has to grant it, straight from the catalogue.
            let mut groups: Vec<(String, &Vec<String>)> = Vec::new();
            for group in &row.scopes {
                groups.push((row.scope_granted_by.clone().expect("a field"), group));
            }
            for grant in &row.additional_grants {
                groups.extend(grant.scopes.iter().map(|group| (grant.field.clone(), group)));
            }
            let all = |id: &str, left_out: Option<usize>| -> Scopes {
                let of_user = groups.iter().enumerate().filter(|(nth, (field, _))| {
                    Some(*nth) != left_out && user_of(field).as_deref() == Some(id)
                });
                of_user.map(|(_, (_, group))| group[0].as_str().into()).collect()
            };
            assert!(!missing_scopes(&key, &app, |id| all(id, None), |_, _| false), "{}", row.name);
            for nth in 0..groups.len() {
                checked += 1;
                assert!(
                    missing_scopes(&key, &app, |id| all(id, Some(nth)), |_, _| false),
                    "{} {nth}",
                    row.name
                );
            }
        }
        assert!(checked > 70, "{checked}");
    }

    #[test]
    fn moderators_types_need_a_moderator_of_the_channel() {
        let mut of_moderators = 0;
        for row in catalog::all() {
            let fields = row.condition.keys().enumerate().map(|(nth, name)| (name.clone(), nth.to_string()));
            let fields = ConditionFields(fields.collect());
            let is_of_moderators = row.auth == Auth::Moderator;
            of_moderators += usize::from(is_of_moderators);
            assert_eq!(lacks_moderator(row, &fields, |_, _| false), is_of_moderators, "{}", row.name);
            let users = (fields.get("broadcaster_user_id"), fields.get("moderator_user_id"));
            let is_right = |channel: &str, user: &str| users == (Some(channel), Some(user));
            assert!(!lacks_moderator(row, &fields, is_right), "{}", row.name);
        }
        assert!(of_moderators > 20, "{of_moderators}");
    }

    #[test]
    fn a_moderator_needs_no_leave_of_the_broadcaster_and_a_users_token_stands_for_that_user() {
        let chat = SubscriptionKey::new(
            "channel.chat.message",
            "1",
            ConditionFields(vec![
                ("broadcaster_user_id".to_owned(), "1".to_owned()),
                ("user_id".to_owned(), "2".to_owned()),
            ])
            .to_condition(),
        );
        let app = Asker { client_id: "c".to_owned(), user: None };
        let bot = |id: &str| -> Scopes {
            let scopes: &[&str] = if id == "2" { &["user:read:chat", "user:bot"] } else { &[] };
            scopes.iter().map(|&scope| scope.into()).collect()
        };
        assert!(missing_scopes(&chat, &app, bot, |_, _| false));
        assert!(!missing_scopes(&chat, &app, bot, |channel, user| (channel, user) == ("1", "2")));
        let user = |id: &str, scope: &str| Asker {
            client_id: "c".to_owned(),
            user: Some((id.to_owned(), vec![scope.to_owned()])),
        };
        let nothing = |_: &str| Scopes::new();
        assert!(!missing_scopes(&chat, &user("2", "user:read:chat"), nothing, |_, _| false));
        assert!(missing_scopes(&chat, &user("2", "bits:read"), nothing, |_, _| false));
        assert!(missing_scopes(&chat, &user("1", "user:read:chat"), nothing, |_, _| false));
    }
}
