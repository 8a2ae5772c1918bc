//! Reason for a failed connection, as a sentence: `cannot connect to 127.0.0.1:8080: connection refused`. ◆
//!
//! Libraries wrap the cause several times, each with words of its own. All code that connects outward reports
//! failures with [`cannot_connect`] and [`broke`], and people read the same words everywhere.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};

use super::text::chain;

/// `cannot connect to HOST:PORT[ through PROXY]: REASON`
pub fn cannot_connect(to: &str, through: Option<&str>, error: &(dyn Error + 'static)) -> String {
    format!("cannot connect to {}: {}", place(to, through), reason(error))
}

/// `cannot connect to HOST:PORT: no answer in 10 seconds`
pub fn silent(to: &str, limit: Duration) -> String {
    format!("cannot connect to {to}: no answer in {} seconds", limit.as_secs())
}

/// `the connection to HOST:PORT[ through PROXY] broke: REASON`
pub fn broke(to: &str, through: Option<&str>, error: &(dyn Error + 'static)) -> String {
    format!("the connection to {} broke: {}", place(to, through), reason(error))
}

/// `HOST:PORT[ through PROXY]`
pub fn place(to: &str, through: Option<&str>) -> String {
    through.map_or_else(|| to.to_owned(), |proxy| format!("{to} through {proxy}"))
}

/// Returns a host and a port in the usual form; an IPv6 address gets brackets.
pub fn address(host: &str, port: u16) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Returns the cause of a failed connection in plain words, without the texts of the libraries around it.
pub fn reason(error: &(dyn Error + 'static)) -> String {
    let mut causes: Vec<&(dyn Error + 'static)> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next.take() {
        causes.push(cause);
        // An I/O error does not return the error inside it from `source`.
        let inside = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inside.map(|inside| inside as &(dyn Error + 'static)).or_else(|| cause.source());
        if causes.len() > 16 {
            break;
        }
    }
    // The innermost cause is the most specific one.
    let known = causes.iter().rev().find_map(|cause| known(*cause));
    known.unwrap_or_else(|| without_number(&chain(error)))
}

fn known(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(of_tls(error));
    }
    if let Some(error) = error.downcast_ref::<io::Error>()
        && let Some(words) = of_io(error)
    {
        return Some(words.to_owned());
    }
    let text = error.to_string().to_ascii_lowercase();
    let words = [
        ("name or service not known", "there is no such name in DNS"),
        ("no address associated", "the name has no address in DNS"),
        ("temporary failure in name resolution", "the name cannot be looked up: DNS does not answer"),
        ("failed to lookup address", "the name cannot be looked up in DNS"),
        ("dns error", "the name cannot be looked up in DNS"),
        ("proxy authorization required", "the proxy wants a user and a password"),
        ("proxy response headers too long", "the proxy's answer cannot be read"),
        ("tunnel error: unsuccessful", "the proxy refuses to connect there"),
        ("tunnel error: unexpected end of file", "the proxy closed the connection"),
        ("socks error", "the SOCKS proxy refuses to connect there"),
        ("operation timed out", "no answer in time"),
        ("deadline has elapsed", "no answer in time"),
    ];
    words.iter().find(|(part, _)| text.contains(part)).map(|(_, words)| (*words).to_owned())
}

fn of_io(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset => "the other side reset the connection",
        io::ErrorKind::ConnectionAborted => "the connection was aborted",
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotConnected => {
            "the other side closed the connection"
        }
        io::ErrorKind::TimedOut => "no answer in time",
        io::ErrorKind::NetworkUnreachable => "the network cannot be reached from here",
        io::ErrorKind::HostUnreachable => "there is no route to the host",
        io::ErrorKind::NetworkDown => "the network is down",
        io::ErrorKind::AddrNotAvailable => "this machine has no address to connect from",
        io::ErrorKind::PermissionDenied => "this machine does not permit the connection",
        _ => return None,
    })
}

fn of_tls(error: &rustls::Error) -> String {
    let words = match error {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer => {
                "its certificate is not trusted: no CA certificate of this machine vouches for it"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet: is the clock of this machine right?"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            CertificateError::Revoked => "its certificate was revoked",
            _ => return format!("its certificate cannot be used: {error}"),
        },
        rustls::Error::InvalidMessage(_) => "it does not speak TLS",
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "it speaks no TLS version from 1.2"
        }
        rustls::Error::AlertReceived(_) => return format!("it refuses TLS ({error})"),
        _ => return format!("TLS failed: {error}"),
    };
    words.to_owned()
}

/// Removes `(os error 111)`.
fn without_number(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(start) = text.find(" (os error ") {
        let Some(length) = text[start..].find(')') else { break };
        text.replace_range(start..=start + length, "");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("error sending request")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct Middle(#[source] io::Error);

    fn wrapped(error: io::Error) -> Outer {
        Outer(Middle(error))
    }

    #[test]
    fn the_cause_is_named_once_in_plain_words() {
        let refused = wrapped(io::Error::from_raw_os_error(111));
        let text = cannot_connect("127.0.0.1:8080", None, &refused);
        assert_eq!(text, "cannot connect to 127.0.0.1:8080: connection refused");
        let text = cannot_connect("api.example:443", Some("the proxy 10.0.0.1:3128 (HTTPS_PROXY)"), &refused);
        assert_eq!(
            text,
            "cannot connect to api.example:443 through the proxy 10.0.0.1:3128 (HTTPS_PROXY): connection refused"
        );
        for (error, words) in [
            (io::Error::from_raw_os_error(104), "the other side reset the connection"),
            (io::Error::from_raw_os_error(110), "no answer in time"),
            (io::Error::from_raw_os_error(113), "there is no route to the host"),
            (
                io::Error::other("failed to lookup address information: Name or service not known"),
                "there is no such name in DNS",
            ),
            (
                io::Error::other(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)),
                "its certificate is not trusted: no CA certificate of this machine vouches for it",
            ),
            (
                io::Error::other(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidCcs)),
                "it does not speak TLS",
            ),
        ] {
            assert_eq!(reason(&wrapped(error)), words);
        }
        let strange = wrapped(io::Error::from_raw_os_error(90));
        assert_eq!(reason(&strange), "error sending request: client error (Connect): Message too long");
    }

    #[test]
    fn an_address_has_its_port() {
        assert_eq!(address("example.org", 443), "example.org:443");
        assert_eq!(address("[::1]", 80), "[::1]:80");
        assert_eq!(address("::1", 80), "[::1]:80");
    }
}
