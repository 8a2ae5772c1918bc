//! The app access token: one for everybody, kept by one task; and how everything connects outward ([`Outward`]).
//!
//! Owns minting, validating and renewing. Whatever number of requests meets a 401, one validation and
//! at most one mint come of it. It never revokes a token: other processes may use the same one, and
//! subscriptions do not depend on it. Nothing is written to disk; after a crash a new token is minted.

mod device;
mod http;
mod keeper;
pub mod oauth;
mod outward;
mod proxy;
pub mod token;
mod tokens;

pub use self::device::{DeviceError, DeviceGrant};
pub use self::http::{BodyError, HttpError, http_client, read_bounded, tls_config};
pub use self::keeper::Keeper;
pub use self::outward::{Connection, Outward, explain};
pub use self::proxy::{Proxies, Proxy, ProxyError};
pub use self::tokens::{AccessToken, Credentials, Rejected, TokenError, TokenOptions, Tokens};
