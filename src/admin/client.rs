//! Address of a client, seen through the proxies that `admin.trusted_proxies` names.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// Whether the client speaks TLS with the proxy. `None` if no trusted proxy says so.
    pub(super) is_tls: Option<bool>,
}

impl Client {
    /// Reads the headers if the peer is trusted. The last address that is not a trusted proxy's counts: the client
    /// may have written the ones before it.
    pub(super) fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(&ip));
        if !is_trusted(peer) {
            return Self { address: peer, is_tls: None };
        }
        let mut address = peer;
        for text in last_first(headers, &FORWARDED_FOR) {
            let Some(ip) = parse(text) else { break };
            address = ip;
            if !is_trusted(ip) {
                break;
            }
        }
        let is_tls =
            last_first(headers, &FORWARDED_PROTO).next().map(|proto| proto.eq_ignore_ascii_case("https"));
        Self { address, is_tls }
    }
}

/// Returns the elements of a list header in reverse order. A line that is not text counts as one element.
fn last_first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?")).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim)
}

/// Parses an address, with or without a port.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    bare.parse::<IpAddr>().or_else(|_| with_port()).ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUSTED: &str = "127.0.0.1/32 10.1.0.0/16 2001:db8::/32";

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> Client {
        let trusted: Vec<IpNet> = TRUSTED.split(' ').map(|network| network.parse().unwrap()).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Client::of(peer.parse().unwrap(), &map, &trusted)
    }

    #[test]
    fn the_last_untrusted_address_is_the_client() {
        for (peer, lines, expected) in [
            ("127.0.0.1", &[][..], "127.0.0.1"),
            ("127.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("::ffff:127.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("127.0.0.1", &["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
            ("127.0.0.1", &["203.0.113.9", "192.0.2.1,10.1.2.3"], "192.0.2.1"),
            ("127.0.0.1", &["10.1.2.3, 2001:db8::7"], "10.1.2.3"),
            ("127.0.0.1", &["192.0.2.1:4711"], "192.0.2.1"),
            ("127.0.0.1", &["[2001:db9::1]:4711"], "2001:db9::1"),
            ("127.0.0.1", &["[2001:db9::1]"], "2001:db9::1"),
            ("127.0.0.1", &["::ffff:192.0.2.1"], "192.0.2.1"),
            ("127.0.0.1", &["192.0.2.1, unknown"], "127.0.0.1"),
            ("127.0.0.1", &["192.0.2.1, unknown, 10.1.2.3"], "10.1.2.3"),
            ("127.0.0.1", &["192.0.2.1,"], "127.0.0.1"),
            ("127.0.0.1", &["192.0.2.1", "\u{e9}"], "127.0.0.1"),
            // Headers of a peer that is not trusted do not count.
            ("127.0.0.2", &["192.0.2.1"], "127.0.0.2"),
        ] {
            let headers: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            assert_eq!(client(peer, &headers).address.to_string(), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn a_trusted_proxy_reports_tls() {
        let tls = |peer, headers: &[(&'static str, &str)]| client(peer, headers).is_tls;
        assert_eq!(tls("127.0.0.1", &[("x-forwarded-proto", "https")]), Some(true));
        assert_eq!(tls("127.0.0.1", &[("x-forwarded-proto", "https, http")]), Some(false));
        assert_eq!(tls("127.0.0.1", &[]), None);
        assert_eq!(tls("192.0.2.1", &[("x-forwarded-proto", "https")]), None);
    }
}
