//! An entry's type, version and fields against the catalogue.
//!
//! The catalogue is as old as the release: a type that it does not know is allowed if the entry gives a version and a
//! condition.

use crate::model::catalog::{self, TypeVersion};

use super::entry::{Entry, LOGIN_KEYS, Word};
use crate::config::report::diagnostic::{closest, quote};
use crate::config::report::problems::Problems;
use crate::config::report::source::Place;
use crate::config::settings::Method;

/// A type in the version that was chosen.
pub(in crate::config) struct Chosen<'a> {
    pub(in crate::config) version: &'a str,
    /// `None` when the catalogue does not know it.
    pub(in crate::config) row: Option<&'static TypeVersion>,
}

/// The version of a type that the entry asks for; `None` after an error.
pub(in crate::config) fn choose<'a>(
    word: &Word,
    entry: &'a Entry,
    method: Method,
    problems: &mut Problems,
) -> Option<Chosen<'a>> {
    let name = &*word.text;
    let at = word.place;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    {
        let diagnostic = problems.error(at, format!("{} is not a subscription type", quote(name)));
        if name.contains(',') || name.trim().contains(' ') {
            diagnostic
                .hint("a list has each in quotes of its own: type = [\"stream.online\", \"stream.offline\"]");
        } else if name.contains('*') {
            diagnostic.hint("name the types one by one: globs are for `types` of sinks");
            diagnostic.hints.extend(family_hint(name));
        }
        return None;
    }
    if catalog::versions(name).next().is_none() {
        return unknown_type(word, entry, problems);
    }
    let row = match &entry.version {
        None => catalog::default_version(name)?,
        Some(version) => match catalog::lookup(name, &version.text) {
            Some(row) => row,
            None => return unknown_version(word, version, entry, problems),
        },
    };
    if row.removed {
        let at = entry.version.as_ref().map_or(at, |version| version.place);
        let diagnostic =
            problems.error(at, format!("version {} of `{name}` was removed by Twitch", quote(&row.version)));
        if let Some(newest) = catalog::default_version(name) {
            diagnostic.hint(format!("the newest is \"{}\"", newest.version));
        }
        return None;
    }
    if row.beta {
        problems
            .warning(at, format!("version {} of `{name}` is a beta", quote(&row.version)))
            .hint("Twitch may change or remove it without notice");
    }
    check_transport(row, at, method, problems).then_some(Chosen { version: &row.version, row: Some(row) })
}

/// Returns whether Twitch offers the type over this transport.
fn check_transport(row: &TypeVersion, at: Place, method: Method, problems: &mut Problems) -> bool {
    let name = method.name();
    let offered = row.transports.iter().any(|transport| transport == name);
    if !offered {
        problems
            .error(at, format!("`{}` does not go through a {name}", row.name))
            .hint(format!("Twitch offers it over {}", row.transports.join(", ")));
    }
    offered
}

fn says_enough(entry: &Entry) -> bool {
    !entry.condition.is_empty()
        || entry.broadcaster_file.is_some()
        || entry.logins.iter().any(Option::is_some)
}

/// The types that begin with the words that a name or a glob has.
fn family_hint(name: &str) -> Option<String> {
    const SHOWN: usize = 6;
    let prefix = format!("{}.", name.trim_end_matches(['*', '.']));
    let mut members = catalog::names().filter(|name| name.starts_with(&prefix));
    let shown: Vec<String> = members.by_ref().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = if members.next().is_some() { ", …" } else { "" };
    (!shown.is_empty())
        .then(|| format!("there is {}{more} (`eventsubd types` lists them all)", shown.join(", ")))
}

fn unknown_type<'a>(word: &Word, entry: &'a Entry, problems: &mut Problems) -> Option<Chosen<'a>> {
    let message = format!("unknown subscription type {}", quote(&word.text));
    let meant = family_hint(&word.text)
        .or_else(|| closest(&word.text, catalog::names()).map(|meant| format!("did you mean `{meant}`?")));
    match &entry.version {
        Some(version) if says_enough(entry) => {
            let diagnostic = problems.warning(word.place, message);
            diagnostic.hints.extend(meant);
            diagnostic.hint("it is passed on unchecked, since `version` and a condition are given");
            Some(Chosen { version: &version.text, row: None })
        }
        _ => {
            let diagnostic = problems.error(word.place, message);
            diagnostic.hints.extend(meant);
            diagnostic.hint("a type that is newer than this release needs `version` and `condition`");
            None
        }
    }
}

fn unknown_version<'a>(
    word: &Word,
    version: &'a Word,
    entry: &Entry,
    problems: &mut Problems,
) -> Option<Chosen<'a>> {
    let name = &*word.text;
    let message = format!("unknown version {} of `{name}`", quote(&version.text));
    let number = |text: &str| text.parse::<u32>().ok();
    let newest = catalog::versions(name).filter_map(|row| number(&row.version)).max();
    if number(&version.text) > newest && newest.is_some() && says_enough(entry) {
        problems
            .warning(version.place, message)
            .hint("it is newer than this release, and passed on unchecked");
        return Some(Chosen { version: &version.text, row: None });
    }
    let known: Vec<String> = catalog::versions(name)
        .filter(|row| !row.removed)
        .map(|row| format!("\"{}\"", row.version))
        .collect();
    problems.error(version.place, message).hint(format!("Twitch has {}", known.join(", ")));
    None
}

/// A field that the entry gives, in the words of the condition.
pub(in crate::config) struct Given<'a> {
    pub(in crate::config) name: &'a str,
    pub(in crate::config) place: Place,
    /// The login key that stands for it, when that was used.
    pub(in crate::config) login_key: Option<&'static str>,
}

/// Checks the fields that are given against those that the type has. Fields that have a default
/// are not missing: `moderator_user_id` beside a broadcaster, and `client_id`.
pub(in crate::config) fn check_fields(
    row: &TypeVersion,
    word: &Word,
    entry: &Entry,
    given: &[Given<'_>],
    problems: &mut Problems,
) -> bool {
    let name = &*row.name;
    let has = |field: &str| given.iter().any(|given| given.name == field);
    let fields = row.condition.keys().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(", ");
    let mut right = true;
    for field in given.iter().filter(|given| !row.condition.contains_key(given.name)) {
        right = false;
        let diagnostic = problems.error(field.place, format!("`{name}` has no {}", quote(field.name)));
        if field.login_key == Some("broadcaster") && is_either(row) {
            diagnostic.hint("`from_broadcaster` is for raids that leave a channel, `to_broadcaster` for those that arrive");
        } else if let Some(meant) = closest(field.name, row.condition.keys().map(String::as_str)) {
            diagnostic.hint(format!("did you mean `{meant}`?"));
        }
        diagnostic.hint(format!("its fields: {fields}"));
        if entry.types.as_ref().is_some_and(|types| types.words.len() > 1) {
            diagnostic.hint(format!(
                "types with other fields need a `[[subscription]]` of their own: `{name}` is in this list"
            ));
        }
    }
    if is_either(row) {
        let (from, to) = (has("from_broadcaster_user_id"), has("to_broadcaster_user_id"));
        if from && to {
            problems
                .error(
                    word.place,
                    format!("`{name}` takes one of `from_broadcaster` and `to_broadcaster`, not both"),
                )
                .hint("write one `[[subscription]]` for raids that leave and one for raids that arrive");
            return false;
        }
        if !from && !to && right {
            problems
                .error(word.place, format!("`{name}` needs `from_broadcaster` or `to_broadcaster`"))
                .hint("`from_broadcaster` is for raids that leave a channel, `to_broadcaster` for those that arrive");
            return false;
        }
        return right;
    }
    for (field, _) in row.condition.iter().filter(|(field, spec)| spec.required && !has(field)) {
        let defaulted = field == "client_id" || (field == "moderator_user_id" && has("broadcaster_user_id"));
        // The moderator follows the broadcaster, which is reported itself when it is missing.
        if defaulted || (field == "moderator_user_id" && row.condition.contains_key("broadcaster_user_id")) {
            right &= defaulted;
            continue;
        }
        right = false;
        problems
            .error(word.place, format!("`{name}` needs `{field}`"))
            .hint(missing_hint(field))
            .hint(format!("its fields: {fields}"));
    }
    right
}

/// Raids: one of two fields, neither of which is required by itself.
fn is_either(row: &TypeVersion) -> bool {
    ["from_broadcaster_user_id", "to_broadcaster_user_id"]
        .iter()
        .all(|field| row.condition.contains_key(*field))
}

fn missing_hint(field: &str) -> String {
    match field {
        "user_id" => "name the account that reads, such as that of a bot: `user = \"LOGIN\"`".to_owned(),
        _ => match LOGIN_KEYS.iter().find(|(_, known)| *known == field) {
            Some((key, _)) => format!("name it by its login: `{key} = \"LOGIN\"`"),
            None => format!("give it in the condition: `condition = {{ {field} = \"…\" }}`"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_type_without_our_transport_is_refused() {
        let mut row = catalog::lookup("stream.online", "1").expect("known").clone();
        row.transports.retain(|transport| transport != "conduit");
        let mut problems = Problems::new();
        let source = problems.sources.add("config.toml".into(), "type = \"stream.online\"".into(), true);
        assert!(!check_transport(&row, Place::new(source, 7..22), Method::Conduit, &mut problems));
        let (errors, _) = problems.into_sorted();
        expect![[r#"
            error: `stream.online` does not go through a conduit
             --> config.toml:1:8
              |
            1 | type = [hidden]
              |        ^^^^^^^^
              |
              = help: Twitch offers it over webhook, websocket
        "#]]
        .assert_eq(&format!("{}\n", errors[0]));
    }

    #[test]
    fn every_type_of_the_catalogue_comes_either_way() {
        for method in [Method::Conduit, Method::Webhook] {
            let offers = |row: &TypeVersion| row.transports.iter().any(|name| name == method.name());
            assert!(catalog::all().iter().all(offers), "{method:?}");
        }
    }
}
