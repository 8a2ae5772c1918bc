use expect_test::expect;

use super::*;
use crate::config;

fn names(word: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = select(word, None).expect("known").iter().map(|row| &*row.name).collect();
    names.dedup();
    names
}

#[test]
fn one_type_in_words() {
    let row = catalog::lookup("channel.follow", "2").expect("known");
    expect![[r#"
        channel.follow version 2
        A viewer follows the channel.

            [[subscription]]
            type = "channel.follow"
            broadcaster = ["LOGIN"]
            # moderator = "LOGIN"          # the broadcaster, if left out

        must allow    the `moderator`, or the `broadcaster` if none is given: moderator:read:followers
                      `eventsubd authorize --user LOGIN` asks for it
        cost          0
        transports    webhook, websocket, conduit
        versions      also 1 (removed): `eventsubd types channel.follow VERSION`
        note          The user in moderator_user_id must have granted the scope to this client id and must be a
                      moderator of the channel or its broadcaster. Put the broadcaster id in both fields when the
                      broadcaster is the one who authorized.

        members of `event`
          user_id                 text  "169382716"
          user_login              text  "user_169382716"
          user_name               text  "User_169382716"
          broadcaster_user_id     text  "1001"
          broadcaster_user_login  text  "user_1001"
          broadcaster_user_name   text  "User_1001"
          followed_at             time  "2026-10-09T23:59:59.999222141Z"

        samples       `eventsubd types channel.follow --sample` prints one
    "#]].assert_eq(&detail(row, false));
    let row = catalog::lookup("channel.unban_request.resolve", "1").expect("known");
    expect![[r#"
        channel.unban_request.resolve version 1
        A request to be unbanned is approved, denied or canceled.

            [[subscription]]
            type = "channel.unban_request.resolve"
            broadcaster = ["LOGIN"]
            # moderator = "LOGIN"          # the broadcaster, if left out

        must allow    the `moderator`, or the `broadcaster` if none is given: moderator:read:unban_requests or
                      moderator:manage:unban_requests
                      `eventsubd authorize --user LOGIN` asks for it
        cost          0
        transports    webhook, websocket, conduit
        note          The user in moderator_user_id must have granted the scope to this client id and must be a
                      moderator of the channel or its broadcaster. Some doc sentences call the field moderator_id; the
                      real field is moderator_user_id.

        members of `event`
          id                      text                        "4d86884e-0ff7-42f6-b901-e773c8fd2c34"
          broadcaster_user_id     text                        "1001"
          broadcaster_user_login  text                        "user_1001"
          broadcaster_user_name   text                        "User_1001"
          moderator_user_id       text, or null, or left out  "1002"
          moderator_user_login    text, or null, or left out  "user_1002"
          moderator_user_name     text, or null, or left out  "User_1002"
          user_id                 text                        "910123456"
          user_login              text                        "user_910123456"
          user_name               text                        "User_910123456"
          resolution_text         text, or left out           "Welcome back"
          status                  text                        approved, denied, canceled

        samples       `eventsubd types channel.unban_request.resolve --sample` prints one
        --variant     approved, denied, canceled, canceled-without-moderator
    "#]].assert_eq(&detail(row, false));
}

#[test]
fn costs_and_grants_are_in_the_words_of_the_file() {
    let line = |name: &str, label: &str| {
        let text = detail(catalog::default_version(name).expect("known"), false);
        text.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("{text}"))[14..].to_owned()
    };
    for (name, cost) in [
        ("user.authorization.grant", "1"),
        ("conduit.shard.disabled", "0"),
        ("channel.follow", "0"),
        ("stream.online", "0 if the `broadcaster` has authorized the application, otherwise 1"),
        (
            "channel.raid",
            "0 if the `from_broadcaster` or the `to_broadcaster` has authorized the application, otherwise 1",
        ),
    ] {
        assert_eq!(line(name, "cost"), cost, "{name}");
    }
    assert_eq!(line("stream.online", "must allow"), "nobody");
    assert_eq!(line("channel.chat.message", "must allow"), "the `user`: user:read:chat, and user:bot");
    assert!(
        line("channel.chat.message", "and").starts_with(
            "the `broadcaster`: channel:bot, or: the `user` is a moderator of the `broadcaster`"
        )
    );
}

#[test]
fn every_type_has_its_line_and_its_words() {
    let rows: Vec<_> = catalog::all().iter().collect();
    let table = table(&rows);
    assert_eq!(table.lines().count(), rows.len() + 1);
    assert!(table.lines().skip(1).zip(&rows).all(|(line, row)| line.starts_with(&row.name)));
    for row in rows {
        let text = detail(row, false);
        assert!(text.contains("\nmust allow    ") && text.contains("\nmembers of "), "{text}");
        assert!(text.lines().all(|line| !line.ends_with(' ')), "{text}");
        let json = serde_json::to_value(Entry::of(row)).expect("JSON");
        assert_eq!(json["type"], *row.name);
        assert!(json["members"].as_array().is_some_and(|members| !members.is_empty()));
    }
}

#[test]
fn a_name_a_glob_and_a_word_are_understood() {
    assert_eq!(names("follow"), ["channel.follow"]);
    assert_eq!(names("channel.follow"), ["channel.follow"]);
    assert_eq!(names("Channel.Poll.*"), ["channel.poll.begin", "channel.poll.end", "channel.poll.progress"]);
    assert_eq!(names("polls"), names("channel.poll.*"));
    assert!(names("chat").contains(&"channel.chat.message") && names("chat").len() > 8);
    assert_eq!(names("whisper"), ["user.whisper.message"]);
    assert!(names("category").contains(&"channel.update"), "a word of the sentence");
    for word in ["nonsense", "channel.nonsense.*", "channel.folow", "[", "channel.poll.begin."] {
        assert_eq!(
            select(word, None).map(|rows| rows.len()).map_err(|error| error.exit_code()),
            Err(2),
            "{word}"
        );
    }
    assert_eq!(select("channel.moderate", Some("1")).expect("known").len(), 1);
    assert!(select("channel.moderate", Some("7")).is_err());
    assert_eq!(chosen(&select("channel.moderate", None).expect("known")).expect("one").version, "2");
}

#[test]
fn the_toml_of_every_type_is_a_valid_file() {
    let mut tried = 0;
    for row in catalog::all().iter().filter(|row| !row.removed) {
        let text = format!("[twitch]\nclient_id = \"abc\"\n\n{}", describe::toml(row));
        let loaded = config::check_text(text.as_bytes()).unwrap_or_else(|errors| panic!("{text}\n{errors}"));
        assert_eq!(loaded.config.subscriptions.len(), 1, "{text}");
        let spec = &loaded.config.subscriptions[0];
        assert_eq!((&*spec.subscription_type, &*spec.version), (&*row.name, &*row.version));
        let warnings: Vec<_> =
            loaded.warnings.iter().filter(|found| !found.message.contains("is a beta")).collect();
        assert!(warnings.is_empty(), "{text}\n{warnings:?}");
        tried += 1;
    }
    assert!(tried > 80, "{tried}");
}
