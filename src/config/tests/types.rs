//! Messages about types, versions and the fields of conditions.

use super::*;
use expect_test::expect;

#[test]
fn unknown_types() {
    check_subscriptions(
        r#"[[subscription]]
type = "stream.onlin"
broadcaster = "ninja"

[[subscription]]
type = "entirely.new"
broadcaster = "ninja"

[[subscription]]
type = "channel.*"
broadcaster = "ninja"

[[subscription]]
type = ""
"#,
        &expect![[r#"
            error: unknown subscription type `stream.onlin`
             --> /etc/eventsubd/config.toml:6:8
              |
            6 | type = "stream.onlin"
              |        ^^^^^^^^^^^^^^
              |
              = help: did you mean `stream.online`?
              = help: a type that is newer than this release needs `version` and `condition`

            error: unknown subscription type `entirely.new`
              --> /etc/eventsubd/config.toml:10:8
               |
            10 | type = "entirely.new"
               |        ^^^^^^^^^^^^^^
               |
               = help: a type that is newer than this release needs `version` and `condition`

            error: `channel.*` is not a subscription type
              --> /etc/eventsubd/config.toml:14:8
               |
            14 | type = "channel.*"
               |        ^^^^^^^^^^^
               |
               = help: name the types one by one: globs are for `types` of sinks
               = help: there is `channel.ad_break.begin`, `channel.ban`, `channel.bits.use`, `channel.channel_points_automatic_reward_redemption.add`, `channel.channel_points_custom_reward.add`, `channel.channel_points_custom_reward.remove`, … (`eventsubd types` lists them all)

            error: `` is not a subscription type
              --> /etc/eventsubd/config.toml:18:8
               |
            18 | type = ""
               |        ^^
        "#]],
    );
}

#[test]
fn unknown_types_that_say_enough() {
    check_subscriptions(
        r#"[[subscription]]
type = "stream.onlin"
version = "1"
broadcaster = "ninja"

[[subscription]]
type = "entirely.new"
version = "1"
condition = { thing_id = "5" }

[[subscription]]
type = "channel.follow"
version = "3"
broadcaster = "ninja"
"#,
        &expect![[r#"
            warning: unknown subscription type `stream.onlin`
             --> /etc/eventsubd/config.toml:6:8
              |
            6 | type = "stream.onlin"
              |        ^^^^^^^^^^^^^^
              |
              = help: did you mean `stream.online`?
              = help: it is passed on unchecked, since `version` and a condition are given

            warning: unknown subscription type `entirely.new`
              --> /etc/eventsubd/config.toml:11:8
               |
            11 | type = "entirely.new"
               |        ^^^^^^^^^^^^^^
               |
               = help: it is passed on unchecked, since `version` and a condition are given

            warning: unknown version `3` of `channel.follow`
              --> /etc/eventsubd/config.toml:17:11
               |
            17 | version = "3"
               |           ^^^
               |
               = help: it is newer than this release, and passed on unchecked
        "#]],
    );
}

#[test]
fn versions() {
    check_subscriptions(
        r#"[[subscription]]
type = "channel.follow"
version = "1"
broadcaster = "ninja"

[[subscription]]
type = "channel.follow"
version = "bta"
broadcaster = "ninja"

[[subscription]]
type = "channel.custom_power_up_redemption.add"
version = "beta"
broadcaster = "ninja"
"#,
        &expect![[r#"
            error: version `1` of `channel.follow` was removed by Twitch
             --> /etc/eventsubd/config.toml:7:11
              |
            7 | version = "1"
              |           ^^^
              |
              = help: the newest is "2"

            error: unknown version `bta` of `channel.follow`
              --> /etc/eventsubd/config.toml:12:11
               |
            12 | version = "bta"
               |           ^^^^^
               |
               = help: Twitch has "2"

            error: version `beta` of `channel.custom_power_up_redemption.add` was removed by Twitch
              --> /etc/eventsubd/config.toml:17:11
               |
            17 | version = "beta"
               |           ^^^^^^
               |
               = help: the newest is "1"
        "#]],
    );
}

#[test]
fn a_beta_version_is_a_warning() {
    check_subscriptions(
        r#"[[subscription]]
type = "channel.guest_star_session.begin"
broadcaster = "ninja"
"#,
        &expect![[r#"
            warning: version `beta` of `channel.guest_star_session.begin` is a beta
             --> /etc/eventsubd/config.toml:6:8
              |
            6 | type = "channel.guest_star_session.begin"
              |        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              |
              = help: Twitch may change or remove it without notice
        "#]],
    );
}

#[test]
fn missing_fields() {
    check_subscriptions(
        r#"[[subscription]]
type = "channel.chat.message"
broadcaster = "ninja"

[[subscription]]
type = "stream.online"

[[subscription]]
type = "channel.follow"

[[subscription]]
type = "drop.entitlement.grant"

[[subscription]]
type = "channel.chat.message"
user = "bot"
"#,
        &expect![[r#"
            error: `channel.chat.message` needs `user_id`
             --> /etc/eventsubd/config.toml:6:8
              |
            6 | type = "channel.chat.message"
              |        ^^^^^^^^^^^^^^^^^^^^^^
              |
              = help: name the account that reads, such as that of a bot: `user = "LOGIN"`
              = help: its fields: `broadcaster_user_id`, `user_id`

            error: `stream.online` needs `broadcaster_user_id`
              --> /etc/eventsubd/config.toml:10:8
               |
            10 | type = "stream.online"
               |        ^^^^^^^^^^^^^^^
               |
               = help: name it by its login: `broadcaster = "LOGIN"`
               = help: its fields: `broadcaster_user_id`

            error: `channel.follow` needs `broadcaster_user_id`
              --> /etc/eventsubd/config.toml:13:8
               |
            13 | type = "channel.follow"
               |        ^^^^^^^^^^^^^^^^
               |
               = help: name it by its login: `broadcaster = "LOGIN"`
               = help: its fields: `broadcaster_user_id`, `moderator_user_id`

            error: `drop.entitlement.grant` needs `organization_id`
              --> /etc/eventsubd/config.toml:16:8
               |
            16 | type = "drop.entitlement.grant"
               |        ^^^^^^^^^^^^^^^^^^^^^^^^
               |
               = help: give it in the condition: `condition = { organization_id = "…" }`
               = help: its fields: `campaign_id`, `category_id`, `organization_id`

            error: `channel.chat.message` needs `broadcaster_user_id`
              --> /etc/eventsubd/config.toml:19:8
               |
            19 | type = "channel.chat.message"
               |        ^^^^^^^^^^^^^^^^^^^^^^
               |
               = help: name it by its login: `broadcaster = "LOGIN"`
               = help: its fields: `broadcaster_user_id`, `user_id`
        "#]],
    );
}

#[test]
fn superfluous_fields() {
    check_subscriptions(
        r#"[[subscription]]
type = ["channel.follow", "stream.online"]
broadcaster = "ninja"
moderator = "mod"

[[subscription]]
type = "channel.channel_points_custom_reward.update"
broadcaster = "ninja"
condition = { rewardid = "5" }
"#,
        &expect![[r#"
            error: `stream.online` has no `moderator_user_id`
             --> /etc/eventsubd/config.toml:8:1
              |
            8 | moderator = "mod"
              | ^^^^^^^^^
              |
              = help: its fields: `broadcaster_user_id`
              = help: types with other fields need a `[[subscription]]` of their own: `stream.online` is in this list

            error: `channel.channel_points_custom_reward.update` has no `rewardid`
              --> /etc/eventsubd/config.toml:13:15
               |
            13 | condition = { rewardid = "5" }
               |               ^^^^^^^^
               |
               = help: did you mean `reward_id`?
               = help: its fields: `broadcaster_user_id`, `reward_id`
        "#]],
    );
}

#[test]
fn a_raid_needs_exactly_one_side() {
    check_subscriptions(
        r#"[[subscription]]
type = "channel.raid"

[[subscription]]
type = "channel.raid"
from_broadcaster = "ninja"
to_broadcaster = "shroud"

[[subscription]]
type = "channel.raid"
broadcaster = "ninja"
"#,
        &expect![[r#"
            error: `channel.raid` needs `from_broadcaster` or `to_broadcaster`
             --> /etc/eventsubd/config.toml:6:8
              |
            6 | type = "channel.raid"
              |        ^^^^^^^^^^^^^^
              |
              = help: `from_broadcaster` is for raids that leave a channel, `to_broadcaster` for those that arrive

            error: `channel.raid` takes one of `from_broadcaster` and `to_broadcaster`, not both
             --> /etc/eventsubd/config.toml:9:8
              |
            9 | type = "channel.raid"
              |        ^^^^^^^^^^^^^^
              |
              = help: write one `[[subscription]]` for raids that leave and one for raids that arrive

            error: `channel.raid` has no `broadcaster_user_id`
              --> /etc/eventsubd/config.toml:15:1
               |
            15 | broadcaster = "ninja"
               | ^^^^^^^^^^^
               |
               = help: `from_broadcaster` is for raids that leave a channel, `to_broadcaster` for those that arrive
               = help: its fields: `from_broadcaster_user_id`, `to_broadcaster_user_id`
        "#]],
    );
}
