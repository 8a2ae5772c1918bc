//! Scopes in plain words (Twitch: "Twitch Access Token Scopes"). ◆

/// Returns the meaning of a scope. `None` for scopes that no type of the catalogue needs.
pub(super) fn of_scope(scope: &str) -> Option<&'static str> {
    WORDS.iter().find(|(name, _)| *name == scope).map(|(_, words)| *words)
}

const WORDS: &[(&str, &str)] = &[
    ("bits:read", "See the Bits that are cheered in your channel"),
    ("channel:bot", "Let the application's bot into your channel's chat"),
    ("channel:manage:guest_star", "See and manage your Guest Star sessions"),
    ("channel:manage:polls", "See and manage your polls"),
    ("channel:manage:predictions", "See and manage your Channel Points Predictions"),
    ("channel:manage:redemptions", "See and manage your Channel Points rewards and their redemptions"),
    ("channel:manage:vips", "See, add and remove the VIPs of your channel"),
    ("channel:moderate", "See what moderators do in your channel, and moderate its chat"),
    ("channel:read:ads", "See the ad schedule and the ads of your channel"),
    ("channel:read:charity", "See your charity campaigns and the donations to them"),
    ("channel:read:goals", "See your creator goals"),
    ("channel:read:guest_star", "See your Guest Star sessions"),
    ("channel:read:hype_train", "See the Hype Trains of your channel"),
    ("channel:read:polls", "See your polls"),
    ("channel:read:predictions", "See your Channel Points Predictions"),
    ("channel:read:redemptions", "See your Channel Points rewards and their redemptions"),
    ("channel:read:subscriptions", "See who subscribes to your channel"),
    ("channel:read:vips", "See the VIPs of your channel"),
    ("moderation:read", "See the bans, moderators and moderation settings of your channel"),
    ("moderator:manage:automod", "See and decide on the messages that AutoMod holds, where you moderate"),
    ("moderator:manage:banned_users", "Ban and unban users, where you moderate"),
    ("moderator:manage:blocked_terms", "See and change blocked terms, where you moderate"),
    ("moderator:manage:chat_messages", "Delete chat messages, where you moderate"),
    ("moderator:manage:chat_settings", "See and change chat settings, where you moderate"),
    ("moderator:manage:guest_star", "See and manage Guest Star sessions, where you moderate"),
    ("moderator:manage:shield_mode", "See and switch Shield Mode, where you moderate"),
    ("moderator:manage:shoutouts", "See and send shoutouts, where you moderate"),
    ("moderator:manage:unban_requests", "See and decide on unban requests, where you moderate"),
    ("moderator:manage:warnings", "See and send warnings, where you moderate"),
    ("moderator:read:automod_settings", "See AutoMod settings, where you moderate"),
    ("moderator:read:banned_users", "See who is banned, where you moderate"),
    ("moderator:read:blocked_terms", "See blocked terms, where you moderate"),
    ("moderator:read:chat_messages", "See deleted chat messages, where you moderate"),
    ("moderator:read:chat_settings", "See chat settings, where you moderate"),
    ("moderator:read:followers", "See the followers of the channels that you own or moderate"),
    ("moderator:read:guest_star", "See Guest Star sessions, where you moderate"),
    ("moderator:read:moderators", "See who the moderators are, where you moderate"),
    ("moderator:read:shield_mode", "See Shield Mode, where you moderate"),
    ("moderator:read:shoutouts", "See shoutouts, where you moderate"),
    ("moderator:read:suspicious_users", "See suspicious users and their messages, where you moderate"),
    ("moderator:read:unban_requests", "See unban requests, where you moderate"),
    ("moderator:read:vips", "See who the VIPs are, where you moderate"),
    ("moderator:read:warnings", "See warnings, where you moderate"),
    ("user:bot", "Let the application act in chats as a bot with your name"),
    ("user:manage:whispers", "Read and send your whispers"),
    ("user:read:chat", "Read the chats that you are in"),
    ("user:read:whispers", "Read your whispers"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::catalog;

    #[test]
    fn every_scope_of_the_catalogue_has_words_and_no_other() {
        let rows = catalog::all().iter();
        let groups = rows.flat_map(|row| {
            row.scopes.iter().chain(row.additional_grants.iter().flat_map(|grant| &grant.scopes))
        });
        let needed: BTreeSet<&str> = groups.flatten().map(String::as_str).collect();
        let known: BTreeSet<&str> = WORDS.iter().map(|(name, _)| *name).collect();
        assert_eq!(known, needed);
        assert_eq!(known.len(), WORDS.len());
        assert_eq!(of_scope("nothing:at:all"), None);
    }
}
