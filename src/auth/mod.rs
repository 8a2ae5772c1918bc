//! The app access token, kept by one task for all users; and outgoing connections ([`Outward`]).
//!
//! Owns minting, validating and renewing. Any number of requests with status 401 causes one validation and at most
//! one mint. Never revokes a token: other processes may use it, and subscriptions do not depend on it. Nothing is
//! stored on disk; after a crash a new token is minted.

mod code;
mod device;
mod exchange;
mod http;
mod keeper;
#[cfg(feature = "nats")]
mod nats;
pub mod oauth;
mod outward;
mod proxy;
pub mod token;
mod tokens;

pub use self::code::{CodeError, CodeGrant};
pub use self::device::{DeviceError, DeviceGrant};
pub use self::http::{BodyError, HttpError, http_client, read_bounded, read_start, tls_config, unix_client};
pub use self::keeper::Keeper;
#[cfg(feature = "nats")]
pub use self::nats::{NatsServers, NatsServersError, explain_nats, nats_masking};
pub use self::outward::{Connection, Outward, explain};
pub use self::proxy::{Proxies, Proxy, ProxyError};
pub use self::tokens::{AccessToken, Credentials, Rejected, TokenError, TokenOptions, Tokens};
