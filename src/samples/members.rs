//! The members of each type's event: name, kind of value, whether it may be null or left out, known values.
//!
//! `members.txt` has them, and says how it is written. It serves people (`eventsubd types`) and the test that holds
//! every sample against it. Twitch adds members and values unannounced: nothing may depend on this list being whole.

use std::collections::HashMap;
use std::sync::LazyLock;

/// One version of one type, described.
#[derive(Clone, Debug)]
pub struct Description {
    /// Says when the event comes.
    pub sentence: &'static str,
    /// The members of `event`, or of each element of `events`, in Twitch's order.
    pub members: Vec<Member>,
}

/// One member of an object.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub kind: Kind,
    /// A list of values of this kind.
    pub is_list: bool,
    pub may_be_null: bool,
    /// May be left out.
    pub may_be_absent: bool,
    /// Values that are known; empty if they are not from a fixed set.
    pub values: Vec<&'static str>,
}

/// The kind of a value.
#[derive(Clone, Debug)]
pub enum Kind {
    Text,
    Int,
    Bool,
    /// A time as RFC 3339 text.
    Time,
    Null,
    Object(Vec<Member>),
}

const TEXT: &str = include_str!("members.txt");

static DESCRIPTIONS: LazyLock<HashMap<String, Description>> =
    LazyLock::new(|| read(TEXT).expect("the embedded list is checked by a test"));

/// The description of one version of one type, if this release has it.
pub fn description(subscription_type: &str, version: &str) -> Option<&'static Description> {
    DESCRIPTIONS.get(&format!("{subscription_type} {version}"))
}

/// The texts of shapes and types by name.
type Shapes = HashMap<&'static str, Vec<&'static str>>;

/// Reads the descriptions, by `TYPE VERSION`.
pub(super) fn read(text: &'static str) -> Result<HashMap<String, Description>, String> {
    let mut shapes = Shapes::new();
    let mut heads = Vec::new();
    let mut name = "";
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with(' ') {
            shapes.get_mut(name).ok_or_else(|| format!("members of nothing: {line}"))?.push(line);
            continue;
        }
        name = match (line.strip_prefix("= "), line.split_once(" | ")) {
            (Some(shape), _) => shape,
            (None, Some((head, sentence))) => {
                let (kind, versions) = head.split_once(' ').ok_or_else(|| format!("no version: {line}"))?;
                // Versions with other members need a name of their own; the first one is the type's.
                let name = if shapes.contains_key(kind) { head } else { kind };
                heads.push((name, kind, versions, sentence));
                name
            }
            (None, None) => return Err(format!("neither a type nor a shape: {line}")),
        };
        if shapes.insert(name, Vec::new()).is_some() {
            return Err(format!("{name} twice"));
        }
    }
    let mut found = HashMap::new();
    for (name, kind, versions, sentence) in heads {
        let members = resolve(name, &shapes)?;
        for version in versions.split(", ") {
            let description = Description { sentence, members: members.clone() };
            if found.insert(format!("{kind} {version}"), description).is_some() {
                return Err(format!("{kind} {version} twice"));
            }
        }
    }
    Ok(found)
}

fn resolve(name: &str, shapes: &Shapes) -> Result<Vec<Member>, String> {
    let lines = shapes.get(name).ok_or_else(|| format!("no shape {name}"))?;
    let mut members = Vec::new();
    let mut open: Vec<(Vec<Member>, &'static str)> = Vec::new();
    for mut rest in lines.iter().copied() {
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                break;
            }
            if let Some(after) = rest.strip_prefix(')') {
                let inner = members;
                let member;
                (members, member) = open.pop().ok_or_else(|| format!("{name}: a `)` too many"))?;
                rest = push(&mut members, member, Kind::Object(inner), after)?;
                continue;
            }
            if let Some(after) = rest.strip_prefix('&') {
                let (shape, after) = split(after, |c| c.is_ascii_alphanumeric() || "._".contains(c));
                members.extend(resolve(shape, shapes)?);
                rest = after;
                continue;
            }
            let (member, after) = split(rest, |c| c.is_ascii_alphanumeric() || c == '_');
            if member.is_empty() {
                return Err(format!("{name}: no member at `{rest}`"));
            }
            let Some(after) = after.strip_prefix(':') else {
                rest = push(&mut members, member, Kind::Text, after)?;
                continue;
            };
            if let Some(after) = after.strip_prefix('(') {
                open.push((std::mem::take(&mut members), member));
                rest = after;
                continue;
            }
            let (word, after) = split(after, |c| c.is_ascii_alphanumeric() || c == '_');
            rest = match word {
                "int" => push(&mut members, member, Kind::Int, after)?,
                "bool" => push(&mut members, member, Kind::Bool, after)?,
                "time" => push(&mut members, member, Kind::Time, after)?,
                "null" => push(&mut members, member, Kind::Null, after)?,
                "iln" | "inl" => {
                    let parts = if word == "iln" { ["id", "login", "name"] } else { ["id", "name", "login"] };
                    let mut last = after;
                    for part in parts {
                        last = push(&mut members, &format!("{member}_{part}"), Kind::Text, after)?;
                    }
                    last
                }
                shape => push(&mut members, member, Kind::Object(resolve(shape, shapes)?), after)?,
            };
        }
    }
    if open.is_empty() { Ok(members) } else { Err(format!("{name}: a `)` is missing")) }
}

/// Adds the member with what follows its kind: values, `[]`, `?`, `-`. Returns the rest.
fn push(
    members: &mut Vec<Member>,
    name: &str,
    kind: Kind,
    text: &'static str,
) -> Result<&'static str, String> {
    let (values, text) = match text.strip_prefix('=') {
        Some(after) => {
            let (values, after) = split(after, |c| c.is_ascii_alphanumeric() || "_|".contains(c));
            (values.split('|').collect(), after)
        }
        None => (Vec::new(), text),
    };
    let (is_list, text) = mark(text, "[]");
    let (may_be_null, text) = mark(text, "?");
    let (may_be_absent, text) = mark(text, "-");
    if !(text.is_empty() || text.starts_with([' ', ')'])) {
        return Err(format!("{name}: unexpected `{text}`"));
    }
    let may_be_null = may_be_null || matches!(kind, Kind::Null);
    members.push(Member { name: name.to_owned(), kind, is_list, may_be_null, may_be_absent, values });
    Ok(text)
}

fn mark<'a>(text: &'a str, mark: &str) -> (bool, &'a str) {
    text.strip_prefix(mark).map_or((false, text), |after| (true, after))
}

fn split(text: &'static str, belongs: impl Fn(char) -> bool) -> (&'static str, &'static str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}
