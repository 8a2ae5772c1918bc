use proptest::prelude::*;

use super::*;
use crate::model::json::testing::{Changed, changes};

#[test]
fn a_list_is_read_and_unknown_values_stay() {
    let body = br#"{"total":3,"data":[
        {"id":"a","status":"enabled","type":"t","version":"1","cost":1,"created_at":"x","new":{},
         "condition":{"broadcaster_user_id":"1","x":""},"transport":{"method":"conduit","conduit_id":"c"}},
        {"id":"b","status":"new_status","type":"t","version":"1","condition":{},
         "transport":{"method":"webhook","callback":"https://x"}}],
        "total_cost":1,"max_total_cost":10000,"pagination":{"cursor":"next"}}"#;
    let page = parse_subscriptions(body).unwrap();
    assert_eq!(page.cursor.as_deref(), Some("next"));
    assert_eq!(page.rows.rows.len(), 2);
    assert_eq!(page.rows.rows[0].target, TransportTarget::Conduit { conduit_id: "c".into() });
    assert_eq!(page.rows.rows[1].status.as_str(), "new_status");
    assert_eq!((page.rows.total_cost, page.rows.max_total_cost), (1, 10_000));
    for last in
        [r#"{"data":[],"pagination":{}}"#, r#"{"data":[]}"#, r#"{"data":[],"pagination":{"cursor":""}}"#]
    {
        assert_eq!(parse_subscriptions(last.as_bytes()).unwrap().cursor, None, "{last}");
    }
}

#[test]
fn partial_answers_are_read_shard_by_shard() {
    let session = || Transport::Session(SessionId::new("s"));
    let asked: Vec<_> = (0..3).map(|n| (ShardId(n), session())).collect();
    let body = br#"{"data":[{"id":"0","status":"enabled","transport":{"method":"websocket","session_id":"s"}}],
        "errors":[{"id":"1","message":"The websocket session is not connected","code":"invalid_parameter"}]}"#;
    let bound = parse_bound(&asked, body).unwrap();
    assert_eq!(bound[0], (ShardId(0), Ok(())));
    assert!(bound[1].1.as_ref().unwrap_err().session_gone());
    assert_eq!(&*bound[2].1.as_ref().unwrap_err().code, "unnamed");
}

/// A row of each call, as Twitch sends it.
const ROWS: &[(Call, &str)] = &[
    (
        Call::GetUsers,
        r#"{"id":"41001","login":"ann","display_name":"Ann","created_at":"2020-01-01T00:00:00Z"}"#,
    ),
    (
        Call::GetGrants,
        r#"{"user_id":"41001","user_name":"Ann","user_login":"ann","scopes":["bits:read"],"has_authorized":true}"#,
    ),
    (
        Call::GetSubscriptions,
        r#"{"id":"s-1","status":"enabled","type":"channel.follow","version":"2","cost":0,
            "condition":{"broadcaster_user_id":"41001","moderator_user_id":"41001"},
            "created_at":"2026-11-02T08:15:27.441930118Z","transport":{"method":"conduit","conduit_id":"c-1"}}"#,
    ),
    (
        Call::GetSubscriptions,
        r#"{"id":"s-2","status":"enabled","type":"stream.online","version":"1","cost":1,
            "condition":{"broadcaster_user_id":"41001"},
            "transport":{"method":"webhook","callback":"https://hooks.example.net/twitch"}}"#,
    ),
    (
        Call::CreateSubscription,
        r#"{"id":"s-3","status":"enabled","type":"stream.online","version":"1","cost":1,
            "condition":{"broadcaster_user_id":"41001"},"created_at":"2026-11-02T08:15:27.441930118Z",
            "transport":{"method":"conduit","conduit_id":"c-1"}}"#,
    ),
    (Call::GetConduits, r#"{"id":"c-1","shard_count":5}"#),
    (Call::CreateConduit, r#"{"id":"c-1","shard_count":5}"#),
    (Call::UpdateConduit, r#"{"id":"c-1","shard_count":5}"#),
    (
        Call::GetShards,
        r#"{"id":"4","status":"enabled",
            "transport":{"method":"webhook","callback":"https://hooks.example.net/twitch"}}"#,
    ),
    (
        Call::GetShards,
        r#"{"id":"3","status":"enabled",
            "transport":{"method":"websocket","session_id":"s","connected_at":"2026-11-02T08:15:20.101Z"}}"#,
    ),
    (
        Call::GetStreams,
        r#"{"id":"51234567890","user_id":"41001","user_login":"ann","user_name":"Ann","game_id":"509658",
            "type":"live","title":"a","started_at":"2026-11-02T08:15:27Z","language":"en","tags":[]}"#,
    ),
    (
        Call::GetChannels,
        r#"{"broadcaster_id":"41001","broadcaster_login":"ann","broadcaster_name":"Ann",
            "broadcaster_language":"en","game_id":"509658","game_name":"Just Chatting","title":"a","delay":0,
            "content_classification_labels":["Gambling"]}"#,
    ),
];

/// The number of rows that were read, and what is said of the others.
fn read(call: Call, body: &[u8]) -> Result<(usize, Vec<Box<str>>), HelixError> {
    Ok(match call {
        Call::GetUsers => parse_users(body).map(|rows| (rows.rows.len(), rows.unread))?,
        Call::GetGrants => parse_grants(body).map(|rows| (rows.rows.len(), rows.unread))?,
        Call::GetSubscriptions => {
            parse_subscriptions(body).map(|page| (page.rows.rows.len(), page.rows.unread))?
        }
        Call::GetShards => parse_shards(body).map(|page| (page.rows.rows.len(), page.rows.unread))?,
        Call::CreateSubscription => parse_created(body).map(|_| (3, Vec::new()))?,
        Call::GetStreams => parse_streams(body).map(|page| (page.rows.rows.len(), page.rows.unread))?,
        Call::GetChannels => parse_channels(body).map(|rows| (rows.rows.len(), rows.unread))?,
        call => (parse_conduits(call, body)?.len(), Vec::new()),
    })
}

#[test]
fn a_member_of_any_kind_costs_its_row_at_most_and_the_row_is_named() {
    let mut unreadable = 0;
    for (call, text) in ROWS {
        let good: Value = serde_json::from_str(text).unwrap();
        for Changed { path, how, row } in changes(&good) {
            // The one row that was created is the first.
            let rows = if *call == Call::CreateSubscription { vec![&row] } else { vec![&good, &row, &good] };
            let body = serde_json::json!({"data": rows}).to_string();
            let case = format!("{} {path} {how}", call.name());
            let name = path.rsplit('/').next().unwrap();
            match read(*call, body.as_bytes()) {
                Ok((3, unread)) => assert!(unread.is_empty(), "{case}"),
                Ok((rows, unread)) => {
                    assert_eq!((rows, unread.len()), (2, 1), "{case}");
                    assert!(unread[0].starts_with("row 2"), "{case}: {}", unread[0]);
                    // A transport without its id is told by what it then has to have.
                    let told = unread[0].contains(&format!("`{name}`")) || unread[0].contains("`method`");
                    assert!(told || unread[0].contains("`a`"), "{case}: {}", unread[0]);
                    unreadable += 1;
                }
                // Another conduit must not be made in place of one that cannot be read.
                Err(error) => {
                    assert!(
                        !matches!(
                            call,
                            Call::GetUsers
                                | Call::GetGrants
                                | Call::GetSubscriptions
                                | Call::GetShards
                                | Call::GetStreams
                                | Call::GetChannels
                        ),
                        "{case}: {error}"
                    );
                    let told = [name, "method", "a"]
                        .iter()
                        .any(|name| error.to_string().contains(&format!("`{name}`")));
                    assert!(told, "{case}: {error}");
                    unreadable += 1;
                }
            }
        }
    }
    assert!(unreadable > 80, "{unreadable}");
}

#[test]
fn an_answer_about_shards_names_each_shard_whatever_its_members_are() {
    let asked: Vec<_> = (0..3).map(|n| (ShardId(n), Transport::Session(SessionId::new("s")))).collect();
    let good = serde_json::json!({"id": "0", "status": "enabled", "transport": {"method": "websocket", "session_id": "s"}});
    let error = serde_json::json!({"id": "1", "message": "not connected", "code": "invalid_parameter"});
    let mut tried = 0;
    for Changed { path, how, row } in changes(&good) {
        let body = serde_json::json!({"data": [row], "errors": [error]}).to_string();
        let bound = parse_bound(&asked, body.as_bytes()).unwrap();
        assert_eq!(bound.len(), 3, "{path} {how}");
        assert_eq!(bound[0].1.is_ok(), path != "/id", "{path} {how}");
        assert_eq!(&*bound[1].1.as_ref().unwrap_err().code, "invalid_parameter");
        tried += 1;
    }
    for Changed { path, how, row } in changes(&error) {
        let body = serde_json::json!({"data": [good], "errors": [row]}).to_string();
        let bound = parse_bound(&asked, body.as_bytes()).unwrap();
        assert_eq!((bound[0].1.is_ok(), bound[1].1.is_ok()), (true, false), "{path} {how}");
        tried += 1;
    }
    assert!(tried > 50, "{tried}");
}

#[test]
fn a_stream_of_which_twitch_is_not_sure_is_neither_live_nor_left_out() {
    let row = |kind: &str| {
        format!(
            r#"{{"data":[{{"id":"5","user_id":"1","user_login":"ann","user_name":"Ann","type":"{kind}","started_at":"2026-11-02T08:15:27Z"}}]}}"#
        )
    };
    let rows = parse_streams(row("live").as_bytes()).unwrap().rows;
    assert_eq!((rows.rows.len(), rows.unread.len()), (1, 0));
    let rows = parse_streams(row("").as_bytes()).unwrap().rows;
    assert_eq!((rows.rows.len(), rows.unread.len()), (0, 1));
}

#[test]
fn nulls_in_an_authorization_are_no_failure() {
    let body = br#"{"data":[
        {"user_id":"1","user_name":null,"user_login":null,"scopes":null,"has_authorized":true},
        {"user_id":"2","scopes":[],"has_authorized":false},
        {"user_id":3,"user_login":"cat","scopes":["a",null]}]}"#;
    let rows = parse_grants(body).unwrap();
    assert!(rows.unread.is_empty());
    let said: Vec<_> = rows
        .rows
        .iter()
        .map(|row| (&*row.user.id, &*row.user.login, row.scopes.len(), row.has_authorized))
        .collect();
    assert_eq!(said, [("1", "", 0, Some(true)), ("2", "", 0, Some(false)), ("3", "cat", 1, None)]);
}

#[test]
fn what_surrounds_the_rows_is_read_leniently_but_never_taken_for_the_end() {
    for (body, rows) in [
        (r#"{"data":null}"#, Ok(0)),
        (r#"{"data":[],"pagination":null,"total_cost":null,"max_total_cost":"x"}"#, Ok(0)),
        (r#"{"data":[null, 1, "x", []]}"#, Ok(0)),
        (r#"{"data":{}}"#, Err("`data` is an object")),
        (r#"{"rows":[]}"#, Err("`data` is missing")),
        (r#"[]"#, Err("it is a list")),
        (r#"<html>"#, Err("is not JSON")),
        (r#"{"data":[],"pagination":"next"}"#, Err("`pagination` is text")),
        (r#"{"data":[],"pagination":{"cursor":{}}}"#, Err("`cursor` is an object")),
    ] {
        match (parse_subscriptions(body.as_bytes()), rows) {
            (Ok(page), Ok(rows)) => assert_eq!(page.rows.rows.len(), rows, "{body}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{body}: {error}"),
            (outcome, _) => panic!("{body}: {outcome:?}"),
        }
    }
    let long = format!(r#"{{"data":[],"pagination":{{"cursor":"{}"}}}}"#, "x".repeat(MAX_CURSOR + 1));
    assert!(parse_subscriptions(long.as_bytes()).is_err());
    let number = parse_subscriptions(br#"{"data":[],"pagination":{"cursor":12},"total_cost":"7"}"#).unwrap();
    assert_eq!((number.cursor.as_deref(), number.rows.total_cost), (Some("12"), 7));
    let asked = [(ShardId(0), Transport::Session(SessionId::new("s")))];
    let bound = parse_bound(&asked, br#"{"data":[{"id":0}],"errors":null}"#).unwrap();
    assert_eq!(bound, [(ShardId(0), Ok(()))]);
    let bound =
        parse_bound(&asked, br#"{"data":null,"errors":[{"id":"0","message":null,"code":3}]}"#).unwrap();
    assert_eq!(&*bound[0].1.as_ref().unwrap_err().code, "3");
}

proptest! {
    #[test]
    fn any_response_is_classified(
        body in prop::collection::vec(any::<u8>(), 0..120)
    ) {
        for call in Call::ALL {
            let _ = rows_in(call, &body);
        }
    }
}
