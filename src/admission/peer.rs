//! Whom a connection belongs to, as far as the network tells.

use std::fmt;
use std::net::IpAddr;

/// The other end of a connection. Clients on one IPv6 network of 64 bits count as one, since whoever has one of
/// its addresses can use them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// An IPv4 address, or the first address of an IPv6 network.
    Network(IpAddr),
    /// A Unix socket.
    Local,
}

impl Peer {
    pub fn of(address: IpAddr) -> Self {
        Self::Network(match address.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
            ip => ip,
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(ip @ IpAddr::V4(_)) => ip.fmt(f),
            Self::Network(network) => write!(f, "{network}/64"),
            Self::Local => f.write_str("a Unix socket"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_counts_as_one_peer() {
        let peer = |text: &str| Peer::of(text.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:192.0.2.7"), peer("192.0.2.7"));
        assert_ne!(peer("192.0.2.7"), peer("192.0.2.8"));
        assert_eq!(peer("2001:db8::7").to_string(), "2001:db8::/64");
        assert_eq!(peer("192.0.2.7").to_string(), "192.0.2.7");
    }
}
