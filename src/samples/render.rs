//! Fills templates: JSON text with placeholders inside its strings.
//!
//! `"{{x}}"` becomes the value as part of the string, escaped; `"{{=x}}"` (a string of its own) becomes
//! the value without quotes, for numbers. Space between tokens goes away. Values are never read as
//! templates. What values there are, `values` says; placeholders that it does not know stay as they are.

use super::values::Values;

/// The template on one line, with its placeholders filled.
pub(super) fn render(template: &str, values: &Values<'_>) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        if in_string && let Some((spec, after)) = placeholder(rest) {
            if let Some(number) = spec.strip_prefix('=').and_then(|spec| values.get(spec)) {
                out.pop();
                out.push_str(&number);
                in_string = false;
                rest = after.strip_prefix('"').unwrap_or(after);
                continue;
            }
            if let Some(value) = values.get(spec) {
                out.push_str(&escaped(&value));
                rest = after;
                continue;
            }
        }
        let mut taken = next.len_utf8();
        match next {
            '"' => in_string = !in_string,
            '\\' => taken += rest[taken..].chars().next().map_or(0, char::len_utf8),
            _ => {}
        }
        if in_string || !next.is_ascii_whitespace() {
            out.push_str(&rest[..taken]);
        }
        rest = &rest[taken..];
    }
    out
}

/// The placeholder that `text` starts with, and what follows it.
fn placeholder(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("{{")?.split_once("}}")
}

/// The text as it stands between the quotes of a JSON string.
pub(super) fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
