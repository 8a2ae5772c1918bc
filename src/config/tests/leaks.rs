//! No message shows the value of a sink, of an unknown key, or of a path that may be a secret in its place; and
//! secrets in files that others can read are found in every spelling.

use super::*;
use proptest::prelude::*;

const SECRET: &str = "Zq7hunter2Kx";

/// All that is ever shown of a load: the report, JSON, and the debug text.
fn shown(case: &Case) -> String {
    match case.load() {
        Ok(loaded) => {
            let json = serde_json::to_string(&loaded.warnings).expect("json");
            format!("{json} {:?} {:?}", loaded.warnings, diff(&loaded.config, &loaded.config))
        }
        Err(errors) => {
            format!("{errors} {errors:?} {}", serde_json::to_string(&errors.errors).expect("json"))
        }
    }
}

#[test]
fn no_key_of_a_sink_shows_its_value() {
    let mut loads = 0;
    let keys: Vec<&str> = keys().iter().filter_map(|key| key.path.strip_prefix("sink.*.")).collect();
    for kind in ["stdout", "file", "command", "http", "nats"] {
        for key in keys.iter().copied().chain(["token", "ulr", "headers.Authorization", "x.y"]) {
            for value in [
                format!("\"{SECRET}\""),
                format!("[\"{SECRET}\"]"),
                format!("{{ a = \"{SECRET}\" }}"),
                format!("{{ \"Bearer {SECRET}\" = 1 }}"),
                format!("\"https://example.org/{SECRET}\""),
                format!("'''\n{SECRET}'''"),
                format!("\"{SECRET}"),
                SECRET.to_owned(),
            ] {
                let kind = if key == "type" { String::new() } else { format!("type = \"{kind}\"\n") };
                let text = shown(&Case::with(&format!("[sink.x]\n{kind}{key} = {value}\n")));
                assert!(!text.contains("hunter2"), "{kind}{key} = {value}: {text}");
                loads += 1;
            }
        }
    }
    assert!(loads > 800, "{loads}");
}

#[test]
fn no_unknown_key_and_no_path_shows_its_value() {
    let mut loads = 0;
    for text in [
        "access_token = \"SECRET\"",
        "client_secrets = \"SECRET\"",
        "client_secret_file = \"SECRET\"",
        "client_secret_file = \"folder/SECRET\"",
        "[twitch.tokens]\nx = \"SECRET\"",
        "password = \"SECRET\"",
        "[admin]\nlisten = \"127.0.0.1:1\"\ntoken_file = \"SECRET\"",
        "[admin]\nlisten = \"SECRET\"",
        "[transport.webhook]\ncallback = \"https://x.example/\"\nsecret_file = \"SECRET\"",
        "[transport.webhook]\ncallback = \"https://me:SECRET@x.example/\"",
        "[transport.webhook]\ncallback = \"https://x.example/?token=SECRET\"",
        "[[subscription]]\ntype = \"stream.online\"\nbroadcaster_file = \"SECRET\"",
        "[[subscription]]\ntoken = \"SECRET\"",
        "[log]\nlevel = \"loud\" # SECRET",
        "[log]\nlevel = \"info\" SECRET",
        "[log]\nlevel: SECRET",
        "[log]\nformat = \"text\" # SECRET\nx",
    ] {
        let text = text.replace("SECRET", SECRET);
        let head = HEAD.replace("client_secret_file = \"client_secret\"\n", "").trim_end().to_owned();
        let shown = shown(&Case::new(format!("{head}\n{text}\n{ONE}")));
        assert!(!shown.contains("hunter2"), "{text}: {shown}");
        assert!(shown.contains("error"), "{text}: {shown}");
        loads += 1;
    }
    assert_eq!(loads, 17);
}

#[test]
fn no_variable_shows_its_value() {
    let mut loads = 0;
    for key in keys() {
        let name = format!("EVENTSUBD_{}", key.path.replace('*', "x").replace('.', "__").to_uppercase());
        for kind in ["http", "command", "file"] {
            let case = Case::with("").env(&[(&name, SECRET), ("EVENTSUBD_SINK__X__TYPE", kind)]);
            let text = shown(&case);
            assert!(!text.contains("hunter2"), "{name}: {text}");
            loads += 1;
        }
    }
    assert!(loads > 150, "{loads}");
}

#[test]
fn secrets_in_a_file_that_others_can_read_are_found_in_every_spelling() {
    let http = |rest: &str| format!("[sink.x]\ntype = \"http\"\n{rest}");
    let url = |url: &str| http(&format!("url = \"{url}\""));
    let header = |line: &str| http(&format!("url = \"https://x.example/\"\nheaders = {{ {line} }}"));
    let body = |body: &str| http(&format!("url = \"https://x.example/\"\nbody = '{body}'"));
    let command = |rest: &str| format!("[sink.x]\ntype = \"command\"\ncommand = [\"sh\", {rest}]");
    let mut found = 0;
    for text in [
        header("X-Gotify-Key = \"AbC\""),
        header("Private-Token = \"abc\""),
        header("DD-API-KEY = \"abc\""),
        header("X-Anything = \"abc {{ type }}\""),
        url("https://api.telegram.org/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/sendMessage"),
        url("https://discord.com/api/webhooks/1122/AbCdEfGhIj0123456789-_AbCdEfGhIj"),
        url("https://gotify.example/message?token=AbC.1"),
        url("https://me@x.example/"),
        url("https://x.example/?x=0123456789abcdef0123"),
        body(r#"{"token": "abc", "text": {{ type | tojson }}}"#),
        body(r#"{"routing_key": "0123456789abcdef0123456789abcdef"}"#),
        command("\"--token\", \"abc\""),
        command("\"--password=abc\""),
        command("\"-H\", \"Authorization: Bearer abc\""),
        command("\"https://me:abc@x.example/\""),
    ] {
        let case = Case::with(&text);
        let fine = case.report();
        assert!(!fine.contains("error"), "{text}: {fine}");
        case.file("config.toml", format!("{HEAD}{text}{ONE}"), 0o644);
        let report = case.report();
        assert!(report.contains("and others can read it (mode 0644)"), "{text}: {report}");
        assert!(report.contains("run `chmod 600 /etc/eventsubd/config.toml`"), "{text}: {report}");
        found += 1;
    }
    assert_eq!(found, 15);
    // Nothing here is a secret.
    for text in [
        header("X-Type = \"{{ type }}\""),
        url("https://x.example/hook?priority=high"),
        body(r#"{ "content": {{ event.broadcaster_user_name | tojson }} }"#),
        command("\"-c\", \"cat >> /var/log/twitch/events-2026-11.jsonl\""),
    ] {
        let case = Case::with(&text);
        case.file("config.toml", format!("{HEAD}{text}{ONE}"), 0o644);
        assert_eq!(case.report(), "fine\n", "{text}");
    }
}

#[test]
fn a_private_key_is_for_its_owner_only() {
    let text = "[transport.webhook]\ncallback = \"https://x.example/\"\ntls_certificate = \"cert.pem\"\ntls_key = \"key.pem\"\n";
    let case = Case::with(text);
    case.file("cert.pem", "-----BEGIN CERTIFICATE-----\n", 0o644);
    case.file("key.pem", "-----BEGIN EC PRIVATE KEY-----\n", 0o600);
    assert_eq!(case.report(), "fine\n");
    case.file("key.pem", "-----BEGIN EC PRIVATE KEY-----\n", 0o644);
    let report = case.report();
    assert!(
        report.contains("`/etc/eventsubd/key.pem` holds a private key, and others can read it (mode 0644)"),
        "{report}"
    );
    assert!(report.contains("run `chmod 600 /etc/eventsubd/key.pem`"), "{report}");
    case.file("key.pem", "-----BEGIN EC PRIVATE KEY-----\n", 0o600);
    case.file("cert.pem", "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n", 0o644);
    let report = case.report();
    assert!(report.contains("`/etc/eventsubd/cert.pem` holds a private key"), "{report}");
}

#[test]
fn small_files_may_have_a_mark_and_line_ends_but_no_quotes() {
    const TEXT: &str = r#"[admin]
listen = "127.0.0.1:1"
token_file = "token"

[transport.webhook]
callback = "https://x.example/"
secret_file = "hook"

[sink.x]
type = "http"
url = "https://x.example/"
headers_file = "headers"
secret_file = "signing"

[[subscription]]
type = "stream.offline"
broadcaster_file = "channels.txt"
"#;
    const FILES: [(&str, &str); 6] = [
        ("client_secret", "s3cr3t"),
        ("token", "0123456789abcdef"),
        ("hook", "0123456789"),
        ("headers", "Authorization: Bearer abc"),
        ("signing", "9876543210"),
        ("channels.txt", "ninja"),
    ];
    let case = Case::with(TEXT);
    for (name, content) in FILES {
        case.file(name, format!("\u{feff}{content}\r\n\r\n"), 0o600);
    }
    assert_eq!(case.report(), "fine\n");
    let config = case.config();
    assert_eq!(config.application.client_secret.expect("a secret").expose(), "s3cr3t");
    assert_eq!(config.webhook.and_then(|hook| hook.secret).expect("a secret").expose(), "0123456789");
    for (name, content) in FILES {
        let quoted = match content.split_once(": ") {
            Some((header, value)) => format!("{header}: \"{value}\""),
            None => format!("\"{content}\""),
        };
        case.file(name, quoted, 0o600);
        let report = case.report();
        let told =
            if name == "channels.txt" { "write the login alone: `ninja`" } else { "it stands in quotes" };
        assert!(report.contains(told), "{name}: {report}");
        case.file(name, format!("{content}\u{200b}"), 0o600);
        let report = case.report();
        assert!(report.contains("is not printable"), "{name}: {report}");
        assert!(name == "channels.txt" || !report.contains(content), "{name}: {report}");
        case.file(name, content, 0o600);
    }
    assert_eq!(case.report(), "fine\n");
}

/// Files that once went wrong, and one that is right.
const SEEDS: [&[u8]; 6] = [
    include_bytes!("../../../config.toml.example"),
    b"[sink.x]\ntype = \"stdout\"\ntypes = [\"{{{{{{{{{{{{{{{{{{{{{{a,b},c},d},e}\"]\n",
    b"a = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"\xef\xbb\xbf[twitch]\r\nclient_id = \"x\"\r\n\0",
    b"client_secret = '''\n[sink.\"\"]\n\xff",
    b"[[subscription]]\ntype = [\"stream.online\"]\nbroadcaster = [\"a\", \"b\"]\n[[sink]]\n[log]\nlevel = \"[{=,\"\n",
];

fn survive(bytes: &[u8]) {
    let (errors, warnings) = match check_text(bytes) {
        Ok(loaded) => (Vec::new(), loaded.warnings),
        Err(problems) => (problems.errors, problems.warnings),
    };
    for diagnostic in errors.iter().chain(&warnings) {
        assert!(!diagnostic.render(true).is_empty() && !diagnostic.summary().is_empty());
    }
}

#[test]
fn seeds_cut_and_damaged_anywhere_are_survived() {
    for seed in SEEDS {
        survive(seed);
        for at in (0..seed.len()).step_by((seed.len() / 64).max(1)) {
            survive(&seed[..at]);
            let mut damaged = seed.to_vec();
            damaged[at] ^= 0x10;
            survive(&damaged);
        }
    }
    let braces = format!("{}a{}", "{".repeat(250), "}".repeat(250));
    survive(format!("[sink.x]\ntype = \"stdout\"\ntypes = [\"{braces}\"]\n").as_bytes());
    survive("[".repeat(20_000).as_bytes());
    survive(format!("a = {}", "[".repeat(20_000)).as_bytes());
    survive(format!("a = {}", "{a=".repeat(20_000)).as_bytes());
    survive(format!("{}a = 1", "a.".repeat(20_000)).as_bytes());
}

proptest! {
    #[test]
    fn any_bytes_are_a_text_to_check(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survive(&bytes);
    }
}

#[test]
fn a_check_of_the_text_alone_looks_at_no_file() {
    let text = format!("{HEAD}[sink.x]\ntype = \"command\"\ncommand = [\"sh\"]\n");
    let errors = check_text(text.as_bytes()).expect_err("nothing is found").to_string();
    assert!(errors.contains("there is no program `sh`"), "{errors}");
    assert!(check_text(format!("{HEAD}{ONE}").as_bytes()).is_ok());
}
