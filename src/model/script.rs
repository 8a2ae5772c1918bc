//! The first bytes of a program, which select its interpreter.

use super::text::one_line;

/// Number of bytes examined: Linux reads as many to find the interpreter (`BINPRM_BUF_SIZE`).
pub const HEAD: usize = 256;

/// Returns why the system would refuse to start the program at this path, judged by its first bytes; `None` if it
/// would start. `exists` checks for a program: a path, or a bare name to find in `PATH`.
pub fn problem(path: &str, head: &[u8], exists: impl Fn(&str) -> bool) -> Option<String> {
    const FIRST_LINE: &str = "start it with a line such as `#!/bin/sh` that names its interpreter";
    if head.is_empty() {
        return Some(format!("the program `{path}` is empty"));
    }
    if head.starts_with(b"\xef\xbb\xbf#!") {
        return Some(format!(
            "the program `{path}` begins with a byte order mark, which hides its `#!` line; save it without one"
        ));
    }
    let Some(line) = head.strip_prefix(b"#!") else {
        let is_text =
            !head.contains(&0) && head.iter().all(|b| !b.is_ascii_control() || b.is_ascii_whitespace());
        return is_text.then(|| format!("the program `{path}` has no `#!` line; {FIRST_LINE}"));
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.ends_with(b"\r") {
        return Some(format!(
            "the first line of `{path}` ends with a carriage return, which becomes part of the interpreter's name; \
             run `sed -i 's/\\r$//' {path}`"
        ));
    }
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let Some(interpreter) = words.next() else {
        return Some(format!("the `#!` line of `{path}` names no interpreter; {FIRST_LINE}"));
    };
    let shown = |name: &str| one_line(name, HEAD);
    if !exists(interpreter) {
        return Some(format!(
            "the `#!` line of `{path}` names the interpreter `{}`, which does not exist; install it, or correct the line",
            shown(interpreter)
        ));
    }
    let named = words.find(|word| !word.starts_with('-') && !word.contains('='));
    let missing = named.filter(|name| interpreter.ends_with("/env") && !exists(name))?;
    Some(format!(
        "the `#!` line of `{path}` asks for `{}`, which is not in PATH; install it, or write its whole path",
        shown(missing)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_the_system_would_refuse_are_reported() {
        let problem = |head: &[u8]| {
            problem("/x", head, |name| ["/bin/sh", "/usr/bin/env", "python3"].contains(&name))
                .unwrap_or_default()
        };
        for fine in [
            &b"#!/bin/sh\necho"[..],
            b"#! /bin/sh -e\n",
            b"#!/usr/bin/env python3\n",
            b"#!/usr/bin/env -S A=b python3 -u\n",
            b"\x7fELF\x02\x01\x01\0\0",
            b"MZ\x90\0\x03",
        ] {
            assert_eq!(problem(fine), "", "{fine:?}");
        }
        for (head, part) in [
            (&b""[..], "is empty"),
            (b"#!/bin/sh\r\necho\r\n", "run `sed -i 's/\\r$//' /x`"),
            (b"\xef\xbb\xbf#!/bin/sh\n", "byte order mark"),
            (b"echo hello\n", "has no `#!` line"),
            (b"#!\n", "names no interpreter"),
            (b"#!/bin/zsh\n", "`/bin/zsh`, which does not exist"),
            (b"#!/usr/bin/env ruby\n", "asks for `ruby`"),
            (b"#!/b\x1bin\n", "`/b\\x1bin`"),
        ] {
            assert!(problem(head).contains(part), "{head:?}: {}", problem(head));
        }
    }
}
