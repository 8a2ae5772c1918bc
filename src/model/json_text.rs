//! Texts of JSON that are borrowed from it. ◆
//!
//! Serde makes a copy of each `Cow` but for members that are marked with `borrow`: of keys, and within an `Option`, always.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A text that is copied only if it has escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
pub struct JsonText<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl Deref for JsonText<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for JsonText<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for JsonText<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Returns the text that a value is; `None` if it is none, or not one of Unicode.
pub fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    text_in(raw.get())
}

/// As [`text_of`], with a value of JSON as it stands there.
pub fn text_in(json: &str) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    // Most texts have no escapes, and are as they stand there.
    if !inside.as_bytes().contains(&b'\\') {
        return Some(inside.into());
    }
    serde_json::from_str::<JsonText<'_>>(json).ok().map(|text| text.0)
}

/// Returns a text, or a number as it stands there; anything else counts as empty.
pub fn text_or_number(raw: &RawValue) -> Cow<'_, str> {
    if raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Cow::Borrowed(raw.get());
    }
    text_of(raw).unwrap_or_default()
}

/// A text, or nothing for every other kind of value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextOrNothing<'a>(pub Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for TextOrNothing<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned().into()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn texts_without_escapes_are_borrowed() {
        let json = r#"{"plain":"a","\u0061b":"b\nc"}"#;
        let read: HashMap<JsonText<'_>, Option<JsonText<'_>>> = serde_json::from_str(json).expect("JSON");
        let is_borrowed = |text: &JsonText<'_>| matches!(text.0, Cow::Borrowed(_));
        assert!(read.iter().all(|(key, value)| is_borrowed(key) == (&**key == "plain")
            && value.as_ref().is_some_and(is_borrowed) == (&**key == "plain")));
        assert_eq!(read.get("ab").and_then(Option::as_deref), Some("b\nc"));
    }

    #[test]
    fn every_other_value_is_nothing_and_is_read_to_its_end() {
        let json = r#"["a", "\u0062", 1, -1, 1.5, 1e99, true, null, [[1], {}], {"a": {"b": [null]}}, ""]"#;
        let read: Vec<TextOrNothing<'_>> = serde_json::from_str(json).expect("JSON");
        let texts: Vec<_> = read.iter().map(|text| text.0.as_deref()).collect();
        let mut wanted = vec![Some("a"), Some("b")];
        wanted.extend([None; 8]);
        wanted.push(Some(""));
        assert_eq!(texts, wanted);
        assert!(matches!(read[0].0, Some(Cow::Borrowed(_))));
        assert!(serde_json::from_str::<TextOrNothing<'_>>("[1").is_err());
    }
}
