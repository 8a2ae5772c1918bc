use proptest::prelude::*;

use super::*;

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

proptest! {
    #[test]
    fn any_answer_is_understood_somehow(
        body in prop::collection::vec(any::<u8>(), 0..120)
    ) {
        let _ = parse_subscriptions(&body);
        let _ = parse_created(&body);
        let _ = parse_shards(&body);
        let _ = parse_bound(&[(ShardId(0), Transport::Session(SessionId::new("s")))], &body);
    }
}
