//! The table of metrics: name, help, unit and labels of each.

/// Type of a metric, in OpenMetrics' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up; from 0 at the start of the daemon unless its help says otherwise.
    Counter,
    /// Counts by size, and their sum.
    Histogram,
    /// Always 1; the information is in the labels.
    Info,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

#[derive(Debug)]
pub struct Metric {
    /// Name without the suffix that its kind adds.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Unit, which ends the name; empty if there is none.
    pub(super) unit: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

impl Metric {
    /// Returns the name to query in Prometheus; for a histogram, the common prefix of its series.
    pub fn series(&self) -> String {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{suffix}", self.name)
    }

    /// Returns the names of all its samples.
    pub fn samples(&self) -> Vec<String> {
        match self.kind {
            Kind::Histogram => ["bucket", "sum", "count"].map(|part| format!("{}_{part}", self.name)).into(),
            Kind::Gauge | Kind::Counter | Kind::Info => vec![self.series()],
        }
    }
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal ($unit:literal) [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $id: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// All metrics, in the order in which they are written.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    BUILD: Info "eventsubd_build" ("") ["version"]
        "The version of the daemon";
    START: Gauge "eventsubd_start_time_seconds" ("seconds") []
        "When the daemon started, in seconds since 1970";
    READY: Gauge "eventsubd_ready" ("") []
        "1 while the token is valid, the transport is up and the first reconcile is done";
    CONVERGED: Gauge "eventsubd_converged" ("") []
        "1 while Twitch matches the configuration, as far as it can";
    PROBLEMS: Gauge "eventsubd_problems" ("") []
        "Problems that `eventsubd status` shows";

    GENERATION: Gauge "eventsubd_config_generation" ("") []
        "Number of the active configuration: 1, and one more with each accepted reload";
    LOADED: Gauge "eventsubd_config_loaded_time_seconds" ("seconds") []
        "When the active configuration was accepted, in seconds since 1970";
    RELOAD_REFUSED: Gauge "eventsubd_config_refused" ("") []
        "1 while the last reload was refused: the file differs from the active configuration";
    RELOADS: Counter "eventsubd_reloads" ("") ["outcome"]
        "Reloads of the configuration";

    TOKEN_STATE: Gauge "eventsubd_token_state" ("") ["state"]
        "1 for the state that the app access token is in, 0 for the others";
    TOKEN_EXPIRES: Gauge "eventsubd_token_expires_in_seconds" ("seconds") []
        "Time until the token ends; it is renewed after four fifths of its life";
    TOKEN_MINTS: Counter "eventsubd_token_mints" ("") ["outcome"]
        "Tokens asked for";
    TOKEN_VALIDATIONS: Counter "eventsubd_token_validations" ("") ["outcome"]
        "Validations of the token";

    API_REQUESTS: Counter "eventsubd_api_requests" ("") ["route", "status"]
        "Requests to the API, by what was answered; `none` without an answer, `other` for rare statuses";
    API_LIMIT: Gauge "eventsubd_api_rate_limit_points" ("points") []
        "Size of the rate limit's bucket";
    API_REMAINING: Gauge "eventsubd_api_rate_limit_remaining_points" ("points") []
        "Points left in the rate limit's bucket at the last answer";

    RECONCILED_GENERATION: Gauge "eventsubd_reconcile_generation" ("") []
        "Generation of the configuration that the last complete run was made for; 0 before";
    RECONCILED: Gauge "eventsubd_reconcile_finished_time_seconds" ("seconds") []
        "When the last complete run ended, in seconds since 1970";
    RECONCILE_FAILING: Gauge "eventsubd_reconcile_failing" ("") []
        "1 while the last run ended early";
    DELETES_HELD: Gauge "eventsubd_reconcile_deletes_held" ("") []
        "Deletes that wait for `eventsubd apply --allow-deletes`";
    SUBSCRIPTIONS: Gauge "eventsubd_subscriptions" ("") ["type", "state"]
        "Subscriptions of the file, and the daemon's own";
    PARKED: Gauge "eventsubd_subscriptions_parked" ("") ["obstacle"]
        "Subscriptions that cannot be created now, by what is in the way";
    COST: Gauge "eventsubd_subscription_cost" ("") []
        "Cost of all subscriptions of the client";
    COST_LIMIT: Gauge "eventsubd_subscription_cost_limit" ("") []
        "What they may cost";
    GRANTS_MISSING: Gauge "eventsubd_grants_missing" ("") []
        "Users who have not allowed what their subscriptions need";

    SHARDS: Gauge "eventsubd_shards" ("") ["state"]
        "WebSocket shards; `bound` and `handing_over` deliver";
    SHARDS_WANTED: Gauge "eventsubd_shards_wanted" ("") []
        "Shards of the conduit";
    RECONNECTS: Counter "eventsubd_shard_reconnects" ("") ["cause"]
        "Connections of shards that had to be made anew; attempts that failed count too";

    RECEIVED: Counter "eventsubd_events_received" ("") []
        "Notifications received";
    STORED: Counter "eventsubd_events_stored" ("") []
        "Events stored";
    DUPLICATES: Counter "eventsubd_events_duplicate" ("") []
        "Notifications that were stored already";
    DOUBLES: Counter "eventsubd_events_double" ("") []
        "Notifications of what was stored already under another message id";
    REJECTED: Counter "eventsubd_events_rejected" ("") ["reason"]
        "Messages and requests that were not taken; all but `malformed` and `unknown` are those of webhooks";
    REVOCATIONS: Counter "eventsubd_revocations" ("") []
        "Subscriptions that Twitch has told us it ended";

    GAPS: Counter "eventsubd_gaps" ("") ["reason"]
        "Gaps told: times in which events may have been missed";
    GAP_OPEN: Gauge "eventsubd_gap_open_seconds" ("seconds") []
        "How long events may have been missed by now; 0 while none are";
    CATCH_UP_EVENTS: Counter "eventsubd_catch_up_events" ("") []
        "Events stored for what Twitch's API showed to have happened during gaps";

    CLUSTER_LEADER: Gauge "eventsubd_cluster_leader" ("") []
        "1 on the host that leads the cluster; absent without `[cluster]`";
    CLUSTER_HOSTS: Gauge "eventsubd_cluster_hosts" ("") ["state"]
        "Hosts of the cluster that this one has seen, by state";
    CLUSTER_OTHER_FILES: Gauge "eventsubd_cluster_hosts_with_another_file" ("") []
        "Hosts of the cluster that are up and have another file than this one";
    CLUSTER_TAKEOVERS: Counter "eventsubd_cluster_takeovers" ("") []
        "Times that this host began to lead the cluster";
    FORWARD_LAG_EVENTS: Gauge "eventsubd_forward_lag_events" ("") []
        "Events stored on this host that the shared log does not have yet; absent without `[cluster]`";
    FORWARD_LAG_SECONDS: Gauge "eventsubd_forward_lag_seconds" ("seconds") []
        "Age of the oldest of them";
    FORWARDED: Counter "eventsubd_forwarded_events" ("") []
        "Events that the shared log has acknowledged to this host";
    FORWARD_LOST: Counter "eventsubd_forward_lost_events" ("") []
        "Events that retention removed before the shared log had them";

    WEBHOOK_REQUESTS: Counter "eventsubd_webhook_requests" ("") []
        "Requests answered by the webhook listener";
    WEBHOOK_CHALLENGES: Counter "eventsubd_webhook_challenges" ("") []
        "Challenges answered";
    WEBHOOK_UNAVAILABLE: Counter "eventsubd_webhook_unavailable" ("") []
        "Messages answered with 503, as the store could not take them or the clock seemed wrong; Twitch sends them again";
    WEBHOOK_CONNECTIONS: Gauge "eventsubd_webhook_connections" ("") []
        "Open connections to the webhook listener";
    WEBHOOK_EVICTED: Counter "eventsubd_webhook_evicted_connections" ("") []
        "Connections to the webhook listener that were closed to make room for others";
    WEBHOOK_KEYS: Gauge "eventsubd_webhook_keys" ("") []
        "Webhook secrets that are accepted: more than one while one is replaced";
    WEBHOOK_SKEW: Gauge "eventsubd_webhook_clock_skew_seconds" ("seconds") []
        "Twitch's clock less ours when the last signed message came";

    AUTHORIZE: Counter "eventsubd_authorize_requests" ("") ["outcome"]
        "Requests to the page for invited users, by how they ended; absent without `[authorize]`";

    STORE_EVENTS: Gauge "eventsubd_store_events" ("events") []
        "Events kept in the store";
    STORE_SIZE: Gauge "eventsubd_store_size_bytes" ("bytes") []
        "Size of the store on disk";
    STORE_LIMIT: Gauge "eventsubd_store_limit_bytes" ("bytes") []
        "Size above which the oldest events are removed";
    STORE_SEQUENCE: Gauge "eventsubd_store_last_sequence" ("") []
        "Number of the newest event";
    STORE_REMOVED: Counter "eventsubd_store_removed_events" ("events") []
        "Events removed by retention";
    STORE_COMMITS: Histogram "eventsubd_store_commit_seconds" ("seconds") []
        "Time that transactions took, their sync included";
    STORE_COMMIT_FAILURES: Counter "eventsubd_store_commit_failures" ("") []
        "Transactions that failed";
    STORE_FAILING: Gauge "eventsubd_store_failing" ("") []
        "1 while nothing can be stored and intake waits";

    SINK_DELIVERED: Counter "eventsubd_sink_delivered_events" ("events") ["sink"]
        "Events that the sink has acknowledged";
    SINK_RETRIES: Counter "eventsubd_sink_retries" ("") ["sink"]
        "Failed attempts";
    SINK_DEAD_LETTERS: Gauge "eventsubd_sink_dead_letters" ("") ["sink"]
        "Events in the sink's dead letters";
    SINK_LAG_EVENTS: Gauge "eventsubd_sink_lag_events" ("events") ["sink"]
        "Events for the sink that it has not got yet";
    SINK_LAG_SECONDS: Gauge "eventsubd_sink_lag_seconds" ("seconds") ["sink"]
        "Age of the oldest event that the sink has not got yet";
    SINK_IN_FLIGHT: Gauge "eventsubd_sink_in_flight_events" ("events") ["sink"]
        "Events that are with the receiver, not acknowledged yet";
    SINK_LOST: Counter "eventsubd_sink_lost_events" ("events") ["sink"]
        "Events that retention removed before the sink had them, over all starts";
    SINK_FAILING: Gauge "eventsubd_sink_failing" ("") ["sink"]
        "1 while the last try failed";
    SINK_NEXT_TRY: Gauge "eventsubd_sink_next_try_time_seconds" ("seconds") ["sink"]
        "When the sink tries again, in seconds since 1970; absent unless it waits after a failure or as its receiver asks";
}

/// Returns the table of all metrics for the documentation, in Markdown.
pub fn reference() -> String {
    let mut text = "| metric | kind | labels | what it tells |\n|---|---|---|---|\n".to_owned();
    for metric in ALL {
        let kind = metric.kind.name();
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        text += &format!("| `{}` | {kind} | {} | {} |\n", metric.series(), labels.join(", "), metric.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_what_prometheus_asks_for() {
        let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "each name once");
        for Metric { name, kind, unit, labels, help } in ALL {
            assert!(name.starts_with("eventsubd_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(!["_total", "_info", "_bucket", "_count", "_sum"].iter().any(|s| name.ends_with(s)));
            assert!(unit.is_empty() || name.ends_with(&format!("_{unit}")), "{name} has the unit {unit}");
            assert!(["seconds", "bytes"].iter().all(|u| !name.ends_with(u) || unit == u), "{name}");
            assert!(!help.is_empty() && !help.ends_with('.') && !help.contains('|'), "{name}: {help}");
            assert!(*kind != Kind::Info || !labels.is_empty(), "{name} tells nothing");
            assert!(!labels.contains(&"le"), "{name}");
        }
    }

    #[test]
    fn the_documentation_has_this_table() {
        let page = include_str!("../../../docs/metrics-and-alerts.md");
        let wanted = reference();
        assert!(page.contains(&wanted), "docs/metrics-and-alerts.md must have this table:\n{wanted}");
    }
}
