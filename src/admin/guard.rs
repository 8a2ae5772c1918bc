//! Protection against browsers: which requests over TCP are accepted, by their head.
//!
//! Any page that a person visits can make the browser send requests to loopback addresses, and can point a name of
//! its own there (DNS rebinding). Without a token the request therefore has to name this machine, and no request may
//! come from a page of another origin. Plain functions without state.

use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, header};

/// Reason for refusing a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No `Host`, several, or an unreadable one; or a request to a proxy.
    Malformed,
    /// `Host` does not name this machine.
    Host,
    /// The request comes from a page of another origin.
    Origin,
    Method,
}

impl Refusal {
    /// Returns the text of the response.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Malformed => "a request needs one Host header and a path",
            Self::Host => {
                "without admin.token_file the Host must be localhost, a loopback address or the address of admin.listen"
            }
            Self::Origin => "the request comes from a page of another origin",
            Self::Method => {
                "the admin endpoint takes GET, HEAD and POST; commands go through the control socket"
            }
        }
    }
}

/// Checks the head of a request. `listen` is the address of the endpoint if there is no token; with a token, clients
/// may use any name.
pub(super) fn check(head: &Parts, listen: Option<IpAddr>) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (Some(host), None, None) = (hosts.next(), hosts.next(), head.uri.authority()) else {
        return Err(Refusal::Malformed);
    };
    let host = host.to_str().map_err(|_| Refusal::Malformed)?;
    let name = name(host).ok_or(Refusal::Malformed)?;
    if listen.is_some_and(|listen| !names_this_machine(name, listen)) {
        return Err(Refusal::Host);
    }
    if is_foreign(&head.headers, host) {
        return Err(Refusal::Origin);
    }
    match head.method {
        Method::GET | Method::HEAD | Method::POST => Ok(()),
        _ => Err(Refusal::Method),
    }
}

/// Returns the name or address of a `Host`, without brackets and port.
fn name(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let digits = match port {
        "" => "0",
        _ => port.strip_prefix(':')?,
    };
    let right = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    (!name.is_empty() && name.bytes().all(right) && digits.parse::<u16>().is_ok()).then_some(name)
}

/// Accepts any port, because a tunnel may have another one.
fn names_this_machine(name: &str, listen: IpAddr) -> bool {
    let is_ours = |ip: IpAddr| ip.to_canonical().is_loopback() || ip.to_canonical() == listen.to_canonical();
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(is_ours)
}

/// Returns whether the request comes from a page of another origin. Programs send neither header; following a link
/// from elsewhere is allowed.
fn is_foreign(headers: &HeaderMap, host: &str) -> bool {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
    let of_other_origin = |origin: &str| {
        let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    let any = |name: HeaderName, wrong: &dyn Fn(&str) -> bool| {
        headers.get_all(name).iter().any(|value| value.to_str().map_or(true, wrong))
    };
    let is_navigation = headers.get(MODE).is_some_and(|mode| mode == "navigate");
    any(header::ORIGIN, &of_other_origin)
        || !is_navigation && any(SITE, &|site| !matches!(site, "same-origin" | "none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn with(headers: &[(&str, &str)], listen: Option<&str>) -> Result<(), Refusal> {
        check(&head("GET", "/status", headers), listen.map(|ip| ip.parse().unwrap()))
    }

    #[test]
    fn without_a_token_the_host_must_be_this_machine() {
        let host = |host: &str| with(&[("host", host)], Some("127.0.0.1"));
        for good in
            ["localhost", "LocalHost:9464", "127.0.0.1", "127.0.0.1:1", "127.9.9.9:80", "[::1]", "[::1]:9464"]
        {
            assert_eq!(host(good), Ok(()), "{good}");
        }
        for bad in [
            "example.org",
            "example.org:9464",
            "localhost.example.org",
            "127.0.0.1.example.org:9464",
            "127.1",
            "2130706433",
            "0.0.0.0:9464",
            "192.0.2.7",
            "[::2]:9464",
            "localhost.",
            "a.localhost",
        ] {
            assert_eq!(host(bad), Err(Refusal::Host), "{bad}");
        }
        for bad in [
            "",
            ":9464",
            "a@127.0.0.1",
            "127.0.0.1:x",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "127.0.0.1:1:2",
            "[::1",
            "[::1]9464",
            "127.0.0.1/x",
            "127.0.0.1 ",
        ] {
            assert_eq!(host(bad), Err(Refusal::Malformed), "{bad}");
        }
        assert_eq!(with(&[("host", "192.0.2.7:9464")], Some("192.0.2.7")), Ok(()));
        assert_eq!(with(&[("host", "twitch.example.org")], None), Ok(()), "with a token");
    }

    #[test]
    fn a_request_has_one_host_and_a_path() {
        assert_eq!(with(&[], None), Err(Refusal::Malformed));
        assert_eq!(with(&[("host", "localhost"), ("host", "localhost")], None), Err(Refusal::Malformed));
        let proxied = head("GET", "http://localhost/status", &[("host", "localhost")]);
        assert_eq!(check(&proxied, None), Err(Refusal::Malformed));
    }

    #[test]
    fn requests_from_other_origins_are_refused() {
        let from = |headers: &[(&str, &str)]| {
            with(&[&[("host", "localhost:9464")], headers].concat(), Some("127.0.0.1"))
        };
        for good in [
            &[][..],
            &[("origin", "http://localhost:9464")],
            &[("origin", "https://LOCALHOST:9464")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")],
            &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
        ] {
            assert_eq!(from(good), Ok(()), "{good:?}");
        }
        for bad in [
            &[("origin", "null")][..],
            &[("origin", "")],
            &[("origin", "http://localhost")],
            &[("origin", "http://localhost:9465")],
            &[("origin", "http://example.org")],
            &[("origin", "localhost:9464")],
            &[("origin", "http://localhost:9464"), ("origin", "http://example.org")],
            &[
                ("origin", "http://example.org"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
            ],
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
            &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")],
            &[("sec-fetch-site", "cross-site")],
        ] {
            assert_eq!(from(bad), Err(Refusal::Origin), "{bad:?}");
        }
    }

    #[test]
    fn only_reading_methods_and_forms_are_accepted() {
        for (method, outcome) in [
            ("GET", Ok(())),
            ("HEAD", Ok(())),
            ("POST", Ok(())),
            ("PUT", Err(Refusal::Method)),
            ("DELETE", Err(Refusal::Method)),
            ("OPTIONS", Err(Refusal::Method)),
            ("CONNECT", Err(Refusal::Method)),
            ("TRACE", Err(Refusal::Method)),
            ("FOO", Err(Refusal::Method)),
        ] {
            let uri = if method == "CONNECT" { "/" } else { "/reload" };
            assert_eq!(check(&head(method, uri, &[("host", "localhost")]), None), outcome, "{method}");
        }
    }
}
