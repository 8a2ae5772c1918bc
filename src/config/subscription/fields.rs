//! The fields of a condition that an entry gives, by login or by id.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::model::catalog::TypeVersion;
use crate::model::subscription::FieldValue;

use super::entry::{Entry, LOGIN_KEYS, Word, Words};
use super::login::{LoginFile, Logins};
use crate::config::report::diagnostic::{Level, quote};
use crate::config::report::problems::{At, Problems};
use crate::config::report::source::Place;

/// By the path as an entry gives it; `None` when it could not be read.
pub(in crate::config) type LoginFiles = HashMap<Box<str>, Option<LoginFile>>;

/// One field of the condition with all its values.
pub(in crate::config) struct Field<'a> {
    pub(in crate::config) name: Cow<'static, str>,
    pub(in crate::config) place: Place,
    pub(in crate::config) login_key: Option<&'static str>,
    pub(in crate::config) values: Vec<(FieldValue, Place)>,
    /// Ids that were given, for a closer look.
    pub(in crate::config) literal: Option<&'a Word>,
}

/// The fields that the entry gives, by name, and whether they are right.
pub(in crate::config) fn read<'a>(
    entry: &'a Entry,
    files: &LoginFiles,
    logins: &mut Logins,
    problems: &mut Problems,
) -> (Vec<Field<'a>>, bool) {
    let mut right = true;
    let mut fields: Vec<Field<'a>> = Vec::new();
    for ((key, name), words) in LOGIN_KEYS.iter().zip(&entry.logins) {
        let file = if *key == "broadcaster" { entry.broadcaster_file.as_ref() } else { None };
        let Some(place) = words.as_ref().map(|words| words.place).or(file.map(|file| file.place)) else {
            continue;
        };
        let (values, ok) = login_values(key, words.as_ref(), file, files, logins, problems);
        right &= ok;
        let name = Cow::Borrowed(*name);
        fields.push(Field { name, place, login_key: Some(key), values, literal: None });
    }
    for (name, value) in &entry.condition {
        if let Some(field) = fields.iter().find(|field| *field.name == *name.text) {
            let key = field.login_key.unwrap_or_default();
            let at = At::Place(field.place);
            problems
                .pair(
                    Level::Error,
                    name.place,
                    format!("`{}` is given twice: here and as `{key}`", field.name),
                    (&at, "the login"),
                )
                .hint("keep one of them: the login, or the id in the condition");
            right = false;
            continue;
        }
        fields.push(Field {
            name: Cow::Owned(name.text.as_ref().to_owned()),
            place: name.place,
            login_key: None,
            values: vec![(FieldValue::Literal(value.text.clone()), value.place)],
            literal: Some(value),
        });
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    (fields, right)
}

fn login_values(
    key: &str,
    words: Option<&Words>,
    file: Option<&Word>,
    files: &LoginFiles,
    logins: &mut Logins,
    problems: &mut Problems,
) -> (Vec<(FieldValue, Place)>, bool) {
    let mut right = true;
    let mut values: Vec<(FieldValue, Place)> = Vec::new();
    let mut seen = HashSet::new();
    for word in words.map_or(&[][..], |words| &words.words) {
        match logins.take(&word.text) {
            Ok(login) if seen.insert(login.clone()) => {
                values.push((FieldValue::Login(login), word.place));
            }
            Ok(_) => {}
            Err(complaint) => {
                right = false;
                problems.error(word.place, complaint.message).hints.extend(complaint.hint);
            }
        }
    }
    if let Some(words) = words.filter(|words| words.words.is_empty()) {
        problems
            .warning(words.place, format!("`{key}` is an empty list"))
            .hint("nothing is subscribed for it");
    }
    if let Some(file) = file {
        match files.get(&file.text) {
            Some(Some(list)) => {
                if list.is_empty() {
                    problems
                        .warning(file.place, format!("{} contains no login", quote(&file.text)))
                        .hint("nothing is subscribed for it");
                }
                let new = list.iter().filter(|(login, _)| seen.insert(login.clone()));
                values.extend(new.map(|(login, place)| (FieldValue::Login(login.clone()), *place)));
            }
            // Mistakes in the file were reported when it was read.
            Some(None) | None => right = false,
        }
    }
    (values, right)
}

/// Logins in the place of ids are the commonest mistake, and Twitch's answer does not name it.
pub(in crate::config) fn check_ids(row: &TypeVersion, fields: &[Field<'_>], problems: &mut Problems) {
    for field in fields {
        let (Some(spec), Some(value)) = (row.condition.get(&*field.name), field.literal) else {
            continue;
        };
        if spec.kind == "user_id" && !value.text.bytes().all(|b| b.is_ascii_digit()) {
            let diagnostic = problems.warning(
                value.place,
                format!("{} is not the id of a user: ids are digits", quote(&value.text)),
            );
            if let Some((key, _)) = LOGIN_KEYS.iter().find(|(_, name)| *name == field.name) {
                diagnostic.hint(format!("logins go into `{key}`, outside of the condition"));
            }
        }
    }
}
