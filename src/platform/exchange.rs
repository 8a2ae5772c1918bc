//! One HTTP request, read whole, and its answer. ◆

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;

/// A request of a client.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: Vec<(String, String)>,
    /// The header `Client-Id`.
    pub client_id: Option<String>,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    pub body: Bytes,
}

impl Call {
    /// The first value of a field of the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The media type of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    Json,
    Html,
}

/// An answer before it is sent.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub content_type: ContentType,
    /// No content type is sent with an empty one.
    pub body: String,
}

impl Answer {
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).expect("answers have string keys and finite numbers");
        Self { status, headers: Vec::new(), content_type: ContentType::Json, body }
    }

    pub fn html(status: u16, body: String) -> Self {
        Self { status, headers: Vec::new(), content_type: ContentType::Html, body }
    }

    pub fn empty(status: u16) -> Self {
        Self::html(status, String::new())
    }

    /// An error in the API's form.
    pub fn error(status: u16, message: &str) -> Self {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a str,
            status: u16,
            message: &'a str,
        }
        let error = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error");
        Self::json(status, &Body { error, status, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_twitchs_members_in_twitchs_order() {
        let answer = Answer::error(409, "a \"b\"");
        assert_eq!(answer.body, r#"{"error":"Conflict","status":409,"message":"a \"b\""}"#);
    }
}
