//! Changes to the JSON of an event that keep the order of its members. ◆

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// An object whose members keep their order.
struct Object(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Sets the value at a path such as `reward.title` or `choices.0.votes`; a member that is not there is added.
///
/// # Errors
/// Says which part of the path is not there.
pub(super) fn set(json: &str, path: &[&str], value: &str) -> Result<String, String> {
    let Some((first, rest)) = path.split_first() else { return Ok(value.to_owned()) };
    if json.trim_start().starts_with('[') {
        let mut list: Vec<Box<RawValue>> = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let entries = list.len();
        let entry = first.parse::<usize>().ok().and_then(|at| list.get_mut(at));
        let entry =
            entry.ok_or_else(|| format!("`{first}` is not one of the {entries} entries of the list"))?;
        *entry = raw(set(entry.get(), rest, value)?)?;
        return serde_json::to_string(&list).map_err(|e| e.to_string());
    }
    let object: Result<Object, _> = serde_json::from_str(json);
    let mut object = object.map_err(|_| format!("what holds `{first}` is neither an object nor a list"))?;
    match object.0.iter_mut().find(|(name, _)| name == first) {
        Some((_, member)) => *member = raw(set(member.get(), rest, value)?)?,
        None if rest.is_empty() => object.0.push(((*first).to_owned(), raw(value.to_owned())?)),
        None => return Err(format!("there is no member `{first}`")),
    }
    serde_json::to_string(&object).map_err(|e| e.to_string())
}

fn raw(text: String) -> Result<Box<RawValue>, String> {
    RawValue::from_string(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str =
        r#"{"z":"1","reward":{"title":"a","cost":1},"choices":[{"votes":1},{"votes":2}],"n":null}"#;

    #[test]
    fn members_keep_their_order() {
        for (path, value, expected) in [
            ("z", "7", r#"{"z":7,"#),
            ("reward.title", r#""b""#, r#""reward":{"title":"b","cost":1}"#),
            ("choices.1.votes", "30", r#"[{"votes":1},{"votes":30}]"#),
            ("n", "{}", r#""n":{}}"#),
            ("new", "true", r#""n":null,"new":true}"#),
        ] {
            let path: Vec<_> = path.split('.').collect();
            let changed = set(EVENT, &path, value).expect("changed");
            assert!(changed.contains(expected), "{changed}");
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_is_named() {
        for (path, part) in
            [("missing.title", "missing"), ("z.a", "`a`"), ("choices.2.votes", "`2`"), ("n.x", "`x`")]
        {
            let path: Vec<_> = path.split('.').collect();
            let error = set(EVENT, &path, "1").expect_err("refused");
            assert!(error.contains(part), "{error}");
        }
    }
}
