//! The URLs of Twitch, or of what stands in for it.

use std::net::IpAddr;

use crate::config::report::diagnostic::quote;
use crate::config::report::problems::Complaint;

/// Checks an absolute URL. `schemes` are the encrypted one and the other one; the client secret
/// and tokens travel there, so the other one is for this machine only.
pub(in crate::config) fn check(path: &str, text: &str, schemes: [&str; 2]) -> Result<(), Complaint> {
    let [secure, open] = schemes;
    let url = reqwest::Url::parse(text).map_err(|error| {
        Complaint::new(
            format!("`{path}` is not a valid URL: {error}"),
            format!("it is written \"{secure}://host/path\""),
        )
    })?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Complaint::new(
            format!("`{path}` holds a user name or a password"),
            "the client secret has keys of its own",
        ));
    }
    if url.scheme() != secure && url.scheme() != open {
        return Err(Complaint::new(
            format!("`{path}` must begin with {secure}://, not {}", quote(&format!("{}:", url.scheme()))),
            format!("plain {open}:// is for this machine only: localhost, 127.0.0.0/8 and [::1]"),
        ));
    }
    let host = url.host_str().unwrap_or_default();
    if host.is_empty() {
        return Err(Complaint { message: format!("`{path}` names no host"), hint: None });
    }
    if url.scheme() == open && !is_loopback(host) {
        return Err(Complaint::new(
            format!("`{path}` must begin with {secure}://, since {} is not this machine", quote(host)),
            "the client secret and tokens travel there, and must be encrypted",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Complaint::new(
            format!("`{path}` must end with its path"),
            "leave out what begins with `?` or `#`",
        ));
    }
    Ok(())
}

/// Returns whether the host of a URL is this machine.
pub(in crate::config) fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Returns whether a URL that has passed its check leads to this machine.
pub(in crate::config) fn of_this_machine(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| url.host_str().is_some_and(is_loopback))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_for_this_machine_only() {
        let http = |text| check("twitch.api_url", text, ["https", "http"]).is_ok();
        for good in [
            "https://api.twitch.tv/helix",
            "https://192.0.2.1:8443",
            "http://localhost:8080/helix",
            "http://127.0.0.1:1/x",
            "http://127.8.9.1/x",
            "http://[::1]:8080/",
        ] {
            assert!(http(good), "{good}");
        }
        for bad in [
            "http://api.twitch.tv/helix",
            "http://localhost.example.org/",
            "http://127.0.0.1.example.org/",
            "http://[::2]/",
            "http://0.0.0.0/",
            "wss://api.twitch.tv",
            "https://user@host/",
            "https://host/?a=b",
            "https://host/#a",
            "https://",
            "file:///etc/passwd",
            "/helix",
            "",
        ] {
            assert!(!http(bad), "{bad}");
        }
        assert!(check("x", "ws://localhost:1/ws", ["wss", "ws"]).is_ok());
        assert!(check("x", "https://localhost:1/ws", ["wss", "ws"]).is_err());
    }
}
