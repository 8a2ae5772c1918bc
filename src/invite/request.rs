//! Requests to the page, read. ◆

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request, Response};

use super::visits::is_state;
use crate::model::secret::Secret;

/// An answer to a browser.
pub type Answer = Response<Bytes>;

/// The longest query and the longest form that are looked at, in bytes.
pub(super) const MAX_FORM: usize = 4 << 10;
/// The longest code that is sent to Twitch, in bytes. Twitch's have 30.
const MAX_CODE: usize = 512;
/// Names of cookies begin with this; the beginning of the state follows, so that visits in two tabs stay apart.
const COOKIE: &str = "eventsubd-authorize-";
const COOKIE_DIGITS: usize = 8;

/// The meaning of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Show what is asked for.
    Show { invite: Option<String> },
    /// Go on to Twitch.
    Begin { invite: String },
    /// The browser comes back from Twitch.
    Return(Returned),
}

/// A return from Twitch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    pub(super) state: String,
    pub(super) cookie: Option<String>,
    /// `None` if the user has declined.
    pub(super) code: Option<Secret>,
}

/// Reads a request. `origin` is that of the redirect URI. `None` if it is not one of this page's.
pub(super) fn read(request: &Request<Bytes>, origin: &str) -> Option<Asked> {
    let query = request.uri().query().unwrap_or_default();
    if query.len() > MAX_FORM || request.body().len() > MAX_FORM {
        return None;
    }
    match *request.method() {
        Method::GET | Method::HEAD => returned(query, request.headers()).map(|returned| {
            returned.map_or_else(|| Asked::Show { invite: value(query.as_bytes(), "invite") }, Asked::Return)
        }),
        Method::POST if is_own(request.headers(), origin) => {
            value(request.body(), "invite").map(|invite| Asked::Begin { invite })
        }
        _ => None,
    }
}

fn value(form: &[u8], name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(form);
    pairs.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
}

/// The outer `None` means that the query makes no sense, the inner one that it is not a return.
#[allow(clippy::option_option, reason = "the two are documented")]
fn returned(query: &str, headers: &HeaderMap) -> Option<Option<Returned>> {
    let of = |name| value(query.as_bytes(), name);
    let (code, error) = (of("code"), of("error"));
    if code.is_none() && error.is_none() {
        return Some(None);
    }
    let state = of("state").filter(|state| is_state(state))?;
    let code = match (code, error) {
        (Some(code), None) if code.len() <= MAX_CODE => Some(Secret::new(code)),
        (None, Some(_)) => None,
        _ => return None,
    };
    let name = cookie_name(&state);
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let cookie = pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    Some(Some(Returned { state, cookie, code }))
}

/// The name of the cookie of a visit.
pub(super) fn cookie_name(state: &str) -> String {
    let digits: String = state.chars().take(COOKIE_DIGITS).collect();
    format!("{COOKIE}{digits}")
}

/// Whether a form was sent from our own page. Programs send neither header.
fn is_own(headers: &HeaderMap, origin: &str) -> bool {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let all = |name: HeaderName, right: &dyn Fn(&str) -> bool| {
        headers.get_all(name).iter().all(|value| value.to_str().is_ok_and(right))
    };
    all(header::ORIGIN, &|from| from.eq_ignore_ascii_case(origin)) && all(SITE, &|site| site == "same-origin")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATE: &str = "0123456789abcdef0123456789abcdef";
    const ORIGIN: &str = "https://a.example";

    fn ask(method: &str, query: &str, headers: &[(&str, &str)], body: &str) -> Option<Asked> {
        let mut request = Request::builder().method(method).uri(format!("/authorize{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(&request.body(Bytes::from(body.to_owned())).unwrap(), ORIGIN)
    }

    #[test]
    fn requests_are_read() {
        assert_eq!(ask("GET", "", &[], ""), Some(Asked::Show { invite: None }));
        assert_eq!(ask("HEAD", "?invite=a.b", &[], ""), Some(Asked::Show { invite: Some("a.b".to_owned()) }));
        let own = [("origin", ORIGIN), ("sec-fetch-site", "same-origin")];
        let begin = Some(Asked::Begin { invite: "a.b".to_owned() });
        assert_eq!(ask("POST", "", &own, "invite=a.b"), begin);
        assert_eq!(ask("POST", "?invite=x", &[], "invite=a.b"), begin);
        assert_eq!(ask("POST", "", &own, ""), None);
        for foreign in [("origin", "https://b.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
        {
            assert_eq!(ask("POST", "", &[foreign], "invite=a.b"), None, "{foreign:?}");
        }
        assert_eq!(ask("PUT", "", &[], "invite=a.b"), None);
        assert_eq!(ask("POST", "", &[], &format!("invite={}", "x".repeat(MAX_FORM))), None);
        assert_eq!(ask("GET", &format!("?invite={}", "x".repeat(MAX_FORM)), &[], ""), None);
    }

    #[test]
    fn returns_from_twitch_are_read() {
        let name = cookie_name(STATE);
        let cookie = format!("other=1; {name}=c00kie; {name}=second");
        let back = |query: &str| ask("GET", query, &[("cookie", &cookie)], "");
        let returned = |code: Option<&str>| {
            Some(Asked::Return(Returned {
                state: STATE.to_owned(),
                cookie: Some("c00kie".to_owned()),
                code: code.map(Secret::new),
            }))
        };
        assert_eq!(back(&format!("?code=xyz&scope=a%3Ab&state={STATE}")), returned(Some("xyz")));
        assert_eq!(back(&format!("?error=access_denied&state={STATE}")), returned(None));
        for bad in [
            "?code=xyz".to_owned(),
            "?code=xyz&state=short".to_owned(),
            format!("?code=xyz&error=access_denied&state={STATE}"),
            format!("?code={}&state={STATE}", "x".repeat(MAX_CODE + 1)),
        ] {
            assert_eq!(back(&bad), None, "{bad}");
        }
        let without = ask("GET", &format!("?code=xyz&state={STATE}"), &[("cookie", "a=b")], "");
        assert!(matches!(without, Some(Asked::Return(Returned { cookie: None, .. }))), "{without:?}");
        assert!(!format!("{:?}", back(&format!("?code=xyz&state={STATE}"))).contains("xyz"));
    }

    proptest! {
        #[test]
        fn any_query_and_body_are_read(query in "[ -~]{0,200}", body in prop::collection::vec(any::<u8>(), 0..200)) {
            for method in ["GET", "POST"] {
                let uri = format!("/authorize?{}", query.replace(['#', ' ', '<', '>', '"', '`', '{', '}', '\\', '^', '|'], ""));
                let Ok(request) = Request::builder().method(method).uri(uri).body(Bytes::from(body.clone())) else { continue };
                let asked = read(&request, ORIGIN);
                prop_assert!(method == "GET" || !matches!(asked, Some(Asked::Return(_))));
            }
        }
    }
}
