//! Recognition of secrets in the values of a configuration, and the parts of values that may be shown.
//!
//! Pure. Errs on the side of caution: a value that is taken for a secret costs a `chmod`, or a look into the file; one
//! that is not costs the secret.

use crate::model::catalog;
use crate::model::event::GAP;

use super::diagnostic::{closest, quote};

/// From this length on a word of letters and digits is taken for a secret.
const LONG: usize = 20;
/// Shortest such word of upper and lower case letters and digits, which nobody types.
const LONG_MIXED: usize = 12;
/// Parts of names of keys, members, flags and parameters whose values are secrets.
const NAMES: [&str; 12] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "accesskey",
    "authorization",
    "bearer",
    "credential",
    "signature",
    "sessionid",
];
/// Words that name a secret if they are the whole name.
const WHOLE_NAMES: [&str; 6] = ["auth", "pass", "pwd", "sig", "key", "pin"];
/// Words of the names that files with secrets have.
const FILE_WORDS: [&str; 22] = [
    "secret",
    "secrets",
    "token",
    "tokens",
    "key",
    "keys",
    "cert",
    "chain",
    "fullchain",
    "privkey",
    "pem",
    "crt",
    "cred",
    "creds",
    "credentials",
    "headers",
    "header",
    "client",
    "webhook",
    "txt",
    "toml",
    "channels",
];
/// Folders that absolute paths begin with.
const ROOTS: [&str; 14] = [
    "etc", "var", "run", "home", "root", "opt", "srv", "usr", "tmp", "mnt", "media", "data", "nix", "config",
];

/// Returns whether a text is a path, or the usual name of a file, rather than a secret in the place of one.
pub(in crate::config) fn reads_like_a_path(text: &str) -> bool {
    let mut parts = text.split('/').filter(|part| !matches!(*part, "" | "." | ".." | "~")).peekable();
    let rooted = text.strip_prefix('/').is_some_and(|rest| {
        let first = rest.split('/').next().unwrap_or_default();
        ROOTS.contains(&first) && rest.len() > first.len()
    });
    let folders = text.starts_with("./") || text.starts_with("../") || text.starts_with("~/") || rooted;
    if parts.peek().is_none() {
        return false;
    }
    let plain = parts.clone().all(|part| words(part).all(is_plain_word));
    let known = || parts.clone().any(|part| words(part).any(|word| FILE_WORDS.contains(&word)));
    plain && (folders || known())
}

fn words(part: &str) -> impl Iterator<Item = &str> {
    part.split(['.', '_', '-', ' ', '@'])
}

/// A word as people write it: letters of one case but for the first, and perhaps a short number behind them.
fn is_plain_word(word: &str) -> bool {
    let letters = word.trim_end_matches(|c: char| c.is_ascii_digit());
    if letters.is_empty() {
        return word.len() <= 5;
    }
    let rest = letters.strip_prefix(|c: char| c.is_ascii_uppercase()).unwrap_or(letters);
    letters.len() <= 16
        && word.len() - letters.len() <= 4
        && (rest.bytes().all(|b| b.is_ascii_lowercase()) || letters.bytes().all(|b| b.is_ascii_uppercase()))
}

/// Returns whether the text is short and made of plain words, such as the name of a program or of a level.
pub(in crate::config) fn is_plain_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 32 && text.split(['.', '_', '-', '/', '+', '*', ':']).all(is_plain_word)
}

/// Returns whether a text may be a glob of subscription types, and nothing that has to be hidden.
pub(in crate::config) fn is_type_glob(text: &str) -> bool {
    let family = |name: &'static str| name.split('.').next().unwrap_or_default();
    let first = text.split(['.', '*', '?', '[', '{']).next().unwrap_or_default();
    let known =
        first.is_empty() || first == family(GAP) || catalog::names().any(|name| family(name) == first);
    let signs =
        text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.*?{},[]!-".contains(&b));
    known && signs && !text.split(['.', ',', '{', '}']).any(is_opaque)
        || closest(text, catalog::names()).is_some()
}

/// A value of the user within a message: quoted if it reads like a word or an address, and only named if it may be
/// anything.
pub(in crate::config) fn shown(text: &str) -> String {
    let address = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_hexdigit() || b".:[]".contains(&b));
    if is_plain_name(text) || address && !is_opaque(text) { quote(text) } else { "the value".to_owned() }
}

/// Returns whether a word is long and mixed enough to be a secret, as in the webhook addresses of chat services.
pub(in crate::config) fn is_opaque(word: &str) -> bool {
    let has = |test: fn(&u8) -> bool| word.bytes().any(|b| test(&b));
    const SIGNS: [char; 8] = ['-', '_', '.', ':', '+', '%', '=', '~'];
    let allowed = word.chars().all(|c| c.is_ascii_alphanumeric() || SIGNS.contains(&c));
    if !allowed || word.split(SIGNS).all(is_plain_word) {
        return false;
    }
    let (digit, lower, upper) =
        (has(u8::is_ascii_digit), has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase));
    let long = word.len() >= LONG && (digit && (lower || upper) || mixed_inside(word));
    long || word.len() >= LONG_MIXED && digit && lower && upper
}

/// Returns whether the case changes in most words, as in encoded bytes: `sendMessage` has one change, `XjWqpZrT` many.
fn mixed_inside(word: &str) -> bool {
    let changes = word
        .as_bytes()
        .windows(2)
        .filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
    changes.count() >= 4
}

/// Returns whether a header's value comes from the event alone.
pub(in crate::config) fn is_pure_template(value: &str) -> bool {
    let literal = literal_parts(value);
    literal.trim().is_empty() && value.contains("{{") && !value.contains(['"', '\''])
}

/// A text without the expressions of its templates; texts within these stay.
fn literal_parts(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = ["{{", "{%", "{#"].iter().filter_map(|open| rest.find(open)).min() {
        let close = match &rest[open..open + 2] {
            "{{" => "}}",
            "{%" => "%}",
            _ => "#}",
        };
        literal.push_str(&rest[..open]);
        let inside = &rest[open + 2..];
        let Some(end) = inside.find(close) else {
            literal.push_str(&rest[open..]);
            return literal;
        };
        // A text in quotes may be a secret here as well.
        for (index, part) in inside[..end].split(['"', '\'']).enumerate() {
            if index % 2 == 1 {
                literal.push(' ');
                literal.push_str(part);
                literal.push(' ');
            }
        }
        rest = &inside[end + 2..];
    }
    literal.push_str(rest);
    literal
}

/// The secret part of a URL, which may be a template; `None` if it seems to have none.
pub(in crate::config) fn secret_of_url(url: &str) -> Option<&'static str> {
    let url = literal_parts(url);
    let rest = url.split_once("://").map_or(&*url, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if let Some((user, _)) = authority.rsplit_once('@')
        && !user.is_empty()
    {
        return Some("a user or a password");
    }
    // The name of a host is public.
    let (path, query) = rest.split_once(['?', '#']).unwrap_or((rest, ""));
    let parameters = query.split(['&', ';', '#']).any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or(("", parameter));
        is_opaque(value) || (!value.trim().is_empty() && is_secret_name(name))
    });
    let found = parameters || path.split(['/', ';', ',', '|', ' ']).any(is_opaque);
    found.then_some("what looks like a secret")
}

/// Returns whether a field of this name holds a secret.
pub(in crate::config) fn is_secret_name(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    WHOLE_NAMES.contains(&plain.as_str()) || NAMES.iter().any(|part| plain.contains(part))
}

/// Returns whether a text such as a body or the arguments of a program holds a secret: a word that is too mixed for anything
/// else, the value of what has a secret's name, or a URL with one.
pub(in crate::config) fn holds_secret(text: &str) -> bool {
    let literal = literal_parts(text);
    let separates = |c: char| {
        c.is_whitespace()
            || matches!(c, '"' | '\'' | ',' | ';' | '&' | '(' | ')' | '{' | '}' | '[' | ']' | '<' | '>')
    };
    let mut named = false;
    for word in literal.split(separates).filter(|word| !word.is_empty()) {
        if word.contains("://") && secret_of_url(word).is_some() {
            return true;
        }
        // A word of signs, such as the colon of JSON, does not end what the name began.
        if word.bytes().all(|b| b.is_ascii_punctuation()) {
            continue;
        }
        if named && !word.starts_with('-') {
            return true;
        }
        let (name, value) = match word.split_once(['=', ':']) {
            Some((name, value)) if !word.contains("://") => (name, value),
            _ => (word, ""),
        };
        if !value.is_empty() && is_secret_name(name) {
            return true;
        }
        // A flag, a member or the scheme of a header: the next word is its value.
        let is_flag = word.starts_with('-') || word.ends_with([':', '=']);
        named = value.is_empty()
            && (is_flag && is_secret_name(name.trim_start_matches('-'))
                || word.eq_ignore_ascii_case("bearer"));
        if !word.contains("://") && word.split(['/', '=', '?']).any(is_opaque) {
            return true;
        }
    }
    has_secret_member(&literal)
}

/// Returns whether a JSON member in the text has the name of a secret and a string as its value.
fn has_secret_member(text: &str) -> bool {
    let parts: Vec<&str> = text.split('"').collect();
    parts.windows(3).any(|window| {
        let [name, colon, value] = window else { return false };
        colon.trim() == ":"
            && !value.trim().is_empty()
            && NAMES.iter().any(|part| name.to_ascii_lowercase().replace(['_', '-'], "").contains(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_paths_may_be_shown_and_secrets_in_their_place_may_not() {
        for path in [
            "client_secret",
            "webhook_secret",
            "missing.creds",
            "chat_headers",
            "channels.txt",
            "./token",
            "../secrets/Twitch/client",
            "/etc/ssl/example.org/privkey.pem",
            "/run/credentials/eventsubd.service/client_secret",
            "/var/lib/eventsubd2/token",
        ] {
            assert!(reads_like_a_path(path), "{path}");
        }
        for secret in [
            "",
            "hunter2",
            "hunter",
            "abcdefghijklmnopqrstuvwxyz0123",
            "SECRETsecret",
            "aGVsbG8/d29ybGQ+",
            "/ab12CD34/efGH",
            "./s3cr3tV4lu3",
            "tok-8f3kd93kd",
            "correct horse battery staple",
            "https://example.org/hook/hunter2",
        ] {
            assert!(!reads_like_a_path(secret), "{secret}");
        }
    }

    #[test]
    fn urls_with_secrets() {
        for url in [
            "https://me@example.org/",
            "https://me:hunter2@example.org/",
            "nats://s3cr3t@nats:4222",
            "https://discord.com/api/webhooks/112233445566778899/AbCdEfGhIj0123456789-_AbCdEfGhIj",
            "https://api.telegram.org/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/sendMessage",
            "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXX1",
            "https://gotify.example/message?token=AhB_1x.Ab",
            "https://x.example/?key=abc",
            "https://x.example/?api_key=abc&x={{ type }}",
            "https://x.example/?sig=1",
            "https://x.example/hook?id=0123456789abcdef0123",
            "https://x.example/{{ type }}/a1b2c3d4e5f6a7b8c9d0",
            "https://x.example/{{ 'a1b2c3d4e5f6a7b8c9d0' }}",
            "https://ha.example/api/webhook/-AbCd3FgH1jKlMn0p",
        ] {
            assert!(secret_of_url(url).is_some(), "{url}");
        }
        for url in [
            "https://example.org/hook",
            "http://127.0.0.1:3000/eventsub/channel-point-redemptions",
            "https://a-very-long-name-of-a-host-2024.example.org/x",
            "https://ntfy.example/{{ broadcaster_id }}?priority=high",
            "nats://n1:4222",
            "https://example.org/api/v2/events?token={{ broadcaster_id }}",
            "https://example.org/sendNotification",
        ] {
            assert_eq!(secret_of_url(url), None, "{url}");
        }
    }

    #[test]
    fn headers_are_private_unless_they_are_templates() {
        for value in ["{{ type }}", " {{ event.title | upper }} {{ version }}"] {
            assert!(is_pure_template(value), "{value}");
        }
        for value in ["", "Bearer x", "Bearer {{ type }}", "{{ 'hunter2' }}", "{{ \"x\" }}", "{{ type"] {
            assert!(!is_pure_template(value), "{value}");
        }
    }

    #[test]
    fn bodies_and_arguments_with_secrets() {
        for text in [
            r#"{"token": "abc", "text": {{ type | tojson }}}"#,
            r#"{ "user_token" : "abc" }"#,
            r#"{"appKey":"a1b2c3d4e5f6a7b8c9d0e1"}"#,
            "token=abc&user=me",
            "--token abc",
            "--password=abc",
            "-H \"Authorization: Bearer abc\"",
            "X-Api-Key: abc",
            "https://me:pw@example.org/",
            "curl https://x.example/?token=1",
            "{{ 'a1b2c3d4e5f6a7b8c9d0' }}",
        ] {
            assert!(holds_secret(text), "{text}");
        }
        for text in [
            r#"{ "text": {{ (event.broadcaster_user_name ~ " is live") | tojson }} }"#,
            r#"{ "token": {{ event.reward.id | tojson }} }"#,
            r#"{"content": "the secret of a good stream is sleep"}"#,
            "/usr/bin/logger --tag twitch",
            "./on-event --quiet --key-file /etc/keys",
            "sh -c 'cat >> /var/log/events-2026-11.jsonl'",
            "https://example.org/hook",
        ] {
            assert!(!holds_secret(text), "{text}");
        }
    }
}
