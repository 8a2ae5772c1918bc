//! Counters: durations, and causes of reconnects.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Histogram of durations. Cheap to add to, and of fixed size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    /// Number of durations.
    pub count: u64,
    /// Sum, in microseconds.
    pub total_micros: u64,
    /// Number of durations per bucket: up to the bound in [`Durations::BOUNDS`], and more than the one before; the
    /// last bucket has no bound.
    pub buckets: [u64; Durations::BOUNDS.len() + 1],
}

impl Durations {
    /// Bounds of the buckets, in microseconds: from a fast disk's sync to one that is stuck.
    pub const BOUNDS: [u64; 14] = [
        250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 10_000_000,
    ];

    pub fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.count += 1;
        self.total_micros = self.total_micros.saturating_add(micros);
        self.buckets[Self::BOUNDS.partition_point(|bound| *bound < micros)] += 1;
    }
}

/// Cause of a shard's reconnect. Those from `internal_server_error` to `invalid_reconnect` are Twitch's close codes
/// 4000 to 4007 (Twitch: "Handling WebSocket Events", "Close message").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReconnectCause {
    /// Twitch asked for it; no event is missed.
    Requested,
    /// Nothing was received for longer than the keepalive timeout.
    Keepalive,
    /// The connection could not be opened, broke, or ended without a close frame.
    Broken,
    /// The server answered, but refused the WebSocket.
    Refused,
    /// Connected, but no welcome came.
    NoWelcome,
    /// Welcomed, but not bound to its shard in time.
    NotBound,
    /// Twitch no longer knows the session.
    SessionGone,
    /// The event store is full or failing.
    Store,
    InternalServerError,
    ClientSentInboundTraffic,
    ClientFailedPingPong,
    ConnectionUnused,
    ReconnectGraceTimeExpired,
    NetworkTimeout,
    NetworkError,
    InvalidReconnect,
    /// Closed with another code, or with none.
    OtherClose,
}

impl ReconnectCause {
    pub const ALL: [Self; 17] = [
        Self::Requested,
        Self::Keepalive,
        Self::Broken,
        Self::Refused,
        Self::NoWelcome,
        Self::NotBound,
        Self::SessionGone,
        Self::Store,
        Self::InternalServerError,
        Self::ClientSentInboundTraffic,
        Self::ClientFailedPingPong,
        Self::ConnectionUnused,
        Self::ReconnectGraceTimeExpired,
        Self::NetworkTimeout,
        Self::NetworkError,
        Self::InvalidReconnect,
        Self::OtherClose,
    ];

    /// Returns the cause for a close code.
    pub fn of_close_code(code: u16) -> Self {
        match code {
            4000 => Self::InternalServerError,
            4001 => Self::ClientSentInboundTraffic,
            4002 => Self::ClientFailedPingPong,
            4003 => Self::ConnectionUnused,
            4004 => Self::ReconnectGraceTimeExpired,
            4005 => Self::NetworkTimeout,
            4006 => Self::NetworkError,
            4007 => Self::InvalidReconnect,
            _ => Self::OtherClose,
        }
    }

    /// Returns its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Keepalive => "keepalive",
            Self::Broken => "broken",
            Self::Refused => "refused",
            Self::NoWelcome => "no_welcome",
            Self::NotBound => "not_bound",
            Self::SessionGone => "session_gone",
            Self::Store => "store",
            Self::InternalServerError => "internal_server_error",
            Self::ClientSentInboundTraffic => "client_sent_inbound_traffic",
            Self::ClientFailedPingPong => "client_failed_ping_pong",
            Self::ConnectionUnused => "connection_unused",
            Self::ReconnectGraceTimeExpired => "reconnect_grace_time_expired",
            Self::NetworkTimeout => "network_timeout",
            Self::NetworkError => "network_error",
            Self::InvalidReconnect => "invalid_reconnect",
            Self::OtherClose => "other_close",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::obstacle::Obstacle;

    #[test]
    fn each_duration_falls_into_the_first_bucket_that_holds_it() {
        let mut durations = Durations::default();
        for micros in [0, 250, 251, 10_000_000, 10_000_001] {
            durations.add(Duration::from_micros(micros));
        }
        let mut expected = [0; 15];
        (expected[0], expected[1], expected[13], expected[14]) = (2, 1, 1, 1);
        assert_eq!(durations, Durations { count: 5, total_micros: 20_000_502, buckets: expected });
        durations.add(Duration::MAX);
        assert_eq!((durations.total_micros, durations.buckets[14]), (u64::MAX, 2));
    }

    #[test]
    fn names_are_those_of_the_json() {
        let json = |value: serde_json::Result<serde_json::Value>| value.expect("JSON");
        for cause in ReconnectCause::ALL {
            assert_eq!(json(serde_json::to_value(cause)), cause.name());
        }
        for obstacle in Obstacle::ALL {
            assert_eq!(json(serde_json::to_value(obstacle)), obstacle.name());
        }
        let closes: Vec<_> = (4000..=4008).map(ReconnectCause::of_close_code).collect();
        assert_eq!(closes, ReconnectCause::ALL[8..]);
    }
}
