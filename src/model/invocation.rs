//! Flags that commands in a message need to address the daemon that the message is about. ◆

use std::borrow::Cow;
use std::path::Path;

/// Start of a command in a message.
const COMMAND: &str = "`eventsubd ";
/// Commands that need neither a daemon nor a configuration.
const FLAGLESS: [&str; 4] = ["types", "completions", "man", "init"];

/// The flags with which this process was told its file and its state directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// Empty, or flags with a space before each.
    flags: String,
}

impl Invocation {
    /// Builds the flags from `--config` and `--state-dir` as given.
    pub fn new(config: Option<&Path>, state_dir: Option<&Path>) -> Self {
        let mut flags = String::new();
        for (flag, path) in [(" --config ", config), (" --state-dir ", state_dir)] {
            if let Some(path) = path {
                flags.push_str(flag);
                flags.push_str(&quoted(&path.display().to_string()));
            }
        }
        Self { flags }
    }

    /// Takes the flags from the status of a daemon.
    pub fn from_flags(flags: &str) -> Self {
        Self { flags: flags.to_owned() }
    }

    /// Returns the flags with a space before each; empty if there are none.
    pub fn flags(&self) -> &str {
        &self.flags
    }

    /// Returns a command with its flags.
    pub fn command(&self, words: &str) -> String {
        format!("eventsubd {words}{}", self.flags)
    }

    /// Returns the message with the flags added to each command in it: text between backticks that begins with the
    /// name of the program.
    pub fn complete<'a>(&self, message: &'a str) -> Cow<'a, str> {
        if self.flags.is_empty() || !message.contains(COMMAND) {
            return Cow::Borrowed(message);
        }
        let mut completed = String::with_capacity(message.len() + self.flags.len());
        let mut rest = message;
        while let Some(start) = rest.find(COMMAND) {
            let (before, command) = rest.split_at(start + COMMAND.len());
            completed.push_str(before);
            let end = command.find('`').unwrap_or(0);
            let (words, after) = command.split_at(end);
            completed.push_str(words);
            if needs_flags(words) {
                completed.push_str(&self.flags);
            }
            rest = after;
        }
        completed.push_str(rest);
        Cow::Owned(completed)
    }
}

fn needs_flags(words: &str) -> bool {
    let mut words = words.split(' ');
    match words.next() {
        None | Some("") => false,
        // The stand-alone sandbox has no file; commands about it address the one of a file.
        Some("sandbox") => words.next().is_some_and(|word| !word.starts_with('-')),
        Some(command) => {
            !FLAGLESS.contains(&command)
                && words.all(|word| !matches!(word, "--config" | "-c" | "--state-dir"))
        }
    }
}

/// Quotes a text as one word of a shell.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./-+,:@%=~".contains(c);
    if !text.is_empty() && !text.starts_with('~') && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_messages_get_the_flags_of_this_command() {
        let both = Invocation::new(Some("a.toml".as_ref()), Some("/my state".as_ref()));
        for (message, expected) in [
            ("no command", "no command"),
            (
                "run `eventsubd status`, or `eventsubd apply --allow-deletes`.",
                "run `eventsubd status --config a.toml --state-dir '/my state'`, or `eventsubd apply \
                 --allow-deletes --config a.toml --state-dir '/my state'`.",
            ),
            (
                "`eventsubd sandbox trigger TYPE`",
                "`eventsubd sandbox trigger TYPE --config a.toml --state-dir '/my state'`",
            ),
            ("`eventsubd types`, `eventsubd sandbox`", "`eventsubd types`, `eventsubd sandbox`"),
            ("`eventsubd run --config b.toml --take-over`", "`eventsubd run --config b.toml --take-over`"),
            ("`eventsubd ", "`eventsubd "),
            ("`systemctl restart eventsubd`", "`systemctl restart eventsubd`"),
        ] {
            assert_eq!(both.complete(message), expected);
        }
        assert_eq!(Invocation::default().complete("`eventsubd status`"), "`eventsubd status`");
        assert_eq!(Invocation::default().command("status"), "eventsubd status");
    }

    #[test]
    fn paths_are_quoted_for_a_shell() {
        for (path, expected) in [
            ("/etc/a-b_c.toml", "/etc/a-b_c.toml"),
            ("it's", "'it'\\''s'"),
            ("~me", "'~me'"),
            ("", "''"),
            ("a$b", "'a$b'"),
        ] {
            assert_eq!(quoted(path), expected);
        }
    }
}
