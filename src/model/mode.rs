//! Choices that a person makes once for the whole daemon.

use super::choice::choice;

choice! {
    /// Treatment of live subscriptions of ours that the file does not have.
    #[derive(Default)]
    pub enum Policy {
        /// Delete these subscriptions.
        #[default]
        Sync = "sync",
        /// Keep these subscriptions. Dead rows are cleared even so: they deliver nothing and cannot be revived.
        Keep = "keep",
    }
}

choice! {
    /// Transport of the subscriptions.
    #[derive(Default)]
    pub enum Method {
        /// Over the shards of a conduit.
        #[default]
        Conduit = "conduit",
        /// To a callback for each subscription.
        Webhook = "webhook",
    }
}

choice! {
    /// Transport of the shards of a conduit.
    pub enum ShardTransport {
        /// A WebSocket for each shard.
        WebSocket = "websocket",
        /// A callback for each shard.
        Webhook = "webhook",
    }
}

choice! {
    /// Form of log lines.
    pub enum LogFormat {
        /// The journal's native protocol if stderr is the journal, else text.
        Auto = "auto",
        /// Lines for people; coloured on a terminal unless `NO_COLOR` is set.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
        /// The journal's native protocol, with fields.
        Journald = "journald",
    }
}
