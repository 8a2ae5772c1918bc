//! The templates: for each version of each type the members of its event, and the variants, which are named and say
//! what differs.
//!
//! In a file: `"TYPE VERSION": {"base": {…}, "variants": {"NAME": {…}}}`. A variant's members take the place of the
//! base's; `"{{absent}}"` leaves one out. `"like": "TYPE VERSION"` takes the variants of another row too. Without a base
//! (batched types) a variant is the whole value.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::LazyLock;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

pub(super) const FAMILIES: [&str; 9] = [
    include_str!("automod.json"),
    include_str!("channel.json"),
    include_str!("chat.json"),
    include_str!("drives.json"),
    include_str!("guest_star.json"),
    include_str!("moderation.json"),
    include_str!("platform.json"),
    include_str!("points.json"),
    include_str!("votes.json"),
];

const ABSENT: &str = r#""{{absent}}""#;

/// One variant of a type's event.
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// JSON text with placeholders, which `render` fills.
    pub(super) template: String,
}

/// The variants by `TYPE VERSION`.
static TEMPLATES: LazyLock<BTreeMap<&'static str, Vec<Variant>>> =
    LazyLock::new(|| read().expect("the embedded templates are checked by a test"));

/// The variants of a row, in the order of the file.
pub(super) fn variants(subscription_type: &str, version: &str) -> Option<&'static [Variant]> {
    TEMPLATES.get(format!("{subscription_type} {version}").as_str()).map(Vec::as_slice)
}

/// Every `TYPE VERSION` that has variants.
#[cfg(test)]
pub(super) fn rows() -> impl Iterator<Item = &'static str> {
    TEMPLATES.keys().copied()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<'a> {
    #[serde(borrow, default)]
    base: Members<'a>,
    like: Option<&'a str>,
    #[serde(borrow)]
    variants: Members<'a>,
}

fn read() -> Result<BTreeMap<&'static str, Vec<Variant>>, serde_json::Error> {
    let mut rows: HashMap<&str, Row<'_>> = HashMap::new();
    for family in FAMILIES {
        rows.extend(serde_json::from_str::<HashMap<&str, Row<'_>>>(family)?);
    }
    let mut found = BTreeMap::new();
    for (key, row) in &rows {
        let like = row.like.and_then(|like| rows.get(like));
        let patches = like.into_iter().flat_map(|like| &like.variants.0).chain(&row.variants.0);
        let variants = patches.map(|(name, patch)| {
            let template = if row.base.0.is_empty() {
                patch.get().to_owned()
            } else {
                merge(&row.base, &serde_json::from_str(patch.get())?)
            };
            Ok(Variant { name, template })
        });
        found.insert(*key, variants.collect::<Result<_, serde_json::Error>>()?);
    }
    Ok(found)
}

fn merge(base: &Members<'_>, patch: &Members<'_>) -> String {
    let members = base.0.iter().filter_map(|(name, value)| {
        let value = patch.0.iter().find(|(changed, _)| changed == name).map_or(value, |(_, value)| value);
        (value.get() != ABSENT).then(|| format!(r#""{name}":{}"#, value.get()))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// The members of an object, in the order of the text.
#[derive(Default)]
struct Members<'a>(Vec<(&'a str, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}
