//! Invites: users allow the application what the file's subscriptions need of them, on a page of the daemon's own
//! (Twitch: "Authorization code grant flow").
//!
//! Owns the invites that `eventsubd authorize --link` prints, the page that they lead to, and the visits in progress.
//! The page offers only what the file needs of the visitor, never what a request asks for, and nothing to a visitor
//! without an invite. The token that Twitch gives for a code is looked at and dropped. Nothing is stored: after a crash
//! a visitor begins again.

mod bucket;
mod invitation;
mod needs;
mod outcomes;
mod page;
mod request;
mod server;
mod visits;
mod words;
mod work;

pub use self::invitation::{Invitation, InvitationKey, InvitedUser, LIFE, Unusable};
pub use self::request::Answer;
pub use self::server::{InviteError, InviteListener, bind};
pub use self::work::{InviteOptions, Invites, OnGrant};
