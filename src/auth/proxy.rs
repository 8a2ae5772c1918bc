//! Choice of a proxy: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` with curl's meaning. This machine
//! itself is never reached through a proxy.
//!
//! The value of a variable may contain a password, so messages have the variable's name and the proxy's address only.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use crate::model::connect::address;
use crate::model::secret::Secret;

/// Variables by scheme; the first one that is set counts.
const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];
const NO: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// Set by web servers for CGI programs, for which `HTTP_PROXY` is a header of the request.
const CGI: &str = "REQUEST_METHOD";

/// The value of a variable is not the address of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the environment variable {variable} is not the address of a proxy; write for example `http://proxy.example:3128` \
     or `socks5h://proxy.example:1080`, or unset it"
)]
pub struct ProxyError {
    pub variable: &'static str,
}

/// A proxy, and the variable that names it.
#[derive(Clone)]
pub struct Proxy {
    variable: &'static str,
    intercept: Intercept,
    /// Address with user and password, for the HTTP client.
    url: Secret,
}

impl Proxy {
    fn new(variable: &'static str, value: &str) -> Result<Self, ProxyError> {
        let wrong = || ProxyError { variable };
        let matcher = Matcher::builder().all(value).build();
        let intercept = matcher.intercept(&Uri::from_static("http://proxied.invalid/")).ok_or_else(wrong)?;
        let url = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        reqwest::Url::parse(&url).map_err(|_| wrong())?;
        let proxy = Self { variable, intercept, url: Secret::new(url) };
        if proxy.host().is_empty() {
            return Err(wrong());
        }
        Ok(proxy)
    }

    pub fn scheme(&self) -> &str {
        self.intercept.uri().scheme_str().unwrap_or("http")
    }

    pub fn host(&self) -> &str {
        self.intercept.uri().host().unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.intercept.uri().port_u16().unwrap_or(match self.scheme() {
            "http" => 80,
            "https" => 443,
            _ => 1080,
        })
    }

    /// Returns Basic credentials for an HTTP proxy.
    pub(super) fn basic_auth(&self) -> Option<&http::HeaderValue> {
        self.intercept.basic_auth()
    }

    /// Returns user and password for a SOCKS proxy.
    pub(super) fn user(&self) -> Option<(&str, &str)> {
        self.intercept.raw_auth()
    }

    /// Returns the address without user and password, always with its port.
    pub(super) fn uri(&self) -> Option<Uri> {
        let authority = address(self.host(), self.port());
        Uri::builder().scheme(self.scheme()).authority(authority).path_and_query("/").build().ok()
    }

    /// Returns the address for the HTTP client, with its port.
    pub(super) fn url(&self) -> Option<reqwest::Url> {
        let mut url = reqwest::Url::parse(self.url.expose()).ok()?;
        if url.port().is_none() && !matches!(self.scheme(), "http" | "https") {
            url.set_port(Some(self.port())).ok()?;
        }
        Some(url)
    }
}

impl fmt::Display for Proxy {
    /// `the proxy 10.0.0.1:3128 (HTTPS_PROXY)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {} ({})", address(self.host(), self.port()), self.variable)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Proxies for all connections.
#[derive(Clone, Default)]
pub struct Proxies(Option<Arc<Rules>>);

struct Rules {
    http: Option<Proxy>,
    https: Option<Proxy>,
    /// Implements `NO_PROXY`.
    matcher: Matcher,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

impl Proxies {
    /// Reads the environment.
    ///
    /// # Errors
    /// The value of a variable is not a proxy: connecting without it would bypass a proxy that was set up.
    pub fn from_environment() -> Result<Self, ProxyError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads variables through `get`.
    ///
    /// # Errors
    /// As [`Self::from_environment`].
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        if get(CGI).is_some() {
            return Ok(Self::default());
        }
        let first = |names: [&'static str; 2]| {
            let set = names.into_iter().find_map(|name| Some((name, get(name)?)));
            set.filter(|(_, value)| !value.trim().is_empty())
        };
        let proxy = |names| match first(names) {
            Some((name, value)) => Proxy::new(name, value.trim()).map(Some),
            None => Ok(None),
        };
        let all = proxy(ALL)?;
        let (http, https) = (proxy(HTTP)?.or_else(|| all.clone()), proxy(HTTPS)?.or(all));
        if http.is_none() && https.is_none() {
            return Ok(Self::default());
        }
        let no = first(NO).map(|(_, value)| value).unwrap_or_default();
        let matcher = Matcher::builder().all("http://any.invalid").no(no).build();
        Ok(Self(Some(Arc::new(Rules { http, https, matcher }))))
    }

    /// Returns the proxy for an address; `ws` counts as `http`, `wss` and all other schemes as `https`.
    pub fn of(&self, scheme: &str, host: &str) -> Option<&Proxy> {
        let rules = self.0.as_deref()?;
        let proxy = if matches!(scheme, "http" | "ws") { &rules.http } else { &rules.https }.as_ref()?;
        if is_this_machine(host) {
            return None;
        }
        let target: Uri = format!("http://{host}/").parse().ok()?;
        rules.matcher.intercept(&target).map(|_| proxy)
    }

    /// Returns the proxy for a URL.
    pub fn of_url(&self, url: &reqwest::Url) -> Option<&Proxy> {
        self.of(url.scheme(), url.host_str()?)
    }

    /// Returns every proxy that is set, once.
    pub fn all(&self) -> impl Iterator<Item = &Proxy> {
        let rules = self.0.as_deref();
        let http = rules.and_then(|rules| rules.http.as_ref());
        let https = rules.and_then(|rules| rules.https.as_ref());
        let same = http.zip(https).is_some_and(|(http, https)| http.variable == https.variable);
        https.into_iter().chain(http.filter(move |_| !same))
    }
}

/// Returns whether a host is this machine, by name or address. A proxy elsewhere would connect to itself instead.
fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        Proxies::from_variables(|wanted| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        })
    }

    fn shown(variables: &[(&str, &str)], scheme: &str, host: &str) -> Option<String> {
        proxies(variables).unwrap().of(scheme, host).map(ToString::to_string)
    }

    #[test]
    fn variables_have_curls_meaning() {
        let https = ("HTTPS_PROXY", "http://me:s3cretpass@proxy.example:3128");
        let named = Some("the proxy proxy.example:3128 (HTTPS_PROXY)".to_owned());
        for (variables, scheme, host, expected) in [
            (&[https][..], "https", "api.twitch.tv", named.clone()),
            (&[https], "wss", "eventsub.wss.twitch.tv", named),
            (&[https], "http", "api.twitch.tv", None),
            (&[https], "ws", "api.twitch.tv", None),
            (&[https, ("NO_PROXY", "twitch.tv")], "wss", "eventsub.wss.twitch.tv", None),
            (&[https, ("no_proxy", "10.0.0.0/8, other")], "https", "10.1.2.3", None),
            (&[https, ("NO_PROXY", "*")], "https", "api.twitch.tv", None),
            (&[https, ("REQUEST_METHOD", "GET")], "https", "api.twitch.tv", None),
            (&[("HTTPS_PROXY", "")], "https", "api.twitch.tv", None),
            (&[https], "https", "localhost", None),
            (&[https], "https", "127.8.9.1", None),
            (&[https], "https", "[::1]", None),
            (&[https], "https", "[::ffff:127.0.0.1]", None),
            (
                &[("all_proxy", "socks5h://10.0.0.1")],
                "ws",
                "x.example",
                Some("the proxy 10.0.0.1:1080 (all_proxy)".to_owned()),
            ),
            (
                &[("http_proxy", "proxy"), ("ALL_PROXY", "https://other")],
                "http",
                "x.example",
                Some("the proxy proxy:80 (http_proxy)".to_owned()),
            ),
            (
                &[("http_proxy", "proxy"), ("ALL_PROXY", "https://other")],
                "https",
                "x.example",
                Some("the proxy other:443 (ALL_PROXY)".to_owned()),
            ),
        ] {
            assert_eq!(shown(variables, scheme, host), expected, "{variables:?} {scheme} {host}");
        }
    }

    #[test]
    fn an_invalid_proxy_is_refused_without_quoting_it() {
        for value in ["ftp://me:s3cretpass@x", "http://", "s3cretpass s3cretpass", "http://me:s3cretpass@"] {
            let error = proxies(&[("HTTPS_PROXY", value)]).expect_err(value).to_string();
            assert!(error.contains("HTTPS_PROXY") && !error.contains("s3cretpass"), "{error}");
        }
        let all = proxies(&[("ALL_PROXY", "http://me:s3cretpass@x")]).unwrap();
        assert_eq!(format!("{all:?}"), "[the proxy x:80 (ALL_PROXY)]");
    }
}
