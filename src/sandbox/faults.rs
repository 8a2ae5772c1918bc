//! Fault injection.

/// The requests that a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Token,
    Validate,
    Users,
    Streams,
    Channels,
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
    /// An error with this status and message.
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

#[derive(Clone, Debug)]
struct Planned {
    route: Route,
    fault: Fault,
    times: u32,
}

/// The faults to come.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Planned>);

impl Faults {
    /// `u32::MAX` times is until [`Self::clear`].
    pub(super) fn plan(&mut self, route: Route, fault: Fault, times: u32) {
        self.0.push(Planned { route, fault, times });
    }

    /// Takes the next fault for a request.
    pub(super) fn take(&mut self, route: Route) -> Option<Fault> {
        let at = self.0.iter().position(|p| p.route == route || p.route == Route::Any)?;
        let planned = self.0.get_mut(at)?;
        let fault = planned.fault.clone();
        if planned.times != u32::MAX {
            planned.times -= 1;
            if planned.times == 0 {
                self.0.remove(at);
            }
        }
        Some(fault)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
