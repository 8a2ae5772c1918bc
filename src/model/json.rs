//! Lenient access to the members of JSON objects from outside: null counts as absent, and numbers and texts are
//! interchangeable. Errors name the member.

use serde_json::{Map, Value};

#[derive(Clone, Copy, Debug)]
pub struct Members<'a>(&'a Map<String, Value>);

impl<'a> Members<'a> {
    /// # Errors
    /// The value is not an object.
    pub fn of(value: &'a Value) -> Result<Self, String> {
        value.as_object().map(Self).ok_or_else(|| format!("it is {}, not an object", kind(value)))
    }

    /// Returns the member; `None` if it is missing or null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Returns `None` if the member is missing or null.
    ///
    /// # Errors
    /// The member is neither text nor a number.
    pub fn text(&self, name: &str) -> Result<Option<String>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => text(value).map(Some).ok_or_else(|| wrong(name, value, "text")),
        }
    }

    /// # Errors
    /// The member is missing, null, or neither text nor a number.
    pub fn needed_text(&self, name: &str) -> Result<String, String> {
        self.text(name)?.ok_or_else(|| self.absent(name))
    }

    /// Returns `None` if the member is missing or null.
    ///
    /// # Errors
    /// The member is not a non-negative whole number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => number(value).map(Some).ok_or_else(|| wrong(name, value, "a whole number")),
        }
    }

    /// Returns `None` if the member is missing or null.
    ///
    /// # Errors
    /// The member is not an object.
    pub fn object(&self, name: &str) -> Result<Option<Self>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self(map))),
            Some(value) => Err(wrong(name, value, "an object")),
        }
    }

    /// # Errors
    /// The member is missing, null, or not an object.
    pub fn needed_object(&self, name: &str) -> Result<Self, String> {
        self.object(name)?.ok_or_else(|| self.absent(name))
    }

    /// Returns `None` if the member is missing or null.
    ///
    /// # Errors
    /// The member is not a list.
    pub fn list(&self, name: &str) -> Result<Option<&'a [Value]>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(value) => Err(wrong(name, value, "a list")),
        }
    }

    /// Returns the texts of a list without its nulls.
    ///
    /// # Errors
    /// The member is not a list of texts.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let list = self.list(name)?.unwrap_or_default();
        let texts = list.iter().filter(|value| !value.is_null());
        texts
            .map(|value| text(value).ok_or_else(|| format!("`{name}` holds {}, not only text", kind(value))))
            .collect()
    }

    /// Returns all members that are not null, as text.
    ///
    /// # Errors
    /// A member is neither text nor a number.
    pub fn all_texts(&self) -> Result<Vec<(&'a str, String)>, String> {
        let members = self.0.iter().filter(|(_, value)| !value.is_null());
        members
            .map(|(name, value)| match text(value) {
                Some(text) => Ok((name.as_str(), text)),
                None => Err(wrong(name, value, "text")),
            })
            .collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn absent(&self, name: &str) -> String {
        if self.has(name) { format!("`{name}` is null") } else { format!("`{name}` is missing") }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn wrong(name: &str, value: &Value, wanted: &str) -> String {
    format!("`{name}` is {}, not {wanted}", kind(value))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_u64() => "a number",
        Value::Number(_) => "a number that is negative, has a fraction or is too large",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Deepest indentation of [`pretty`]; what is nested deeper is indented like this.
const DEPTH: usize = 64;

/// Returns JSON with a line for each member and element. Names, order and values stay as they are; text that is not JSON
/// comes out with other white space at most.
pub fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            c if c.is_ascii_whitespace() => {}
            '{' | '[' => {
                out.push(c);
                while rest.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    out
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth.min(DEPTH)));
}

/// Answers of Twitch's with one member changed, for the tests of everything that reads one.
#[cfg(test)]
pub mod testing {
    use serde_json::Value;

    /// An object with one member changed, at any depth.
    pub struct Changed {
        /// For example `/transport/method`.
        pub path: String,
        pub how: &'static str,
        pub row: Value,
    }

    impl Changed {
        /// The name of the member.
        pub fn name(&self) -> &str {
            self.path.rsplit('/').next().unwrap_or_default()
        }
    }

    /// Each member of an object missing, null, and of every other kind.
    pub fn changes(row: &Value) -> Vec<Changed> {
        fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
            for (name, member) in value.as_object().into_iter().flatten() {
                let path = format!("{path}/{name}");
                paths(member, &path, found);
                found.push(path);
            }
        }
        let mut found = Vec::new();
        paths(row, "", &mut found);
        let mut changes = Vec::new();
        for path in found {
            let mut missing = row.clone();
            let (parent, name) = path.rsplit_once('/').expect("a path");
            let parent = missing.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
            parent.remove(name);
            changes.push(Changed { path: path.clone(), how: "missing", row: missing });
            for (how, value) in [
                ("null", Value::Null),
                ("text", "x".into()),
                ("empty", "".into()),
                ("number", 7.into()),
                ("fraction", (-1.5).into()),
                ("huge", 1e300.into()),
                ("flag", true.into()),
                ("list", serde_json::json!([1, null, []])),
                ("object", serde_json::json!({"a": {"b": []}})),
            ] {
                let mut changed = row.clone();
                *changed.pointer_mut(&path).expect("there") = value;
                changes.push(Changed { path: path.clone(), how, row: changed });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_and_texts_are_interchangeable_and_errors_name_the_member() {
        let value =
            json!({"n": "30", "t": 41001, "null": null, "big": 1e300, "list": ["a", null, 1], "bad": [{}]});
        let members = Members::of(&value).unwrap();
        assert_eq!(members.number("n"), Ok(Some(30)));
        assert_eq!(members.needed_text("t").as_deref(), Ok("41001"));
        assert_eq!(members.text("null"), Ok(None));
        assert_eq!(members.needed_text("null"), Err("`null` is null".to_owned()));
        assert_eq!(members.needed_text("gone"), Err("`gone` is missing".to_owned()));
        assert!(members.number("big").unwrap_err().contains("too large"));
        assert_eq!(members.number("list"), Err("`list` is a list, not a whole number".to_owned()));
        assert_eq!(members.texts("list").unwrap(), ["a", "1"]);
        assert_eq!(members.texts("bad"), Err("`bad` holds an object, not only text".to_owned()));
        assert_eq!(Members::of(&json!([])).err().as_deref(), Some("it is a list, not an object"));
    }

    #[test]
    fn breaking_a_text_into_lines_changes_no_token() {
        let json = r#"{"b":1.50,"a":[ ],"t":"a, {\"b\": [1]}","o":{},"l":[1,{"x":null}]}"#;
        expect![[r#"
            {
              "b": 1.50,
              "a": [],
              "t": "a, {\"b\": [1]}",
              "o": {},
              "l": [
                1,
                {
                  "x": null
                }
              ]
            }"#]]
        .assert_eq(&pretty(json));
    }

    #[test]
    fn a_text_is_broken_into_lines_and_stays_as_it_is() {
        let text = r#"{"b":1.50,"a":{"x":[],"y":[1,"{,}\"\\"],"z":{ }},"c":null}"#;
        let pretty = pretty(text);
        let lines = "{\n  \"b\": 1.50,\n  \"a\": {\n    \"x\": [],\n    \"y\": [\n      1,\n      \"{,}\\\"\\\\\"\n    ],\n    \"z\": {}\n  },\n  \"c\": null\n}";
        assert_eq!(pretty, lines);
        let value: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(serde_json::from_str::<Value>(&pretty).expect("JSON"), value);
    }

    proptest! {
        #[test]
        fn any_text_can_be_broken_into_lines(text in "\\PC{0,200}", json in "[\\[\\]{},:\"\\\\ a1]{0,200}") {
            for text in [text, json] {
                let solid = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
                prop_assert_eq!(solid(&pretty(&text)), solid(&text));
            }
        }
    }
}
