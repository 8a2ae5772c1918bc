//! `eventsubd man`: the manual, from the one definition of flags and the one table of keys.
//!
//! There is a page for the program, one for each command, and one for the configuration file.

mod commands;
mod file;
mod program;
mod roff;

use std::fs;
use std::path::Path;

use super::args::{Args, ManArgs};
use super::command;
use super::term::{self, Failure};

/// The manual that the pages belong to.
const MANUAL: &str = "eventsubd manual";

/// A page, ready for `man`.
#[derive(Debug)]
struct Finished {
    /// The file name of the page, such as `eventsubd-check.1`.
    file: String,
    /// Its source.
    text: String,
}

/// `eventsubd man`
pub(super) fn run(args: &Args, flags: &ManArgs) -> Result<u8, Failure> {
    let pages = all();
    if let Some(folder) = &flags.out {
        return write_all(args, &pages, folder);
    }
    let wanted = file_name(flags.page.as_deref().unwrap_or("eventsubd"));
    match pages.iter().find(|page| page.file == wanted) {
        Some(page) => term::write(page.text.as_bytes()),
        None => {
            let known: Vec<_> = pages.iter().map(|page| short(&page.file)).collect();
            Err(Failure::new(format!("there is no page {}", flags.page.as_deref().unwrap_or_default()))
                .hint(format!("there are: {}", known.join(", "))))
        }
    }
}

/// Every page: the program, the file, the commands.
fn all() -> Vec<Finished> {
    let mut root = command::command().disable_help_subcommand(true);
    root.build();
    let mut pages = vec![
        Finished { file: "eventsubd.1".to_owned(), text: program::page(&root) },
        Finished { file: "eventsubd.toml.5".to_owned(), text: file::page() },
    ];
    for sub in root.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        pages.push(Finished { file: format!("eventsubd-{}.1", sub.get_name()), text: commands::page(sub) });
    }
    pages
}

/// The file of a page as a person may call it: `check`, `eventsubd-check`, `config`, `eventsubd.toml`, `5`.
fn file_name(name: &str) -> String {
    match name {
        "eventsubd" | "1" => "eventsubd.1".to_owned(),
        "config" | "config.toml" | "eventsubd.toml" | "5" => "eventsubd.toml.5".to_owned(),
        name if name.starts_with("eventsubd-") => format!("{name}.1"),
        name => format!("eventsubd-{name}.1"),
    }
}

/// What a person may call the page in this file.
fn short(file: &str) -> &str {
    match file {
        "eventsubd.1" => "eventsubd",
        "eventsubd.toml.5" => "config",
        file => file.trim_start_matches("eventsubd-").trim_end_matches(".1"),
    }
}

fn write_all(args: &Args, pages: &[Finished], folder: &Path) -> Result<u8, Failure> {
    let failure = |path: &Path, error: &std::io::Error| {
        Failure::new(format!("cannot write {}", path.display())).because(error)
    };
    fs::create_dir_all(folder).map_err(|error| failure(folder, &error))?;
    for page in pages {
        let path = folder.join(&page.file);
        fs::write(&path, &page.text).map_err(|error| failure(&path, &error))?;
    }
    args.say(&format!("{} pages are in {}", pages.len(), folder.display()));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_can_be_asked_for() {
        let pages = all();
        assert!(pages.len() > 10);
        for page in &pages {
            assert_eq!(file_name(short(&page.file)), page.file);
        }
        assert_eq!(file_name("eventsubd-dead-letters"), "eventsubd-dead-letters.1");
    }
}
