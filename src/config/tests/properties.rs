//! Properties of all files.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Files in the shape of ours, with some of it wrong.
fn file() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "twitch",
        "client_id",
        "client_secret",
        "reconcile",
        "interval",
        "transport",
        "conduit",
        "shards",
        "webhook",
        "subscription",
        "type",
        "broadcaster",
        "broadcaster_file",
        "condition",
        "sinks",
        "sink",
        "log",
        "types",
        "path",
        "store",
        "retain",
        "max_size",
        "max_delete",
        "enabled",
        "x",
        "state",
        "directory",
        "\"a.b\"",
        "\"\"",
    ]);
    let value = prop_oneof![
        Just("1".to_owned()),
        Just("-1e400".to_owned()),
        Just("nan".to_owned()),
        Just("true".to_owned()),
        Just("\"stdout\"".to_owned()),
        Just("\"stream.online\"".to_owned()),
        Just("[\"channel.chat.message\", \"channel.raid\"]".to_owned()),
        Just("\"30s\"".to_owned()),
        Just("[]".to_owned()),
        Just("[[1], {}]".to_owned()),
        Just("{ broadcaster_user_id = \"1\" }".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
        "\"[a-z0-9.é ]{0,12}\"",
        Just("\"\"\"\nx\n\"\"\"".to_owned()),
        Just("0xffffffffffffffffff".to_owned()),
    ];
    let path = || prop::collection::vec(name.clone(), 1..4).prop_map(|parts| parts.join("."));
    let line = prop_oneof![
        4 => (path(), value).prop_map(|(path, value)| format!("{path} = {value}")),
        2 => path().prop_map(|path| format!("[{path}]")),
        2 => Just("[[subscription]]".to_owned()),
        1 => Just("[sink.log]".to_owned()),
        1 => "[ -~]{0,10}",
    ];
    prop::collection::vec(line, 0..20).prop_map(|lines| lines.join("\n"))
}

/// Loads, and shows all that there is to show.
fn survive(text: impl AsRef<[u8]>) {
    let case = Case::new(text);
    let (errors, warnings) = match case.load() {
        Ok(loaded) => {
            assert!(diff(&loaded.config, &loaded.config).is_empty());
            (Vec::new(), loaded.warnings)
        }
        Err(problems) => {
            assert!(!problems.errors.is_empty());
            (problems.errors, problems.warnings)
        }
    };
    for diagnostic in errors.iter().chain(&warnings) {
        assert!(!diagnostic.render(true).is_empty());
        assert!(!diagnostic.summary().chars().any(|c| c == '\u{1b}'), "{diagnostic:?}");
        assert!(serde_json::to_string(diagnostic).expect("json").len() < 20_000);
    }
}

fn config_of(text: &str) -> Config {
    Case::new(format!("{HEAD}[sink.a]\ntype = \"stdout\"\n[sink.b]\ntype = \"file\"\npath = \"b\"\n{text}"))
        .config()
}

fn entry() -> impl Strategy<Value = String> {
    let list = |words: &[&'static str]| {
        prop::sample::subsequence(words.to_vec(), 1..=words.len()).prop_map(|words| format!("{words:?}"))
    };
    let types = list(&["stream.online", "stream.offline", "channel.follow", "channel.update"]);
    let logins = list(&["ninja", "shroud", "pokimane", "xqc"]);
    let sinks =
        prop_oneof![Just(String::new()), list(&["a", "b"]).prop_map(|names| format!("sinks = {names}\n")),];
    (types, logins, sinks).prop_map(|(types, logins, sinks)| {
        format!("[[subscription]]\ntype = {types}\nbroadcaster = {logins}\n{sinks}")
    })
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survive(bytes);
    }

    #[test]
    fn any_file_is_survived(text in file()) {
        survive(&text);
        survive(format!("{HEAD}{text}"));
    }

    #[test]
    fn any_environment_is_survived(
        variables in prop::collection::vec(("EVENTSUBD_[A-Z_\\[\\].a]{0,30}", "[ -~é]{0,10}"), 0..6),
        known in prop::sample::select(keys()), value in "[0-9a-zA-Z\"/:. ]{0,10}",
    ) {
        let mut case = Case::with("");
        let known = format!("EVENTSUBD_{}", known.path.replace('*', "x").replace('.', "__").to_uppercase());
        case.options.env = variables.into_iter().chain([(known, value)]).collect();
        let _ = case.load().map(|loaded| loaded.config.sinks.len());
    }

    #[test]
    fn the_order_of_entries_does_not_matter(
        (sorted, shuffled) in prop::collection::vec(entry(), 1..6)
            .prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle())),
    ) {
        let (a, b) = (config_of(&sorted.concat()), config_of(&shuffled.concat()));
        let set = |config: &Config| -> BTreeSet<String> {
            config.subscriptions.iter().map(|spec| format!("{spec:?}")).collect()
        };
        prop_assert_eq!(set(&a).len(), a.subscriptions.len(), "each is there once");
        prop_assert_eq!(set(&a), set(&b));
    }

    #[test]
    fn a_diff_names_exactly_what_changed(a in prop::collection::vec(entry(), 0..4), b in prop::collection::vec(entry(), 0..4)) {
        let (mut a, b) = (config_of(&a.concat()), config_of(&b.concat()));
        // Two directories, one configuration.
        a.sinks.clone_from(&b.sinks);
        a.application.client_secret_source.clone_from(&b.application.client_secret_source);
        prop_assert!(diff(&a, &a).is_empty() && diff(&b, &b).is_empty());
        let key = |spec: &crate::model::subscription::SubscriptionSpec| {
            let mut spec = spec.clone();
            spec.sinks = None;
            format!("{spec:?}")
        };
        let keys = |config: &Config| -> BTreeSet<String> { config.subscriptions.iter().map(key).collect() };
        let (ours, theirs) = (keys(&a), keys(&b));
        let (added, removed) = (theirs.difference(&ours).count(), ours.difference(&theirs).count());
        match diff(&a, &b).as_slice() {
            [] => prop_assert_eq!((added, removed), (0, 0)),
            [Change::Subscriptions { added: a, removed: r, rerouted }] => {
                prop_assert_eq!((*a, *r), (added, removed));
                prop_assert!(added + removed + rerouted > 0);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
