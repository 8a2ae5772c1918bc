//! Members of an object of valid JSON, found without reading all of it. ◆
//!
//! A [`RawValue`] was read once already, so there is nothing to check any more, which takes a small part of the time that a
//! deserializer needs.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::json_text::text_in;

/// The members of an object, in their order.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    json: &'a str,
    /// Where the next member is looked for.
    at: usize,
}

/// A member: name and value as they stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    name: &'a str,
    value: &'a str,
}

impl<'a> Members<'a> {
    /// Returns the members of an object; `None` for every other value.
    pub fn of(raw: &'a RawValue) -> Option<Self> {
        raw.get().starts_with('{').then_some(Self { json: raw.get(), at: 1 })
    }

    /// Returns the next name or value.
    fn token(&mut self) -> Option<&'a str> {
        let rest = self.json.as_bytes().get(self.at..)?;
        let begin = self.at
            + rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':'))?;
        self.at = end(self.json.as_bytes(), begin)?;
        self.json.get(begin..self.at)
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        Some(Member { name: self.token()?, value: self.token()? })
    }
}

impl<'a> Member<'a> {
    /// The name; `None` if it is not one of Unicode.
    pub fn name(&self) -> Option<Cow<'a, str>> {
        text_in(self.name)
    }

    /// The text that the value is; `None` if it is none, or not one of Unicode.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        text_in(self.value)
    }

    /// Whether the value is `null`.
    pub fn is_null(&self) -> bool {
        self.value == "null"
    }
}

/// Returns the end of the value that begins here; `None` at the end of an object or a list.
fn end(json: &[u8], begin: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = begin;
    loop {
        match json.get(at)? {
            b'"' => at = end_of_text(json, at)?,
            b'{' | b'[' => (depth, at) = (depth + 1, at + 1),
            b'}' | b']' => (depth, at) = (depth.checked_sub(1)?, at + 1),
            // A number or a word, unless it lies within a value.
            _ if depth == 0 => {
                let is_over = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                at = json[at..].iter().position(is_over).map_or(json.len(), |length| at + length);
            }
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Returns the end of the text that begins here.
fn end_of_text(json: &[u8], begin: usize) -> Option<usize> {
    let mut at = begin + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The members as a deserializer reads them.
    fn read(json: &str) -> Vec<(String, Value)> {
        let Ok(Value::Object(object)) = serde_json::from_str(json) else { panic!("an object: {json}") };
        object.into_iter().collect()
    }

    fn found(json: &str) -> Vec<(String, Value)> {
        let raw: &RawValue = serde_json::from_str(json).expect("JSON");
        let members = Members::of(raw).expect("an object");
        let mut found: Vec<_> = members
            .map(|member| {
                let value = serde_json::from_str(member.value).expect("JSON");
                assert_eq!(member.text().as_deref(), Value::as_str(&value));
                assert_eq!(member.is_null(), value.is_null());
                (member.name().expect("a name").into_owned(), value)
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            prop::sample::select(vec![
                "null", "true", "false", "{}", "[]", "0", "-1.5e+3", r#""""#, r#""\\""#
            ])
            .prop_map(str::to_owned),
            "\"([ -!#-\\[\\]-~é]|\\\\[\"\\\\/bfnrt]|\\\\u00[0-9a-f]{2}){0,9}\"",
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let item = ("[ \t\r\n]{0,2}", inner, "[ \t\r\n]{0,2}")
                .prop_map(|(a, value, b)| format!("{a}{value}{b}"));
            let member =
                ("[a-z{\\[,:]{0,3}", item.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
            prop_oneof![
                prop::collection::vec(item, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        })
    }

    proptest! {
        #[test]
        fn members_are_those_that_a_deserializer_finds(
            members in prop::collection::btree_map("[a-z\u{e9}{}\\[\\],: ]{0,4}", value(), 0..5),
            spaces in prop::collection::vec("[ \t\r\n]{0,2}", 4),
        ) {
            let [before, name, behind, after] = [0, 1, 2, 3].map(|nth: usize| &spaces[nth]);
            let members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{before}\"{key}\"{name}:{behind}{value}{after}"))
                .collect();
            let json = format!("{{{}{before}}}", members.join(","));
            prop_assert_eq!(found(&json), read(&json));
        }
    }

    #[test]
    fn members_keep_their_order_and_come_as_often_as_they_are_there() {
        let raw: &RawValue =
            serde_json::from_str(r#"{"b":"1","\u0061":"\u0032","b":null,"\ud800":"\ud800","c":[{"b":3}]}"#)
                .expect("JSON");
        let all: Vec<_> =
            Members::of(raw).expect("an object").map(|member| (member.name(), member.text())).collect();
        let text = |text: &'static str| Some(Cow::from(text));
        let wanted = [
            (text("b"), text("1")),
            (text("a"), text("2")),
            (text("b"), None),
            (None, None),
            (text("c"), None),
        ];
        assert_eq!(all, wanted);
        for other in ["[1]", "1", "\"{}\"", "null"] {
            assert!(Members::of(serde_json::from_str(other).expect("JSON")).is_none(), "{other}");
        }
    }
}
