//! Logins: their form, and files with one a line.

use std::collections::HashSet;
use std::sync::Arc;

use crate::config::files::is_printable;
use crate::config::report::diagnostic::quote;
use crate::config::report::problems::{Complaint, Problems};
use crate::config::report::source::Place;

/// The logins of a file, and where they stand.
pub(in crate::config) type LoginFile = Vec<(Arc<str>, Place)>;

/// Most errors of one file that are reported one by one.
const MAX_ERRORS: usize = 10;

/// Each login once in memory, however many lists name it.
#[derive(Default)]
pub(in crate::config) struct Logins(HashSet<Arc<str>>);

impl Logins {
    /// Returns the shared form of a login, in lower case.
    ///
    /// # Errors
    /// The text is not a valid login.
    pub(in crate::config) fn take(&mut self, text: &str) -> Result<Arc<str>, Complaint> {
        if let Some(known) = self.0.get(text) {
            return Ok(known.clone());
        }
        let lower = text.to_ascii_lowercase();
        if !is_login(&lower) {
            return Err(complaint(text));
        }
        if let Some(known) = self.0.get(lower.as_str()) {
            return Ok(known.clone());
        }
        let login: Arc<str> = lower.into();
        self.0.insert(login.clone());
        Ok(login)
    }
}

fn is_login(text: &str) -> bool {
    (1..=25).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn complaint(text: &str) -> Complaint {
    let quotes = ['"', '\'', '`', '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}'];
    let bare = text.trim().trim_end_matches([',', ';']).trim_matches(quotes).trim_start_matches(['#', '@']);
    let bare = bare.split_once("://").map_or(bare, |(_, rest)| rest);
    let path =
        ["www.twitch.tv/", "m.twitch.tv/", "twitch.tv/"].iter().find_map(|host| bare.strip_prefix(host));
    let bare = path.map_or(bare, |path| path.split(['/', '?', '#']).next().unwrap_or(path)).trim();
    let lower = bare.to_ascii_lowercase();
    let hidden = text.chars().position(|c| !is_printable(c));
    let list: Vec<String> =
        bare.split([',', ';', ' ']).filter(|part| !part.is_empty()).map(str::to_ascii_lowercase).collect();
    let hint = if is_login(&lower) {
        format!("write the login alone: `{lower}`")
    } else if let Some(at) = hidden {
        format!("its character {} is not printable: type it anew, without copying it", at + 1)
    } else if list.len() > 1 && list.len() <= 20 && list.iter().all(|part| is_login(part)) {
        let list = list.iter().map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join(", ");
        format!("a list has each in quotes of its own: [{list}]")
    } else {
        "a login has 1 to 25 of the characters a-z, 0-9 and `_`; a display name may differ from it".to_owned()
    };
    Complaint::new(format!("{} is not a valid login", quote(text)), hint)
}

/// Reads a file of logins: one a line, `#` comments, blank lines. Duplicates count once.
pub(in crate::config) fn read_file(
    text: &str,
    source: u32,
    logins: &mut Logins,
    problems: &mut Problems,
) -> Vec<(Arc<str>, Place)> {
    let mut list = Vec::new();
    let mut seen = HashSet::new();
    let mut errors = 0;
    let mut start = 0;
    for line in text.split('\n') {
        let content = line.split('#').next().unwrap_or_default();
        let word = content.trim();
        if !word.is_empty() {
            let from = start + (content.len() - content.trim_start().len());
            let place = Place::new(source, from..from + word.len());
            match logins.take(word) {
                Ok(login) if seen.insert(login.clone()) => list.push((login, place)),
                Ok(_) => {}
                Err(Complaint { message, hint }) => {
                    errors += 1;
                    if errors <= MAX_ERRORS {
                        problems.error(place, message).hints.extend(hint);
                    }
                }
            }
        }
        start += line.len() + 1;
    }
    if errors > MAX_ERRORS {
        let end = Place::new(source, text.len()..text.len());
        problems.error(end, format!("and {} more lines that are not valid logins", errors - MAX_ERRORS));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_lowered_and_shared() {
        let mut logins = Logins::default();
        let first = logins.take("Ninja_1").expect("valid");
        assert_eq!(&*first, "ninja_1");
        assert!(Arc::ptr_eq(&first, &logins.take("ninja_1").expect("valid")));
        for bad in ["", "a b", "ä", "a-b", "abcdefghijklmnopqrstuvwxyz", "#x", "@x", "https://twitch.tv/x"] {
            assert!(logins.take(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hints_name_the_login_that_was_meant() {
        for text in
            ["#Ninja", "@ninja", " ninja ", "https://www.twitch.tv/ninja/videos?x=1", "twitch.tv/ninja"]
        {
            assert_eq!(complaint(text).hint.expect("a hint"), "write the login alone: `ninja`", "{text}");
        }
        assert!(complaint("Ninja!").hint.expect("a hint").starts_with("a login has"));
        for text in ["\"ninja\"", "ninja,", "\u{201c}ninja\u{201d}", "'ninja',"] {
            assert_eq!(complaint(text).hint.expect("a hint"), "write the login alone: `ninja`", "{text}");
        }
        assert_eq!(
            complaint("Ninja, shroud").hint.expect("a hint"),
            "a list has each in quotes of its own: [\"ninja\", \"shroud\"]"
        );
        assert_eq!(
            complaint("nin\u{200b}ja").hint.expect("a hint"),
            "its character 4 is not printable: type it anew, without copying it"
        );
    }
}
