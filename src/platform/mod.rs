//! Twitch's side of the EventSub protocol, without a world behind it: requests and their errors, rules for
//! subscriptions and conduits, WebSocket sessions, challenges, signed requests and retries.
//!
//! Holds no state of its own but that of one socket. Whoever stands behind it (the sandbox) says which users,
//! conduits and sessions there are. It must never import anything but `model`.

mod endpoint;
mod exchange;
mod ids;
mod message;
mod moment;
mod request;
mod routes;
mod routing;
mod rules;
mod sender;
mod session;
mod socket;
mod status;
mod subscription;
mod webhook;

pub use self::endpoint::Endpoint;
pub use self::exchange::{Answer, Call, ContentType};
pub use self::ids::{random_text, session_id, uuid, webhook_message_id};
pub use self::message::{Content, Kind, Message, Stamp, keepalive, reconnect, welcome};
pub use self::moment::Moment;
pub use self::request::{
    ConduitRequest, CreateRequest, Filter, ListRequest, ShardListRequest, ShardUpdate, ShardUpdates,
    TransportRequest, cursor,
};
pub use self::routes::{EventSub, Operation, read, routes};
pub use self::routing::candidates;
pub use self::rules::{
    Asker, Limits, check_condition, check_type, cost, every_scope, lacks_moderator, missing_scopes,
};
pub use self::sender::post;
pub use self::session::{Frame, Machine, Opening, Output, SessionRules};
pub use self::socket::{Joined, Order, Sessions, upgrade};
pub use self::status::{
    CONDUIT_DELETED, ENABLED, FAILURES_EXCEEDED, MODERATOR_REMOVED, PENDING, REVOKED, VERIFICATION_FAILED,
    is_live, is_shard_status, is_subscription_status, of_close_code,
};
pub use self::subscription::{ConditionFields, ShardRow, Subscription, Transport, TransportInfo};
pub use self::webhook::{Reply, Retries, challenge_text, headers, is_accepted, judge};
