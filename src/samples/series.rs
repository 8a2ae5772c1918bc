//! Series: types whose events tell of one happening, such as the begin, progress and end of a poll.
//!
//! The events of one happening share its ids, its users and the time when it began. [`Happenings`] knows which one is
//! under way in each channel; the sandbox asks it before it makes an event.

use std::collections::HashMap;

use crate::model::subscription::Condition;
use crate::model::time::Timestamp;

/// The series, each in the order in which its events come.
const SERIES: &[&[&str]] = &[
    &["stream.online", "stream.offline"],
    &["channel.poll.begin", "channel.poll.progress", "channel.poll.end"],
    &[
        "channel.prediction.begin",
        "channel.prediction.progress",
        "channel.prediction.lock",
        "channel.prediction.end",
    ],
    &["channel.hype_train.begin", "channel.hype_train.progress", "channel.hype_train.end"],
    &["channel.goal.begin", "channel.goal.progress", "channel.goal.end"],
    &[
        "channel.charity_campaign.start",
        "channel.charity_campaign.donate",
        "channel.charity_campaign.progress",
        "channel.charity_campaign.stop",
    ],
    &["channel.subscribe", "channel.subscription.message", "channel.subscription.end"],
    &["channel.chat.message", "channel.chat.message_delete"],
    &[
        "channel.channel_points_custom_reward_redemption.add",
        "channel.channel_points_custom_reward_redemption.update",
    ],
    &[
        "channel.guest_star_session.begin",
        "channel.guest_star_guest.update",
        "channel.guest_star_session.end",
    ],
    &["channel.shared_chat.begin", "channel.shared_chat.update", "channel.shared_chat.end"],
    &["channel.ban", "channel.unban"],
    &["channel.unban_request.create", "channel.unban_request.resolve"],
    &["channel.warning.send", "channel.warning.acknowledge"],
    &["channel.moderator.add", "channel.moderator.remove"],
    &["channel.vip.add", "channel.vip.remove"],
];

/// One happening of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Differs between the happenings of one channel.
    pub number: u64,
    /// `None` means that its first event was never sent.
    pub began: Option<Timestamp>,
}

/// The series of a type, and the place of the type in it.
fn place(subscription_type: &str) -> Option<(&'static [&'static str], usize)> {
    SERIES.iter().find_map(|series| {
        let place = series.iter().position(|known| *known == subscription_type)?;
        Some((*series, place))
    })
}

/// The first type of the series that the type belongs to.
pub(super) fn leader(subscription_type: &str) -> Option<&'static str> {
    place(subscription_type).and_then(|(series, _)| series.first().copied())
}

/// The channel that the condition speaks of.
pub(super) fn channel(condition: &Condition) -> &str {
    condition.get("broadcaster_user_id").unwrap_or_default()
}

/// Series under way in each channel.
#[derive(Debug, Default)]
pub struct Happenings {
    /// By the first type of the series and the channel.
    current: HashMap<(&'static str, String), Current>,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    happening: Happening,
    /// Place of the last event in the series.
    last: usize,
}

impl Happenings {
    /// The happening that an event of this type belongs to, if it comes now; `None` if the type is in no series.
    ///
    /// The first type of a series begins a new happening, and so does any type after the last one.
    pub fn record(
        &mut self,
        subscription_type: &str,
        condition: &Condition,
        now: Timestamp,
    ) -> Option<Happening> {
        let (series, place) = place(subscription_type)?;
        let key = (*series.first()?, channel(condition).to_owned());
        let current = self.current.get(&key).copied();
        let happening = match current {
            Some(current) if place > 0 && current.last + 1 < series.len() => current.happening,
            _ => Happening {
                number: current.map_or(1, |current| current.happening.number.wrapping_add(1)),
                began: (place == 0).then_some(now),
            },
        };
        self.current.insert(key, Current { happening, last: place });
        Some(happening)
    }

    /// The type of the same series that comes next in this channel, out of the types that `is_listed` holds.
    /// Types that are in no series come when they like.
    pub fn next<'a>(
        &self,
        subscription_type: &'a str,
        condition: &Condition,
        is_listed: impl Fn(&str) -> bool,
    ) -> &'a str {
        let Some((series, _)) = place(subscription_type) else { return subscription_type };
        let key = (series[0], channel(condition).to_owned());
        let after = self.current.get(&key).map_or(0, |current| current.last + 1);
        let (before, rest) = series.split_at(after.min(series.len()));
        rest.iter().chain(before).find(|known| is_listed(known)).copied().unwrap_or(subscription_type)
    }
}
