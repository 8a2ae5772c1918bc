//! Statuses of subscriptions and shards, and the close codes of WebSockets (Twitch: "Get EventSub Subscriptions",
//! "Get Conduit Shards", "Handling WebSocket Events"). ◆

pub const ENABLED: &str = "enabled";
/// The callback has not answered its challenge yet.
pub const PENDING: &str = "webhook_callback_verification_pending";
/// The challenge was not answered, or not as it must be.
pub const VERIFICATION_FAILED: &str = "webhook_callback_verification_failed";
/// Too many messages failed one after the other.
pub const FAILURES_EXCEEDED: &str = "notification_failures_exceeded";
pub const REVOKED: &str = "authorization_revoked";
pub const CONDUIT_DELETED: &str = "conduit_deleted";
pub const MODERATOR_REMOVED: &str = "moderator_removed";

/// Statuses that subscriptions and shards share.
const SHARED: [&str; 11] = [
    ENABLED,
    PENDING,
    VERIFICATION_FAILED,
    FAILURES_EXCEEDED,
    "websocket_disconnected",
    "websocket_failed_ping_pong",
    "websocket_received_inbound_traffic",
    "websocket_internal_error",
    "websocket_network_timeout",
    "websocket_network_error",
    "websocket_failed_to_reconnect",
];

/// Statuses of subscriptions alone.
const OF_SUBSCRIPTIONS: [&str; 8] = [
    REVOKED,
    "moderator_removed",
    "user_removed",
    "chat_user_banned",
    "version_removed",
    "beta_maintenance",
    CONDUIT_DELETED,
    "websocket_connection_unused",
];

pub fn is_shard_status(text: &str) -> bool {
    SHARED.contains(&text)
}

pub fn is_subscription_status(text: &str) -> bool {
    is_shard_status(text) || OF_SUBSCRIPTIONS.contains(&text)
}

/// Whether a subscription with this status counts: against limits and as an equal one.
pub fn is_live(status: &str) -> bool {
    status == ENABLED || status == PENDING
}

/// The status that follows a WebSocket's end with this code, and the reason that goes with the code.
pub fn of_close_code(code: u16) -> (&'static str, &'static str) {
    match code {
        4000 => ("websocket_internal_error", "internal server error"),
        4001 => ("websocket_received_inbound_traffic", "sent inbound traffic"),
        4002 => ("websocket_failed_ping_pong", "failed ping pong"),
        4003 => ("websocket_connection_unused", "connection unused"),
        4004 => ("websocket_failed_to_reconnect", "client reconnect grace time expired"),
        4005 => ("websocket_network_timeout", "network timeout"),
        4006 => ("websocket_network_error", "network error"),
        4007 => ("websocket_disconnected", "invalid reconnect attempt"),
        _ => ("websocket_disconnected", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_code_leads_to_a_known_status() {
        for code in (1000..1012).chain(4000..=4007) {
            assert!(is_subscription_status(of_close_code(code).0), "{code}");
        }
        assert!(is_subscription_status("user_removed") && !is_shard_status("user_removed"));
        assert!(!is_subscription_status("foo") && !is_subscription_status(""));
    }
}
