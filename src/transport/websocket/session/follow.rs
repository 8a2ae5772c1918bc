//! Checks reconnect addresses before they are followed.

use http::Uri;

/// Whether an address from the wire may be connected to: it must be encrypted if the configured one is, and be
/// on the configured host or in the same domain.
pub(super) fn may_follow(base: &Uri, url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let (Some(ours), Some(theirs)) = (base.host(), url.host()) else { return false };
    let scheme_fits = match url.scheme_str() {
        Some("wss") => true,
        Some("ws") => base.scheme_str() == Some("ws"),
        _ => false,
    };
    scheme_fits && (ours.eq_ignore_ascii_case(theirs) || same_domain(ours, theirs))
}

/// Compares the last two labels. IP addresses have no domain.
fn same_domain(ours: &str, theirs: &str) -> bool {
    let is_name = ours.bytes().any(|b| b.is_ascii_alphabetic()) && !ours.contains(':');
    let mut dots = ours.rmatch_indices('.').map(|(at, _)| at + 1);
    let Some(domain) =
        dots.nth(1).and_then(|at| ours.get(at..)).or_else(|| ours.contains('.').then_some(ours))
    else {
        return false;
    };
    let theirs = theirs.to_ascii_lowercase();
    let domain = domain.to_ascii_lowercase();
    is_name && (theirs == domain || theirs.ends_with(&format!(".{domain}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_followed_within_the_domain_and_never_in_the_clear() {
        let base: Uri = "wss://eventsub.wss.twitch.tv/ws".parse().unwrap();
        for (url, fits) in [
            ("wss://cell-b.eventsub.wss.twitch.tv/ws?a=b", true),
            ("wss://EVENTSUB.wss.Twitch.tv/ws", true),
            ("wss://twitch.tv.evil.example/ws", false),
            ("wss://eviltwitch.tv/ws", false),
            ("ws://eventsub.wss.twitch.tv/ws", false),
            ("https://eventsub.wss.twitch.tv/ws", false),
            ("not a url", false),
        ] {
            assert_eq!(may_follow(&base, url), fits, "{url}");
        }
        let local: Uri = "ws://127.0.0.1:8790/ws".parse().unwrap();
        assert!(may_follow(&local, "ws://127.0.0.1:8790/ws?id=1"));
        assert!(!may_follow(&local, "ws://10.0.0.1:8790/ws"));
    }
}
