//! Fault injection.

/// The requests that a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Token,
    Validate,
    /// Get Users.
    Users,
    List,
    Create,
    Delete,
    /// Any call on conduits.
    Conduits,
    Shards,
    Bind,
    Connect,
    Any,
}

/// The kind of failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status, with this message.
    Status(u16, String),
    /// 401, as for a dead token.
    Unauthorized,
    /// 429, with an empty bucket.
    RateLimited,
    /// No answer at all.
    Hang,
    /// The connection breaks before the answer.
    Reset,
    /// 200, and a body that is no JSON.
    Garbage,
    /// The right answer, broken off in the middle.
    Truncate,
    /// The request is carried out, and its answer is lost.
    LoseAnswer,
}

/// A fault to come.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) route: Route,
    pub(super) fault: Fault,
    pub(super) times: u32,
}

/// Takes the next fault for a request.
pub(super) fn take(planned: &mut Vec<Planned>, route: Route) -> Option<Fault> {
    let at = planned.iter().position(|p| p.route == route || p.route == Route::Any)?;
    let fault = planned[at].fault.clone();
    if planned[at].times != u32::MAX {
        planned[at].times -= 1;
        if planned[at].times == 0 {
            planned.remove(at);
        }
    }
    Some(fault)
}
