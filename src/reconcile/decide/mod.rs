//! The reconciler's decisions, as pure functions and tables: the plan, and all that goes into it. ◆

pub(super) mod action;
pub(super) mod compared;
pub(super) mod conduit;
pub(super) mod grants;
pub(super) mod ledger;
pub(super) mod logins;
pub(super) mod park;
pub(super) mod place;
pub(super) mod plan;
pub(super) mod reason;
pub(super) mod wanted;

#[cfg(test)]
mod plan_tests;
