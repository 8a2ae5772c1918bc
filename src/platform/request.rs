//! Requests of the EventSub endpoints, read from query and body (Twitch: "Create EventSub Subscription" and its
//! neighbours in the reference). ◆

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::exchange::{Answer, Call};
use super::status;

/// Shards of one conduit.
const MAX_SHARDS: u32 = 20_000;
/// Shards in one update.
const MAX_UPDATES: usize = 100;

fn bad(message: &str) -> Answer {
    Answer::error(400, message)
}

/// The body as JSON; an empty object if there is none.
fn body<T: DeserializeOwned>(call: &Call, message: &str) -> Result<T, Answer> {
    let text: &[u8] = if call.body.is_empty() { b"{}" } else { &call.body };
    serde_json::from_slice(text).map_err(|_| bad(message))
}

/// The body of Create EventSub Subscription. It may hold a secret.
#[derive(Deserialize)]
pub struct CreateRequest {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub condition: Map<String, Value>,
    #[serde(default)]
    pub transport: TransportRequest,
    #[serde(default)]
    pub is_batching_enabled: Option<bool>,
}

/// A transport that a client names. It may hold a secret.
#[derive(Default, Deserialize)]
pub struct TransportRequest {
    #[serde(default)]
    pub method: String,
    #[serde(default)]
    pub conduit_id: Option<String>,
    #[serde(default)]
    pub callback: Option<String>,
    #[serde(default)]
    pub session_id: Option<String>,
    #[serde(default)]
    pub secret: Option<String>,
}

impl CreateRequest {
    /// # Errors
    /// 400: the body is not of this form.
    pub fn parse(call: &Call) -> Result<Self, Answer> {
        let request: Self =
            serde_json::from_slice(&call.body).map_err(|e| bad(&format!("invalid body: {e}")))?;
        for (name, value) in [("type", &request.kind), ("version", &request.version)] {
            if value.is_empty() {
                return Err(bad(&format!("missing field: {name}")));
            }
        }
        Ok(request)
    }
}

/// The one filter of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    Status(String),
    Type(String),
    User(String),
    Subscription(String),
    Conduit(String),
}

/// The query of Get EventSub Subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRequest {
    pub filter: Option<Filter>,
    /// The last row of the page before.
    pub after: u64,
}

impl ListRequest {
    /// # Errors
    /// 400: more than one filter, or a bad value.
    pub fn parse(call: &Call) -> Result<Self, Answer> {
        let mut filters = call.query.iter().filter_map(|(name, value)| {
            let value = value.clone();
            Some(match name.as_str() {
                "status" => Filter::Status(value),
                "type" => Filter::Type(value),
                "user_id" => Filter::User(value),
                "subscription_id" => Filter::Subscription(value),
                "conduit_id" => Filter::Conduit(value),
                _ => return None,
            })
        });
        let filter = filters.next();
        if filters.next().is_some() {
            return Err(bad("only one filter may be specified"));
        }
        if let Some(Filter::Status(text)) = &filter
            && !status::is_subscription_status(text)
        {
            return Err(bad("invalid status"));
        }
        check_first(call)?;
        Ok(Self { filter, after: after(call)? })
    }
}

/// The page size is fixed; a value out of range is an error all the same.
fn check_first(call: &Call) -> Result<(), Answer> {
    let is_good = |text: &str| text.parse::<u32>().is_ok_and(|first| (10..=100).contains(&first));
    match call.query("first") {
        Some(text) if !is_good(text) => Err(bad("first must be between 10 and 100")),
        _ => Ok(()),
    }
}

fn after(call: &Call) -> Result<u64, Answer> {
    let Some(text) = call.query("after").filter(|text| !text.is_empty()) else { return Ok(0) };
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let number =
        bytes.as_deref().and_then(|text| text.strip_prefix("after:")).and_then(|text| text.parse().ok());
    number.ok_or_else(|| bad("invalid cursor"))
}

/// The cursor of the page after this row.
pub fn cursor(last: u64) -> String {
    URL_SAFE_NO_PAD.encode(format!("after:{last}"))
}

/// Query or body of Create Conduits and Update Conduits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConduitRequest {
    pub id: Option<String>,
    pub shard_count: u32,
}

impl ConduitRequest {
    /// # Errors
    /// 400: no shard count between 1 and 20,000.
    pub fn parse(call: &Call) -> Result<Self, Answer> {
        #[derive(Deserialize)]
        struct Body {
            id: Option<String>,
            shard_count: Option<u32>,
        }
        let invalid = "invalid shard count";
        let body: Body = body(call, invalid)?;
        let from_query = || call.query("shard_count").and_then(|text| text.parse().ok());
        let shard_count =
            body.shard_count.or_else(from_query).filter(|count| (1..=MAX_SHARDS).contains(count));
        Ok(Self {
            id: body.id.or_else(|| call.query("id").map(str::to_owned)),
            shard_count: shard_count.ok_or_else(|| bad(invalid))?,
        })
    }
}

/// The query of Get Conduit Shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardListRequest {
    pub conduit_id: String,
    pub status: Option<String>,
    /// The first shard that is not on the page before.
    pub from: u32,
}

impl ShardListRequest {
    /// # Errors
    /// 400: no conduit, or a bad value.
    pub fn parse(call: &Call) -> Result<Self, Answer> {
        let conduit_id = call.query("conduit_id").filter(|id| !id.is_empty());
        let conduit_id = conduit_id.ok_or_else(|| bad("The conduit_id query parameter is required"))?;
        let status = call.query("status").filter(|text| !text.is_empty());
        if status.is_some_and(|text| !status::is_shard_status(text)) {
            return Err(bad("invalid status"));
        }
        let from = u32::try_from(after(call)?).map_err(|_| bad("invalid cursor"))?;
        Ok(Self { conduit_id: conduit_id.to_owned(), status: status.map(str::to_owned), from })
    }
}

/// Query and body of Update Conduit Shards. It may hold secrets.
pub struct ShardUpdates {
    pub conduit_id: String,
    pub shards: Vec<ShardUpdate>,
}

/// The transport that a shard shall have.
#[derive(Deserialize)]
pub struct ShardUpdate {
    pub id: String,
    #[serde(default)]
    pub transport: TransportRequest,
}

impl ShardUpdates {
    /// # Errors
    /// 400: no conduit, or not 1 to 100 shards.
    pub fn parse(call: &Call) -> Result<Self, Answer> {
        #[derive(Deserialize)]
        struct Body {
            conduit_id: Option<String>,
            #[serde(default)]
            shards: Vec<ShardUpdate>,
        }
        let missing = "conduit_id and shards are required";
        let body: Body = body(call, missing)?;
        let conduit_id = body.conduit_id.or_else(|| call.query("conduit_id").map(str::to_owned));
        let conduit_id = conduit_id.filter(|id| !id.is_empty()).ok_or_else(|| bad(missing))?;
        if body.shards.is_empty() || body.shards.len() > MAX_UPDATES {
            return Err(bad("the number of shards must be between 1 and 100"));
        }
        Ok(Self { conduit_id, shards: body.shards })
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;

    fn call(query: &str, body: &str) -> Call {
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Call {
            method: Method::POST,
            path: "/".to_owned(),
            query,
            client_id: None,
            authorization: None,
            body: body.to_owned().into(),
        }
    }

    #[test]
    fn conduits_are_named_in_the_body_or_in_the_query() {
        for (query, body) in [("", r#"{"id":"c","shard_count":5}"#), ("id=c&shard_count=5", "")] {
            let request = ConduitRequest::parse(&call(query, body)).expect("good");
            assert_eq!(request, ConduitRequest { id: Some("c".to_owned()), shard_count: 5 });
        }
        for (query, body) in [("", ""), ("shard_count=0", ""), ("", r#"{"shard_count":20001}"#), ("", "x")] {
            assert_eq!(ConduitRequest::parse(&call(query, body)).expect_err("refused").status, 400);
        }
        let shards = r#""shards":[{"id":"0","transport":{"method":"websocket","session_id":"s"}}]"#;
        for (query, body) in
            [("", format!(r#"{{"conduit_id":"c",{shards}}}"#)), ("conduit_id=c", format!("{{{shards}}}"))]
        {
            let Ok(request) = ShardUpdates::parse(&call(query, &body)) else { panic!("{body}") };
            assert_eq!((request.conduit_id.as_str(), request.shards.len()), ("c", 1));
        }
        let many = format!("[{}]", vec![r#"{"id":"0"}"#; 101].join(","));
        for body in [
            r#"{"conduit_id":"c","shards":[]}"#.to_owned(),
            format!(r#"{{"conduit_id":"c","shards":{many}}}"#),
        ] {
            assert!(ShardUpdates::parse(&call("", &body)).is_err());
        }
    }

    #[test]
    fn a_list_takes_one_known_filter() {
        let parse = |query: &str| ListRequest::parse(&call(query, "")).map_err(|answer| answer.status);
        let all = ListRequest { filter: None, after: 0 };
        assert_eq!(parse("first=100&unknown=1"), Ok(all));
        let enabled = Filter::Status("enabled".to_owned());
        assert_eq!(parse("status=enabled").map(|list| list.filter), Ok(Some(enabled)));
        for query in ["status=foo", "type=a&user_id=1", "after=x", "first=9", "first=101", "first=x"] {
            assert_eq!(parse(query), Err(400), "{query}");
        }
        assert_eq!(parse(&format!("after={}", cursor(7))).map(|list| list.after), Ok(7));
        let shards = |query: &str| ShardListRequest::parse(&call(query, "")).map_err(|answer| answer.status);
        assert_eq!(shards("conduit_id=c&status=user_removed"), Err(400), "of subscriptions only");
        assert_eq!(shards("status=enabled"), Err(400));
        assert!(shards("conduit_id=c&status=enabled").is_ok());
    }

    proptest! {
        #[test]
        fn no_request_makes_a_parser_panic(query in ".{0,60}", body in ".{0,80}") {
            let call = call(&query, &body);
            let _ = (CreateRequest::parse(&call).is_ok(), ConduitRequest::parse(&call).is_ok());
            let _ = (ListRequest::parse(&call).is_ok(), ShardUpdates::parse(&call).is_ok());
            let _ = ShardListRequest::parse(&call).is_ok();
        }
    }
}
