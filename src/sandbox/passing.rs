//! The passing of time: Twitch forgets subscriptions that have ended, and deletes conduits without shards (Twitch: "Get
//! EventSub Subscriptions", "Handling Conduit Events").

use std::time::{Duration, Instant};

use super::state::Shared;

/// Bounds for the pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Looks now and then, until the stand-in stops.
pub(super) async fn run(world: Shared) {
    let options = &world.options;
    let (websocket, others, conduit) = (options.websocket_listed, options.ended_listed, options.conduit_life);
    let pause = (websocket.min(others).min(conduit) / 10).clamp(PAUSES.0, PAUSES.1);
    loop {
        tokio::select! {
            () = world.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let now = Instant::now();
        let mut state = world.lock();
        for id in state.conduits.unbound_for(now, conduit) {
            state.delete_conduit(&id);
        }
        state.subscriptions.forget_ended(now, websocket, others);
    }
}
