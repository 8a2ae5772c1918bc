//! `eventsubd-check(1)` and the other pages about one command each.

use clap::{Arg, Command};
use clap_mangen::Man;

use super::names::MANUAL;
use super::roff::{Page, sentence, without_preamble};
use crate::cli::command::{Example, examples};

/// Renders the page of a command that was built with its parent.
pub(super) fn page(command: &Command) -> String {
    let name = format!("eventsubd-{}", command.get_name());
    let mut page = Page::new(&name, "1", MANUAL);
    page.name(&name, &about(command));
    page.section("SYNOPSIS");
    synopsis(&mut page, command);
    page.section("DESCRIPTION");
    description(&mut page, command);

    let subs: Vec<_> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    if !subs.is_empty() {
        page.section("COMMANDS");
    }
    for sub in subs {
        page.subsection(&format!("eventsubd {} {}", command.get_name(), sub.get_name()));
        description(&mut page, sub);
        if let Some(options) = options(sub) {
            page.rendered(&options);
        }
    }
    if let Some(options) = options(command) {
        page.section("OPTIONS");
        page.rendered(&options);
    }
    page.section("GLOBAL OPTIONS");
    page.text("`--config` and `--state-dir` are accepted as by every command; see `eventsubd`(1).");
    page_examples(&mut page, command.get_name());
    page.section("EXIT STATUS");
    page.text("The same for all commands; see `eventsubd`(1).");
    page.section("SEE ALSO");
    page.text("`eventsubd`(1), `eventsubd.toml`(5)");
    page.finish()
}

/// Returns the summary of a command.
pub(super) fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// Writes the section `EXAMPLES`, if there are any; of the program for the empty name.
pub(super) fn page_examples(page: &mut Page, name: &str) {
    let examples = examples(name);
    if !examples.is_empty() {
        page.section("EXAMPLES");
    }
    for Example { line, what } in examples {
        page.item(&format!("`{line}`"), &sentence(what));
    }
}

/// Writes the synopsis in clap's form.
pub(super) fn synopsis(page: &mut Page, command: &Command) {
    let usage = command.clone().render_usage().to_string();
    for (index, line) in usage.lines().enumerate() {
        let line = line.trim().trim_start_matches("Usage:").trim();
        let words = line.split(' ').take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
        let length = words.map(|word| word.len() + 1).sum::<usize>().saturating_sub(1);
        let (name, rest) = line.split_at(length.min(line.len()));
        if index > 0 {
            page.rendered(".br\n");
        }
        page.text(&format!("`{name}`{rest}"));
    }
}

fn description(page: &mut Page, command: &Command) {
    let long = command.get_long_about().map_or_else(|| about(command), ToString::to_string);
    for (index, paragraph) in long.split("\n\n").enumerate() {
        let text = sentence(&paragraph.replace('\n', " "));
        if index == 0 { page.text(&text) } else { page.paragraph(&text) }
    }
}

/// Renders its own options and arguments, without the global ones.
fn options(command: &Command) -> Option<String> {
    let mut rendered = Vec::new();
    let command = command.clone().mut_args(|arg| {
        let everywhere = arg.is_global_set() || arg.get_id() == "help";
        words_in_help(arg).hide(everywhere)
    });
    Man::new(command).render_options_section(&mut rendered).ok()?;
    let text = String::from_utf8(rendered).ok()?;
    let text = without_preamble(&text).strip_prefix(".SH OPTIONS\n")?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// Moves the possible values of an argument into its text; as a list they would take half a page.
fn words_in_help(arg: Arg) -> Arg {
    let words: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if words.is_empty() || !arg.get_action().takes_values() {
        return arg;
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.help(format!("{help}: {}", words.join(", "))).hide_possible_values(true)
}
