//! Exit codes.

use crate::model::status::{ProblemKind, Status, TokenState};

/// Exit code: something failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code: `plan --detailed-exitcode` has changes.
pub(crate) const CHANGES: u8 = 2;
/// Exit code: Twitch cannot be reached (`EX_TEMPFAIL` of `sysexits.h`).
pub(crate) const TEMPORARY: u8 = 75;
/// Exit code: Twitch refused the credentials (`EX_NOPERM`).
pub(crate) const REFUSED: u8 = 77;
/// Exit code: the configuration is bad (`EX_CONFIG`).
pub(crate) const BAD_CONFIG: u8 = 78;

/// The exit code for a daemon that cannot make Twitch match the file.
pub(super) fn exit_code(status: &Status) -> u8 {
    match (status.token.state, status.reconcile.problem_kind) {
        (TokenState::Refused, _) | (_, Some(ProblemKind::Credentials)) => REFUSED,
        (TokenState::Unavailable, _) | (_, Some(ProblemKind::Outage)) => TEMPORARY,
        _ => FAILED,
    }
}
